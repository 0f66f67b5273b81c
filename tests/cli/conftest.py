"""A checkpoint, and an export of it that does not trace again."""

import pytest
from small_models import exported_once


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from psarm.model import save_model

    model, _ = exported_once(tmp_path_factory, "paper")
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    save_model(model, path)
    return path


@pytest.fixture
def quick(tmp_path_factory, monkeypatch):
    """Tracing gives back the graphs traced before."""
    import onnx

    from psarm.export import exporter
    from psarm.export.tracing import TracedGraph
    from psarm.runtime.bundle import Bundle

    _, bundle = exported_once(tmp_path_factory, "paper")
    specs = Bundle.open(bundle).manifest.graphs
    graphs = {name: TracedGraph(name, onnx.load(bundle / f"{name}.onnx"), specs[name]) for name in specs}
    monkeypatch.setattr(exporter, "trace_detect", lambda graph: graphs["detect"])
    monkeypatch.setattr(exporter, "trace_heads", lambda name, graph, channels: graphs[name])
