from itertools import zip_longest

import onnxruntime
import pytest
import toy_bundle as toy

from psarm.errors import PsarmError, UsageError
from psarm.runtime import Bundle
from psarm.runtime.backends import (
    BACKENDS,
    _fastest_first,
    check_options,
    conditions,
    open_backend,
    ort_providers,
    probe_backends,
    runnable,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.open(toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm"))


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

    @staticmethod
    def lacks(bundle, precision):
        return None

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
    assert list(BACKENDS) == ["tensorrt", "tensorrt_rtx", "openvino", "onnxruntime", "onnxruntime_tensorrt", "torch"]

    def put(*kinds):
        for name, kind in zip_longest(BACKENDS, kinds, fillvalue=Absent):
            monkeypatch.setitem(BACKENDS, name, f"{__name__}:{kind.__name__}")

    return put


def test_every_known_backend_has_a_status():
    statuses = {status.name: status for status in probe_backends()}
    assert list(statuses) == list(BACKENDS)
    assert statuses["onnxruntime"].loads and onnxruntime.__version__ in statuses["onnxruntime"].detail


def test_auto_takes_the_first_that_runs_and_names_what_was_passed_over(bundle, put):
    put(Absent, Useless, Other, Failing, Absent, Fake)
    backend, why = open_backend(bundle)
    assert isinstance(backend, Fake) and backend.precision == "fp32"
    assert why == (
        "the fastest that loads for this bundle and precision, fake 1.0; passed over: "
        "tensorrt: it is not installed; tensorrt_rtx: the bundle holds nothing for it; "
        "openvino: runs this bundle in fp16, int8 only; onnxruntime: No engine was built for this GPU"
    )
    backend, why = open_backend(bundle, "torch", "bf16")
    assert backend.precision == "bf16" and why == "as asked; fake 1.0"


def test_auto_goes_by_precision_too(bundle, put):
    put(Absent, Fake, Other)
    assert open_backend(bundle, precision="bf16")[0].precision == "bf16"
    assert "tensorrt_rtx: runs this bundle in fp32, bf16 only" in open_backend(bundle, precision="int8")[1]
    put(Absent, Useless, Absent, Other)
    with pytest.raises(
        UsageError, match=r"No backend runs the bundle .* in bf16 here: tensorrt: it is not installed; "
    ):
        open_backend(bundle, precision="bf16")
    put(Useless)
    with pytest.raises(UsageError, match=r"holds no int8 graphs, only fp32; export .* fp32,int8 --calibrate DATA\.$"):
        open_backend(bundle, precision="int8")


def test_what_auto_would_refuse_shows_without_loading_graphs(bundle, put):
    put(Absent, Failing, Other)
    check_options(bundle, "auto", "bf16")
    check_options(bundle, "auto", "int8")
    put(Absent, Useless, Absent, Other)
    for precision, said in (("bf16", "No backend runs the bundle .* in bf16 here"), ("fp32", "in fp32 here")):
        with pytest.raises(UsageError, match=said) as refused:
            check_options(bundle, "auto", precision)
        with pytest.raises(UsageError) as opened:
            open_backend(bundle, precision=precision)
        assert str(refused.value) == str(opened.value)
    put(Useless)
    with pytest.raises(UsageError, match="holds no int8 graphs"):
        check_options(bundle, "auto", "int8")
    check_options(bundle, "auto", "int8", here=False)


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
    assert _fastest_first() == ["tensorrt", "tensorrt_rtx", "openvino", "onnxruntime", "torch"]
    monkeypatch.setattr(ort_providers, "probe", lambda provider: (True, "the CUDA device loads"))
    assert _fastest_first() == ["tensorrt", "tensorrt_rtx", "onnxruntime", "openvino", "torch"]


def test_a_gpu_that_does_not_load_is_named(bundle, put, monkeypatch):
    monkeypatch.setattr(ort_providers, "is_built_in", lambda provider: True)
    monkeypatch.setattr(ort_providers, "probe", lambda provider: (False, "CUDA does not load: no driver; get one"))
    put(Absent, Absent, Fake)
    assert "passed over: onnxruntime on a GPU: CUDA does not load: no driver; tensorrt:" in open_backend(bundle)[1]


def test_what_runs(bundle, put, monkeypatch):
    put(Absent, Useless, Fake)
    assert [runnable(bundle, name) for name in BACKENDS] == [(), (), ("fp32", "bf16"), (), (), ()]
    assert conditions(bundle, "openvino") == {"fp32": None, "bf16": None} and conditions(bundle, "tensorrt") == {}
    monkeypatch.setattr(Fake, "lacks", lambda bundle, precision: "make it" if precision == "bf16" else None)
    assert conditions(bundle, "openvino") == {"fp32": None, "bf16": "make it"}
    assert runnable(bundle, "openvino") == ("fp32",)
