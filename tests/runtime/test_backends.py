import onnx
import onnxruntime
import pytest
import toy_bundle as toy
from onnx import TensorProto, helper

from psarm.errors import UsageError
from psarm.runtime import Bundle
from psarm.runtime.backends import BACKENDS, PLANNED, open_backend, probe_backends
from psarm.runtime.backends import onnxruntime as ort_backend


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.open(toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm"))


@pytest.fixture(autouse=True)
def fresh_probe():
    ort_backend.probe_cuda.cache_clear()
    yield
    ort_backend.probe_cuda.cache_clear()


def test_the_probe_model_is_what_it_says():
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", value[:1], value[1:])
    expected = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    assert onnx.load_model_from_string(ort_backend.IDENTITY_MODEL) == expected


def test_every_known_backend_has_a_status():
    statuses = {status.name: status for status in probe_backends()}
    assert list(statuses) == [*BACKENDS, *PLANNED]
    assert statuses["onnxruntime"].loads and onnxruntime.__version__ in statuses["onnxruntime"].detail
    for name in PLANNED:
        assert not statuses[name].loads and "no such backend yet" in statuses[name].detail


def test_auto_says_what_and_why(bundle):
    backend, reason = open_backend(bundle, threads=2)
    with backend:
        assert (backend.name, backend.precision, backend.device) == ("onnxruntime", "fp32", "CPU, 2 threads")
    assert reason.startswith("onnxruntime, CPU, 2 threads, fp32 (the fastest backend that loads;")
    backend, reason = open_backend(bundle, "onnxruntime", "fp32", threads=1)
    assert "(as asked;" in reason


def test_threads_default_to_the_cores_this_process_may_use(bundle, monkeypatch):
    monkeypatch.setattr(ort_backend, "usable_cores", lambda: 3)
    backend, _ = open_backend(bundle)
    assert backend.device == "CPU, 3 threads"


def test_a_listed_cuda_that_does_not_load_is_not_used(bundle, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    works, why = ort_backend.probe_cuda()
    assert not works and "does not load" in why
    backend, reason = open_backend(bundle, threads=1)
    assert backend.device == "CPU, 1 thread" and "does not load" in reason


def test_no_backend_at_all_is_one_sentence(bundle, monkeypatch):
    monkeypatch.setitem(BACKENDS, "onnxruntime", (ort_backend.OnnxRuntimeBackend, lambda: (False, "it is broken")))
    with pytest.raises(UsageError, match="No backend loads: onnxruntime: it is broken"):
        open_backend(bundle)


def test_inputs_are_checked_before_the_graph_runs(bundle):
    import numpy as np

    images, sizes = np.zeros((1, 3, 32, 32), np.float32), np.array([[32, 32]])
    with open_backend(bundle, threads=1)[0] as backend:
        outputs = backend.run_detect(images, sizes)
        with pytest.raises(UsageError, match="'images' must be float32, got float64"):
            backend.run_detect(images.astype(np.float64), sizes)
        with pytest.raises(UsageError, match=r"'images' must be .* got \[3, 32, 32\]"):
            backend.run_detect(images[0], sizes)
        with pytest.raises(UsageError, match=r"'image_sizes' must be \['N', 2\] = \[1, 2\], got \[2, 2\]"):
            backend.run_detect(images, np.repeat(sizes, 2, axis=0))
        boxes = np.array([[0, 0, 9, 9]], np.float32)
        with pytest.raises(UsageError, match="at least one box"):
            backend.run_reid(outputs.features, boxes[:0], np.zeros(0, np.int64))
        with pytest.raises(UsageError, match=r"'batch_indices' must be \['R'\] = \[1\], got \[2\]"):
            backend.run_reid(outputs.features, boxes, np.zeros(2, np.int64))


def test_a_failure_inside_a_graph_is_one_sentence(bundle):
    import numpy as np

    from psarm.errors import PsarmError

    with open_backend(bundle, threads=1)[0] as backend:
        outputs = backend.run_detect(np.zeros((1, 3, 32, 32), np.float32), np.array([[32, 32]]))
        with pytest.raises(PsarmError, match="ONNX Runtime failed in the reid graph on CPU, 1 thread") as caught:
            backend.run_reid(outputs.features, np.zeros((1, 4), np.float32), np.array([7]))
        assert "\n" not in str(caught.value)
