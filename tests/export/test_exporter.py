"""`export_bundle`: what it takes, where it writes, and that a failed export leaves nothing."""

import dataclasses

import pytest
import torch
from released_files import small_released
from small_models import exported_once, skip_tracing, small_model

from psarm.errors import CheckpointError, ExportError, UsageError
from psarm.export import export_bundle, exporter
from psarm.model import save_model
from psarm.runtime.bundle import Bundle


@pytest.fixture
def quick(small_bundle, monkeypatch):
    """Tracing gives back the graphs traced before; yields the model they belong to."""
    skip_tracing(small_bundle.bundle, monkeypatch)
    return small_bundle.model


def test_checkpoint_with_its_data_set(quick, tmp_path):
    save_model(quick, tmp_path / "model.safetensors", {"name": "prw", "train_frames": 12, "identities": 7})
    said = []
    report = export_bundle(tmp_path / "model.safetensors", tmp_path / "deep" / "bundle", verify=False, say=said.append)
    manifest = Bundle.open(tmp_path / "deep" / "bundle").manifest
    assert dataclasses.asdict(manifest.dataset) == {"name": "prw", "train_frames": 12, "identities": 7}
    assert report.bundle == tmp_path / "deep" / "bundle"
    assert report.sizes == {name: manifest.files[f"{name}.onnx"].size for name in ("detect", "reid")}
    assert report.nodes["detect"] > 200 and report.nodes["reid"] > 50
    assert said == ["tracing detect…", "tracing reid…"]


def test_training_state(quick, tmp_path):
    """A last.pt holds the frames and identities themselves."""
    from psarm.config import to_dict

    about = {"name": "prw", "train_frames": ["a.jpg", "b.jpg"], "identities": [3, 5, 9]}
    state = {"model": quick.state_dict(), "config": {"model": to_dict(quick.config)}, "dataset": about}
    torch.save(state, tmp_path / "last.pt")
    export_bundle(tmp_path / "last.pt", tmp_path / "bundle", verify=False)
    dataset = Bundle.open(tmp_path / "bundle").manifest.dataset
    assert (dataset.train_frames, dataset.identities) == (2, 3)


def test_released_file(tmp_path, tmp_path_factory, monkeypatch):
    """Under released names the same weights arrive: verification against the graphs of the original passes."""
    _, bundle = exported_once(tmp_path_factory, "released")
    small_released(tmp_path / "released.pth", monkeypatch)
    skip_tracing(bundle, monkeypatch)
    report = export_bundle(tmp_path / "released.pth", tmp_path / "bundle")
    assert report.comparisons
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert (manifest.model.arm_layout, manifest.dataset) == ("released", None)
    assert manifest.embedding == Bundle.open(bundle).manifest.embedding


def test_simplified_graphs_compute_the_same(quick, tmp_path):
    report = export_bundle(quick, tmp_path / "bundle", simplify=True)
    assert report.comparisons and not any(c.failures() for c in report.comparisons)
    assert report.to_dict()["verification"][0]["graph"] == "detect"


def test_other_weights_fail_and_leave_nothing(quick, tmp_path):
    other = small_model(5)
    with pytest.raises(ExportError, match=r"detect, one image: .*boxes differ by .* px \(limit 0.01 px\)"):
        export_bundle(other, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_interrupted_export_keeps_the_old_bundle(quick, tmp_path, monkeypatch):
    export_bundle(quick, tmp_path / "bundle", verify=False)
    before = (tmp_path / "bundle" / "manifest.json").read_bytes()

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporter, "verify_bundle", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(quick, tmp_path / "bundle", overwrite=True)
    assert (tmp_path / "bundle" / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_existing_target(quick, tmp_path):
    taken = tmp_path / "photos"
    taken.mkdir()
    (taken / "a.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="not a psarm bundle"):
        export_bundle(quick, taken, verify=False, overwrite=True)
    assert (taken / "a.jpg").exists()
    with pytest.raises(UsageError, match="is a file"):
        export_bundle(quick, taken / "a.jpg", verify=False)
    export_bundle(quick, tmp_path / "bundle", verify=False)
    with pytest.raises(UsageError, match="--overwrite"):
        export_bundle(quick, tmp_path / "bundle", verify=False)
    export_bundle(quick, tmp_path / "bundle", verify=False, overwrite=True)
    (tmp_path / "empty").mkdir()
    export_bundle(quick, tmp_path / "empty", verify=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "empty", "photos"]


def test_model_in_train_mode_is_refused(tmp_path):
    with pytest.raises(ExportError, match="eval"):
        export_bundle(small_model().train(), tmp_path / "bundle")


def test_a_file_that_is_no_checkpoint(tmp_path):
    (tmp_path / "notes.pth").write_text("not a checkpoint")
    with pytest.raises(CheckpointError):
        export_bundle(tmp_path / "notes.pth", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_tracing_failure_is_one_sentence(monkeypatch, small_bundle):
    from psarm.export import tracing

    class Broken(torch.nn.Module):
        outputs = ("boxes", "scores", "counts", "features")

        def forward(self, images, image_sizes):
            return images if images.sum() > 0 else image_sizes

    with pytest.raises(ExportError, match="Tracing the detect graph failed"):
        tracing.trace_detect(Broken())
