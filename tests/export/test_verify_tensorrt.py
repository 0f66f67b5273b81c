"""The form for TensorRT in a bundle: written in every precision asked for, and verified."""

import onnx
import pytest
import torch
from onnx import TensorProto
from small_models import exported_once, skip_tracing, traced_for_tensorrt_once

from psarm.errors import ExportError
from psarm.export import export_bundle, exporter
from psarm.export.precision.settings import PrecisionSettings
from psarm.export.verify_graphs import GraphRunner
from psarm.export.verify_tensorrt import verify_tensorrt
from psarm.runtime.bundle import Bundle


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A bundle with both forms in fp32 and fp16, of graphs traced before."""
    model, bundle = exported_once(tmp_path_factory, "paper")
    folder = tmp_path_factory.mktemp("tensorrt") / "b.psarm"
    settings = PrecisionSettings(("fp32", "fp16"), tensorrt=True)
    with pytest.MonkeyPatch.context() as monkeypatch:
        skip_tracing(bundle, monkeypatch)
        monkeypatch.setattr(exporter, "trace_tensorrt", lambda model: traced_for_tensorrt_once(tmp_path_factory))
        report = export_bundle(model, folder, settings=settings)
    return folder, report


def test_files(exported):
    folder, report = exported
    manifest = Bundle.open(folder).manifest
    assert manifest.tensorrt == {
        precision: {name: f"tensorrt/{name}.{precision}.onnx" for name in ("detect", "reid")}
        for precision in ("fp32", "fp16")
    }
    assert {"tensorrt/detect.fp32", "tensorrt/reid.fp16"} <= report.sizes.keys()


def test_features_stay_half_between_the_fp16_graphs(exported):
    folder, _ = exported
    graphs = {name: onnx.load(folder / "tensorrt" / f"{name}.fp16.onnx").graph for name in ("detect", "reid")}
    kinds = {
        name: {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
        for name, graph in graphs.items()
    }
    assert kinds["detect"].pop("features") == kinds["reid"].pop("features") == TensorProto.FLOAT16
    assert TensorProto.FLOAT16 not in {*kinds["detect"].values(), *kinds["reid"].values()}


def test_it_is_compared_with_the_ordinary_graphs(exported):
    _, report = exported
    found = [one for one in report.comparisons if one.graph.startswith("tensorrt/")]
    assert len(found) == 6 and not any(one.failures() for one in found)
    assert all(one.compared > 3 for one in found)


@pytest.mark.parametrize("graph, output", [("detect", "scores"), ("reid", "embeddings"), ("detect", "counts")])
def test_a_wrong_answer_is_found(exported, monkeypatch, graph, output):
    folder, _ = exported
    run = GraphRunner.run

    def tampered(self, **inputs):
        outputs = run(self, **inputs)
        if output in outputs and ("exact" in outputs or graph == "reid") and not hasattr(self, "ordinary"):
            outputs[output] = outputs[output] + torch.ones((), dtype=outputs[output].dtype)
        return outputs

    made = GraphRunner.__init__

    def noted(self, path, *arguments):
        made(self, path, *arguments)
        if path.parent.name != "tensorrt":
            self.ordinary = True

    monkeypatch.setattr(GraphRunner, "__init__", noted)
    monkeypatch.setattr(GraphRunner, "run", tampered)
    with pytest.raises(ExportError, match=f"tensorrt/{graph}, one image"):
        verify_tensorrt(folder, ["detect", "reid"])


def test_nothing_settled_is_found(exported, monkeypatch):
    folder, _ = exported
    run = GraphRunner.run

    def unsettled(self, **inputs):
        outputs = run(self, **inputs)
        return outputs | {"exact": torch.zeros_like(outputs["exact"])} if "exact" in outputs else outputs

    monkeypatch.setattr(GraphRunner, "run", unsettled)
    with pytest.raises(ExportError, match="tensorrt/detect, one image: no image's proposals are settled"):
        verify_tensorrt(folder, ["detect", "reid"])


def test_fp16_is_run_in_both_roundings(small_bundle, tmp_path, monkeypatch):
    """As it is written and with every value rounded; the features that pass between the graphs are half."""
    runs = []
    monkeypatch.setattr(exporter, "verify_half", lambda exact, half, form="": runs.append((form, exact, half)))
    skip_tracing(small_bundle.bundle, monkeypatch)
    ordinary = [exporter.trace_detect(None), exporter.trace_heads("reid", None, 0)]
    monkeypatch.setattr(exporter, "trace_tensorrt", lambda model: ordinary)
    for step in ("verify_bundle", "verify_tensorrt", "measure_precisions"):
        monkeypatch.setattr(exporter, step, lambda *arguments: [])
    export_bundle(small_bundle.model, tmp_path / "b", settings=PrecisionSettings(("fp32", "fp16"), tensorrt=True))
    assert [form for form, _, _ in runs] == ["", "tensorrt/", "tensorrt/"]
    features = [half["reid"].graph.input[0].type.tensor_type.elem_type for _, _, half in runs]
    assert features == [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.FLOAT]


def test_only_what_was_asked_for(small_bundle, monkeypatch, tmp_path):
    skip_tracing(small_bundle.bundle, monkeypatch)
    export_bundle(small_bundle.model, tmp_path / "b", verify=False)
    assert Bundle.open(tmp_path / "b").manifest.tensorrt == {}
