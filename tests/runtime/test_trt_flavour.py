"""The two libraries: which is there, what is said where none is, and that the shared API is the real one."""

import inspect
import types

import pytest

from psarm.errors import MissingExtraError, PsarmError, UsageError
from psarm.runtime.tensorrt import flavour, layers, library
from psarm.runtime.tensorrt.flavour import TENSORRT, TENSORRT_RTX, find_flavour

CLASSES = {
    "Tensor": "ITensor",
    "Layer": "ILayer",
    "Network": "INetworkDefinition",
    "ParserError": "ParserError",
    "OnnxParser": "OnnxParser",
    "OptimizationProfile": "IOptimizationProfile",
    "BuilderConfig": "IBuilderConfig",
    "Builder": "Builder",
    "ExecutionContext": "IExecutionContext",
    "Engine": "ICudaEngine",
    "Runtime": "Runtime",
}


@pytest.mark.parametrize("name", CLASSES)
def test_every_member_is_in_the_real_bindings(name):
    real = getattr(pytest.importorskip("tensorrt_rtx_bindings"), CLASSES[name])
    ours = getattr(library, name)
    methods = [member for member, _ in inspect.getmembers(ours, inspect.isfunction) if not member.startswith("_")]
    members = {*methods, *ours.__annotations__}
    assert members
    assert {member for member in members if not hasattr(real, member)} == set()
    for method in methods:
        arguments = [argument for argument in inspect.signature(getattr(ours, method)).parameters if argument != "self"]
        text = getattr(real, method).__doc__
        assert all(f"{argument}:" in text for argument in arguments), (method, text)


def test_every_member_of_the_module_is_real():
    real = pytest.importorskip("tensorrt_rtx_bindings")
    names = {*library.Library.__annotations__, "Builder", "OnnxParser", "Runtime", "nptype"}
    assert {name for name in names if not hasattr(real, name)} == set()
    assert hasattr(real.ExecutionContextAllocationStrategy, "USER_MANAGED")
    assert hasattr(real.CudaGraphStrategy, "WHOLE_GRAPH_CAPTURE")
    for name in ("create_runtime_cache", "set_runtime_cache", "set_execution_context_allocation_strategy"):
        assert hasattr(real.IRuntimeConfig, name)


def test_rtx_is_here():
    pytest.importorskip("tensorrt_rtx_bindings")
    assert TENSORRT_RTX.title_version().startswith("TensorRT for RTX 1.")
    assert TENSORRT_RTX.logger() is TENSORRT_RTX.logger()


def test_not_installed(monkeypatch):
    monkeypatch.setattr(flavour.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"TensorRT needs the 'trt' extra \(tensorrt is not installed\)"):
        TENSORRT.load()
    with pytest.raises(MissingExtraError, match="neither tensorrt nor tensorrt_rtx is installed"):
        find_flavour(None)


def test_a_wheel_of_another_cuda(monkeypatch):
    def broken(name):
        raise ImportError("libcudart.so.12: cannot open shared object file: No such file or directory\nmore")

    monkeypatch.setattr(flavour.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(flavour.importlib, "import_module", broken)
    with pytest.raises(
        PsarmError, match=r"does not load \(libcudart\.so\.12: .*\); .* another CUDA .* install the one"
    ):
        TENSORRT.load()


def test_a_library_that_only_runs(monkeypatch):
    monkeypatch.setattr(flavour.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(flavour.importlib, "import_module", lambda name: types.SimpleNamespace())
    with pytest.raises(PsarmError, match="has no builder"):
        TENSORRT.load()


def test_creation_flags(monkeypatch):
    modern = types.SimpleNamespace(Builder=1, NetworkDefinitionCreationFlag=types.SimpleNamespace())
    older = types.SimpleNamespace(Builder=1, NetworkDefinitionCreationFlag=types.SimpleNamespace(STRONGLY_TYPED=3))
    monkeypatch.setattr(flavour.importlib.util, "find_spec", lambda name: name)
    for module, flags in ((modern, 0), (older, 8)):
        monkeypatch.setattr(flavour.importlib, "import_module", lambda name, module=module: module)
        assert TENSORRT.creation_flags() == flags


def test_names():
    assert find_flavour("tensorrt") is TENSORRT
    with pytest.raises(UsageError, match="no TensorRT flavour 'trt'; choose tensorrt or tensorrt_rtx"):
        find_flavour("trt")


def test_layers_are_counted_by_the_type_of_their_outputs():
    text = "\n".join(
        [
            "Layers:",
            "Name: a, LayerType: kgen, Inputs: [ { Name: x, Datatype: Float }], Outputs: [ { Name: y, Datatype: Half, "
            "Format: (NHWC) }], TacticName: t",
            "Name: b, LayerType: gemm, Inputs: [], Outputs: [ { Name: y, Format/Datatype: Row major FP16 format }]",
            "Name: c, LayerType: conv, Inputs: [], Outputs: [ { Name: y, Format/Datatype: Float }], Metadata: ",
            "Name: d, LayerType: conv, Inputs: [], Outputs: [ { Name: y, Datatype: Int8, Format: x }], Metadata: ",
            "Name: e, LayerType: shape_call, Inputs: [], Outputs: [], Metadata: ",
            "Name: f, LayerType: conv, Inputs: [], Outputs: [ { Name: y, Format/Datatype: Row major INT8 format }]",
            "Name: g, LayerType: cast, Inputs: [], Outputs: [ { Name: y, Datatype: Row major linear Int64 format }]",
            " Name: y, IOMode: Output, DataType: Float, Dimensions: [-1]",
        ]
    )
    assert layers.count(text) == {"fp16": 2, "fp32": 1, "int8": 2, "int64": 1}
