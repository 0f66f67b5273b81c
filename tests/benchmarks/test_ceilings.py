import numpy as np
import pytest

from psarm.benchmarks import ceilings
from psarm.benchmarks.ceiling_bundle import COLUMNS, ROWS, SIDE, make_ceiling_bundle
from psarm.benchmarks.ceilings import Ceiling, measure_ceiling
from psarm.errors import PsarmError
from psarm.runtime import Bundle
from psarm.runtime.backends import load_backend


def test_the_graph_is_the_chain_it_says(tmp_path):
    import onnx
    from onnx import numpy_helper

    bundle = Bundle.open(make_ceiling_bundle(tmp_path / "two.psarm", "fp32", 2))
    images = np.random.default_rng(1).random((1, 3, SIDE, SIDE), np.float32)
    with load_backend("onnxruntime")(bundle, "fp32", 1) as engine:
        found = engine.run_detect(images, np.array([[SIDE, SIDE]]))
    graph = onnx.load(bundle.graph_path("fp32", "detect")).graph
    [matrix] = [numpy_helper.to_array(one) for one in graph.initializer if one.name == "matrix"]
    first = np.maximum(images.reshape(ROWS, COLUMNS) @ matrix, 0)
    assert found.scores[0, 0] == pytest.approx(np.maximum(first @ matrix, 0).max(), rel=1e-4)


@pytest.mark.parametrize(("backend", "precision"), [("onnxruntime", "int8"), ("openvino", "bf16"), ("torch", "fp32")])
def test_a_ceiling_is_measured(backend, precision, monkeypatch, tmp_path):
    monkeypatch.setenv("PSARM_CACHE", str(tmp_path))
    monkeypatch.setattr(ceilings, "ROUNDS", 8)
    monkeypatch.setattr(ceilings, "COPIED_BYTES", 1 << 20)
    ceilings.copy_rate.cache_clear()
    ceiling = measure_ceiling.__wrapped__(backend, precision, True, 1)
    ceilings.copy_rate.cache_clear()
    assert ceiling.gmacs_per_s > 0 and ceiling.copy_gb_per_s > 0
    assert list(tmp_path.iterdir()) == []  # its graphs are not kept among the user's


def test_what_has_no_ceiling_says_so():
    with pytest.raises(PsarmError, match="no product in int8"):
        measure_ceiling("torch", "int8", True, 1)


def test_a_gpu_has_that_of_the_gpu_suite(monkeypatch):
    import torch

    from psarm.benchmarks.gpu import measure

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PsarmError, match="which has none here"):
        measure_ceiling.__wrapped__("tensorrt", "fp16", False, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked = []
    found = measure.Ceiling({"fp16": 0.25}, 3000.0)
    monkeypatch.setattr(measure, "measure_ceiling", lambda *arguments: asked.append(arguments) or found)
    ceiling = measure_ceiling.__wrapped__("tensorrt", "fp16", False, 1)
    assert asked == [(torch.device("cuda"), {"fp16": torch.float16}, ceilings.ROUNDS)]
    assert ceiling == Ceiling(250.0, 3000.0, "8192x8192x8192 products in torch")


def test_the_rate_is_that_of_what_the_long_chain_has_more():
    assert ceilings._rate(3_000_000_000, 1.0, 2.5) == pytest.approx(2)
    with pytest.raises(PsarmError, match="too busy"):
        ceilings._rate(1, 2.0, 2.0)


def test_the_floor_in_milliseconds():
    ceiling = Ceiling(100, 10, "")
    assert ceiling.floor_ms(1e9, 0) == pytest.approx(10)
    assert ceiling.floor_ms(0, 1e9) == pytest.approx(100)
