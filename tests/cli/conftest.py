"""A checkpoint, and an export of it that does not trace again."""

import pytest
from small_models import exported_once, skip_tracing


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
    _, bundle = exported_once(tmp_path_factory, "paper")
    skip_tracing(bundle, monkeypatch)
