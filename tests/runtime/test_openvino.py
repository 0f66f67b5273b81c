"""OpenVINO alone: the precision it is told and really uses, threads, CPUs without bf16, and boxes that stay exact."""

import dataclasses
import sys

import numpy as np
import onnx
import openvino
import pytest
import toy_bundle as toy
from small_models import exported_once
from toy_int8 import quantise_conv

from psarm.errors import PsarmError, UsageError
from psarm.machine import usable_cores
from psarm.runtime import Bundle, PersonSearch
from psarm.runtime.backends import open_backend, probe_backend
from psarm.runtime.backends import openvino as openvino_backend
from psarm.runtime.backends.openvino import OpenVINOBackend
from psarm.runtime.manifest import describe_files, read_manifest, write_manifest

HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
needs_bf16 = pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bf16")
PRECISIONS = ["fp32", pytest.param("bf16", marks=needs_bf16)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.open(toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return Bundle.open(exported_once(tmp_path_factory, "paper")[1])


@pytest.fixture
def no_bf16(monkeypatch):
    monkeypatch.setattr(openvino_backend, "_computes", lambda kind: kind in ("FP32", "INT8"))


def property_of(backend, graph, name):
    return backend._requests[graph].get_compiled_model().get_property(name)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_precision_is_the_one_asked_for_and_threads_are_explicit(bundle, precision):
    with open_backend(bundle, "openvino", precision, threads=1)[0] as backend:
        assert (backend.precision, backend.device) == (precision, "CPU, 1 thread")
        for graph in ("detect", "reid"):
            hint = property_of(backend, graph, "INFERENCE_PRECISION_HINT")
            assert hint.to_string() == {"fp32": "f32", "bf16": "bf16"}[precision]
            assert property_of(backend, graph, "INFERENCE_NUM_THREADS") == 1
            assert int(property_of(backend, graph, "NUM_STREAMS")) == 1
            assert property_of(backend, graph, "ENABLE_CPU_PINNING") is False


def test_threads_default_to_the_cores_this_process_may_use(bundle):
    cores = usable_cores()
    with open_backend(bundle, "openvino")[0] as backend:
        assert backend.threads == cores
    with open_backend(bundle, "openvino", threads=1000)[0] as backend:
        assert backend.device in (f"CPU, {cores} threads", "CPU, 1 thread")  # OpenVINO takes no more than there are


def test_a_cpu_without_bf16(bundle, no_bf16):
    assert OpenVINOBackend.precisions(bundle) == ("fp32",)
    assert "(AMD" not in probe_backend("openvino").detail.partition(":")[2]
    assert probe_backend("openvino").detail.endswith(": fp32, int8)")
    with pytest.raises(UsageError, match=r"This CPU \(.+\) has no bf16 instructions; use fp32, or int8 where there is"):
        open_backend(bundle, "openvino", "bf16")
    assert openvino_backend._computed_in("int8") == openvino_backend._computed_in("fp16") == "fp32"


def test_a_hint_that_is_not_followed_is_an_error(bundle, monkeypatch):
    monkeypatch.setattr(openvino_backend, "_computes", lambda kind: True)
    monkeypatch.setattr(openvino_backend, "_computed_in", lambda precision: "fp16")
    if "FP16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has fp16")
    with pytest.raises(PsarmError, match=r"OpenVINO runs .*detect\.onnx in \w+ where f16 was asked for"):
        open_backend(bundle, "openvino", "fp32")


def test_it_is_not_installed(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    status = probe_backend("openvino")
    assert not status.loads
    assert status.detail == "openvino is not installed; install it with: pip install 'psarm[openvino]'"
    with pytest.raises(UsageError, match="The backend openvino does not load: openvino is not installed; install it"):
        open_backend(bundle, "openvino")


def test_a_wheel_that_does_not_fit(monkeypatch):
    def broken():
        raise OSError("libtbb.so.12: cannot open shared object file")

    monkeypatch.setattr(openvino_backend, "_core", broken)
    status = probe_backend("openvino")
    assert status.detail == "openvino is installed but does not load: libtbb.so.12: cannot open shared object file"


def test_it_does_not_start(bundle, monkeypatch):
    def broken():
        raise RuntimeError("Exception from src/inference/src/cpp/core.cpp:97:\nNo device CPU was found.\n\n")

    monkeypatch.setattr(openvino_backend, "_core", broken)
    status = probe_backend("openvino")
    assert not status.loads and status.detail == "openvino is installed but does not start: No device CPU was found"


def test_a_failure_inside_a_graph_is_one_sentence(bundle, monkeypatch):
    class Broken:
        def infer(self, *_, **__):
            raise RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp:224:\n\nIt broke.\n")

    with open_backend(bundle, "openvino", threads=1)[0] as backend:
        backend._requests["detect"] = Broken()
        with pytest.raises(PsarmError) as caught:
            backend.run_detect(np.zeros((1, 3, 32, 32), np.float32), np.array([[32, 32]]))
    assert str(caught.value) == "OpenVINO failed in the detect graph on CPU, 1 thread: It broke."


@needs_bf16
def test_bf16_people_are_fp32s(small):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (height, width, 3), np.uint8) for height, width in ((96, 160), (70, 50))]
    with (
        PersonSearch(small, "openvino", "fp32", 1, score_thresh=0) as full,
        PersonSearch(small, "openvino", "bf16", 1, score_thresh=0) as half,
    ):
        for frame in frames:
            boxes = full.detect(frame).boxes[:5]
            exact, rounded = full.embed(frame, boxes), half.embed(frame, boxes)
            assert 0 < np.abs(exact - rounded).max() < 0.05
            np.testing.assert_allclose(np.linalg.norm(rounded, axis=1), 1, atol=1e-5)


@needs_bf16
def test_roi_align_has_its_boxes_in_float32(small):
    with open_backend(small, "openvino", "bf16", threads=1)[0] as backend:
        model = backend._requests["detect"].get_compiled_model().get_runtime_model()
    [align] = [op for op in model.get_ops() if kind(op) == "ROIAlign"]
    above = align.input_value(1).get_node()
    while kind(above) in ("Reorder", "Reshape"):
        assert "bf16" not in above.get_rt_info()["runtimePrecision"].astype(str), above.get_friendly_name()
        above = above.input_value(0).get_node()
    assert kind(above) == "Eltwise"


def test_int8_says_what_the_rest_runs_in(tmp_path):
    folder = toy.make_toy_bundle(tmp_path / "toy.psarm")
    model = onnx.load(folder / "detect.onnx")
    quantise_conv(model)
    onnx.save(model, folder / "detect.onnx")
    files = describe_files(folder, ["detect.onnx", "reid.onnx"])
    manifest = read_manifest(folder)
    precisions = {"int8": manifest.precisions["fp32"]}
    write_manifest(folder, dataclasses.replace(manifest, precisions=precisions, files=files))
    with PersonSearch(folder, "openvino", threads=1) as engine:
        rest = "bf16" if HAS_BF16 else "fp32"
        assert (engine.precision, engine.device) == ("int8", f"CPU, 1 thread, the rest in {rest}")
        assert engine.summary == f"OpenVINO int8 (the rest in {rest}) on CPU, 1 thread"
        model = engine._backend._requests["detect"].get_compiled_model().get_runtime_model()
    [convolution] = [op for op in model.get_ops() if kind(op) == "Convolution"]
    assert convolution.get_rt_info()["runtimePrecision"].astype(str) in ("i8", "u8")


def kind(operation):
    return operation.get_rt_info()["layerType"].astype(str)
