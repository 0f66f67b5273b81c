"""ONNX Runtime alone: which provider really loads, why another does not, and tensors that stay where they are."""

import ctypes
import dataclasses
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import toy_bundle as toy
from onnx import TensorProto, helper

from psarm.cli.engine_options import open_engine
from psarm.errors import PsarmError, UsageError
from psarm.runtime import Bundle
from psarm.runtime.backends import onnxruntime as ort_backend
from psarm.runtime.backends import open_backend, ort_providers, probe_backend
from psarm.runtime.backends.onnxruntime import OnnxRuntimeTensorRTBackend, OrtTensor
from psarm.runtime.backends.ort_providers import CPU, CUDA, TENSORRT
from psarm.runtime.manifest import describe_files, read_manifest, write_manifest


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.open(toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm"))


@pytest.fixture(autouse=True)
def fresh_probe():
    ort_providers.probe.cache_clear()
    yield
    ort_providers.probe.cache_clear()


@pytest.fixture
def gpu_wheel(monkeypatch, tmp_path):
    """ONNX Runtime as onnxruntime-gpu has it, on a machine without CUDA's libraries."""
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")  # not to be left set by the probe
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(onnxruntime, "cuda_version", "13.0", raising=False)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcublasLt.so.13"), raising=False)
    (tmp_path / "capi").mkdir()
    for provider in ("cuda", "tensorrt"):
        (tmp_path / "capi" / f"libonnxruntime_providers_{provider}.so").write_bytes(b"")

    def load(path):
        missing = "libcublasLt.so.13" if "cuda" in Path(path).name else "libnvinfer.so.10"
        raise OSError(f"{missing}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", load)


def test_the_probe_model_is_what_it_says():
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", value[:1], value[1:])
    expected = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    assert onnx.load_model_from_string(ort_providers.IDENTITY_MODEL) == expected


def test_threads_default_to_the_cores_this_process_may_use(bundle, monkeypatch):
    monkeypatch.setattr(ort_backend, "usable_cores", lambda: 3)
    with open_backend(bundle, "onnxruntime")[0] as backend:
        assert backend.device == "CPU, 3 threads"


def test_it_is_not_installed(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status = probe_backend("onnxruntime")
    assert not status.loads and status.detail.endswith("; install it with: pip install onnxruntime")
    with pytest.raises(UsageError, match=r"backend onnxruntime does not load: onnxruntime is not installed \("):
        open_backend(bundle, "onnxruntime")


def test_a_wheel_of_another_cuda_says_so_and_the_cpu_runs(bundle, gpu_wheel, capfd):
    status = probe_backend("onnxruntime")
    assert status.loads and status.detail == (
        f"onnxruntime {onnxruntime.__version__} on CPU: CUDA is built in but does not load: libcublasLt.so.13: cannot "
        f"open shared object file: No such file or directory; onnxruntime-gpu {onnxruntime.__version__} is made for "
        "CUDA 13.0: install that CUDA's libraries with: pip install 'onnxruntime-gpu[cuda,cudnn]', or an "
        "onnxruntime-gpu made for your CUDA"
    )
    backend, reason = open_backend(bundle, "onnxruntime", threads=1)
    assert backend.device == "CPU, 1 thread" and "libcublasLt.so.13" in reason
    assert capfd.readouterr() == ("", "")
    _, reason = open_backend(bundle, threads=1)
    assert "passed over: onnxruntime on a GPU: CUDA is built in but does not load: libcublasLt.so.13" in reason


def test_a_command_says_that_cuda_fell_back_where_onnxruntime_was_asked_for(bundle, gpu_wheel, capsys):
    open_engine(bundle.path, "onnxruntime", "auto", 1, None).close()
    assert "fp32 on CPU, 1 thread: CUDA is built in but does not load: libcublasLt.so.13" in capsys.readouterr().err
    open_engine(bundle.path, "openvino", "auto", 1, None).close()
    assert "CUDA" not in capsys.readouterr().err


def test_tensorrt_is_only_used_when_it_loads(bundle, gpu_wheel):
    status = probe_backend("onnxruntime_tensorrt")
    assert not status.loads and status.brief.startswith("TensorRT is built in but does not load: libnvinfer.so.10")
    with pytest.raises(
        UsageError, match=r"onnxruntime_tensorrt does not load: .* made for CUDA 13\.0: install that CUDA"
    ):
        open_backend(bundle, "onnxruntime_tensorrt")


def test_a_listed_cuda_that_does_not_load_is_not_used(bundle, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    works, why = ort_providers.probe(CUDA)
    assert not works and "does not load" in why
    backend, reason = open_backend(bundle, "onnxruntime", threads=1)
    assert backend.device == "CPU, 1 thread" and "does not load" in reason


def test_a_provider_that_drops_out_when_the_graphs_load_is_an_error(bundle, monkeypatch):
    monkeypatch.setattr(ort_providers, "probe", lambda provider: (True, "the device loads"))
    with pytest.raises(PsarmError, match=r"ONNX Runtime does not run .*detect\.onnx on CUDA; see psarm doctor"):
        open_backend(bundle, "onnxruntime")


def test_what_tensorrt_is_told(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("PSARM_CACHE", str(tmp_path))
    (provider, options), (cuda, cuda_options), cpu = ort_providers.tensorrt_options("abc")
    assert (provider, cuda, cpu) == (TENSORRT, CUDA, CPU) and cuda_options["use_tf32"] == "0"
    assert options["trt_engine_cache_path"] == str(tmp_path / "onnxruntime_tensorrt" / "abc")
    assert not {"trt_fp16_enable", "trt_int8_enable"} & set(options), "networks would not be strongly typed"
    assert OnnxRuntimeTensorRTBackend.provider() == TENSORRT


def test_tensorrt_engines_are_kept_by_the_graphs_they_are_of(bundle):
    backend = object.__new__(OnnxRuntimeTensorRTBackend)
    backend.precision = "fp32"
    manifest = bundle.manifest
    other = dataclasses.replace(manifest.files["detect.onnx"], sha256="0" * 64)
    changed = dataclasses.replace(manifest, files=manifest.files | {"detect.onnx": other})
    assert changed.embedding == manifest.embedding
    assert backend._key(bundle) == backend._key(bundle) != backend._key(dataclasses.replace(bundle, manifest=changed))


@pytest.mark.parametrize(("before", "after"), [(None, "0"), ("1", "1")])
def test_tf32_is_off_before_tensorrt_starts(gpu_wheel, monkeypatch, before, after):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", before or "")
    if before is None:
        monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    probe_backend("onnxruntime")
    assert os.environ.get("NVIDIA_TF32_OVERRIDE") == before, "CUDA has an option of its own"
    probe_backend("onnxruntime_tensorrt")
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == after


def test_features_stay_where_they_are(bundle):
    with open_backend(bundle, "onnxruntime", threads=1)[0] as backend:
        outputs = backend.run_detect(np.ones((1, 3, 64, 32), np.float32), np.array([[64, 32]]))
    features = outputs.features
    assert isinstance(features, OrtTensor) and features.value.device_name() == "cpu"
    assert (features.shape, features.dtype) == ((1, toy.CHANNELS, 4, 2), np.float32)
    assert np.asarray(features).shape == features.shape and np.asarray(features, np.float64).dtype == np.float64
    assert isinstance(outputs.boxes, np.ndarray)


def test_memory_that_really_runs_out(bundle, tmp_path):
    folder = shutil.copytree(bundle.path, tmp_path / "toy.psarm")
    model = onnx.load(folder / "detect.onnx")
    scores = next(node for node in model.graph.node if node.output[0] == "scores")
    scores.output[0] = "small_scores"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1 << 42]), "huge_count"))
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["small_scores"], ["peak"], keepdims=0),
            helper.make_node("Expand", ["peak", "huge_count"], ["too_much"]),
            helper.make_node("ReduceMax", ["too_much"], ["least"], keepdims=0),
            helper.make_node("Add", ["small_scores", "least"], ["scores"]),
        ]
    )
    onnx.save(model, folder / "detect.onnx")
    files = describe_files(folder, ["detect.onnx", "reid.onnx"])
    write_manifest(folder, dataclasses.replace(read_manifest(folder), files=files))
    backend, _ = open_backend(Bundle.open(folder), "onnxruntime", threads=1)
    says = "ONNX Runtime ran out of memory in the detect graph on CPU, 1 thread with 2 frames at a time; use a smaller"
    with backend, pytest.raises(PsarmError, match=says):
        backend.run_detect(np.zeros((2, 3, 32, 32), np.float32), np.array([[32, 32]] * 2))


def test_a_failure_inside_a_graph_is_one_sentence(bundle):
    with open_backend(bundle, "onnxruntime", threads=1)[0] as backend:
        outputs = backend.run_detect(np.zeros((1, 3, 32, 32), np.float32), np.array([[32, 32]]))
        with pytest.raises(PsarmError, match="ONNX Runtime failed in the reid graph on CPU, 1 thread") as caught:
            backend.run_reid(outputs.features, np.zeros((1, 4), np.float32), np.array([7]))
        assert "\n" not in str(caught.value)


def test_bf16_is_for_others(bundle):
    with pytest.raises(
        UsageError, match="holds no bf16 graphs, only fp32: OpenVINO and torch run the fp32 ones in bf16"
    ):
        open_backend(bundle, "onnxruntime", "bf16")
