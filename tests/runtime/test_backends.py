from itertools import zip_longest

import numpy as np
import onnx
import onnxruntime
import pytest
import toy_bundle as toy
from onnx import TensorProto, helper

from psarm.errors import PsarmError, UsageError
from psarm.runtime import Bundle
from psarm.runtime.backends import BACKENDS, _fastest_first, open_backend, probe_backends, runnable
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


class Fake:
    """A backend that stands in for one that this machine may or may not have."""

    name = "torch"
    device = "a device"

    def __init__(self, bundle, precision, threads):
        self.precision = precision

    @staticmethod
    def probe():
        return True, "fake 1.0"

    @staticmethod
    def precisions(bundle):
        return ("fp32", "bf16")

    def close(self):
        pass


class Absent(Fake):
    @staticmethod
    def probe():
        return False, "it is not installed; install it with: pip install it"


class Useless(Fake):
    @staticmethod
    def precisions(bundle):
        return ()


class Other(Fake):
    @staticmethod
    def precisions(bundle):
        return ("fp16", "int8")


class Failing(Fake):
    def __init__(self, *_):
        raise PsarmError("No engine was built for this GPU.")


@pytest.fixture
def put(monkeypatch):
    """Let the backends be these classes, in the order of BACKENDS, and the rest absent."""

    def put(*kinds):
        for name, kind in zip_longest(BACKENDS, kinds, fillvalue=Absent):
            monkeypatch.setitem(BACKENDS, name, f"{__name__}:{kind.__name__}")

    return put


def test_every_known_backend_has_a_status():
    statuses = {status.name: status for status in probe_backends()}
    assert list(statuses) == list(BACKENDS)
    assert statuses["onnxruntime"].loads and onnxruntime.__version__ in statuses["onnxruntime"].detail


def test_auto_takes_the_first_that_runs_and_names_what_was_passed_over(bundle, put):
    put(Absent, Useless, Other, Failing, Fake)
    backend, reason = open_backend(bundle)
    assert isinstance(backend, Fake) and backend.precision == "fp32"
    assert reason == (
        "torch, a device, fp32 (the fastest that loads for this bundle and precision; passed over: "
        "tensorrt: it is not installed; tensorrt_rtx: the bundle holds nothing for it; "
        "openvino: runs this bundle in fp16, int8 only; onnxruntime: No engine was built for this GPU; fake 1.0)"
    )
    backend, reason = open_backend(bundle, "torch", "bf16")
    assert reason == "torch, a device, bf16 (as asked; fake 1.0)"


def test_auto_goes_by_precision_too(bundle, put):
    put(Absent, Fake, Other)
    assert open_backend(bundle, precision="bf16")[1].startswith("torch, a device, bf16")
    assert "tensorrt_rtx: runs this bundle in fp32, bf16 only;" in open_backend(bundle, precision="int8")[1]
    put(Absent, Useless, Absent, Other)
    with pytest.raises(
        UsageError, match=r"No backend runs the bundle .* in bf16 here: tensorrt: it is not installed; "
    ):
        open_backend(bundle, precision="bf16")
    put(Useless)
    with pytest.raises(UsageError, match="holds no int8 graphs, only fp32; export it with"):
        open_backend(bundle, precision="int8")


def test_nothing_that_opens_or_loads(bundle, put):
    put(Absent, Failing, Failing)
    with pytest.raises(PsarmError, match=r"^No engine was built for this GPU\.$"):
        open_backend(bundle)
    put()
    with pytest.raises(UsageError, match=r"No backend loads: tensorrt: it is not installed; install it with: pip "):
        open_backend(bundle)
    with pytest.raises(UsageError, match=r"backend openvino does not load: it is not installed; install it with: pip "):
        open_backend(bundle, "openvino")


def test_a_gpu_lets_onnx_runtime_come_before_openvino(monkeypatch):
    assert list(_fastest_first()) == list(BACKENDS)
    monkeypatch.setattr(ort_backend, "probe_cuda", lambda: (True, "the CUDA device loads"))
    assert list(_fastest_first()) == ["tensorrt", "tensorrt_rtx", "onnxruntime", "openvino", "torch"]


def test_what_runs(bundle, put):
    put(Absent, Useless, Fake)
    assert [runnable(bundle, name) for name in BACKENDS] == [(), (), ("fp32", "bf16"), (), ()]


def test_threads_default_to_the_cores_this_process_may_use(bundle, monkeypatch):
    monkeypatch.setattr(ort_backend, "usable_cores", lambda: 3)
    backend, _ = open_backend(bundle, "onnxruntime")
    assert backend.device == "CPU, 3 threads"


def test_a_listed_cuda_that_does_not_load_is_not_used(bundle, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    works, why = ort_backend.probe_cuda()
    assert not works and "does not load" in why
    backend, reason = open_backend(bundle, "onnxruntime", threads=1)
    assert backend.device == "CPU, 1 thread" and "does not load" in reason


def test_inputs_are_checked_before_the_graph_runs(bundle):
    images, sizes = np.zeros((1, 3, 32, 32), np.float32), np.array([[32, 32]])
    with open_backend(bundle, "onnxruntime", threads=1)[0] as backend:
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
    with open_backend(bundle, "onnxruntime", threads=1)[0] as backend:
        outputs = backend.run_detect(np.zeros((1, 3, 32, 32), np.float32), np.array([[32, 32]]))
        with pytest.raises(PsarmError, match="ONNX Runtime failed in the reid graph on CPU, 1 thread") as caught:
            backend.run_reid(outputs.features, np.zeros((1, 4), np.float32), np.array([7]))
        assert "\n" not in str(caught.value)
