"""What stays in the output folder of a training, and what is put right or refused in one that was tampered with."""

import dataclasses
import json

import pytest
import torch
from tiny_prw import write_tiny_prw
from tiny_runs import state_of, tiny

from psarm.errors import CheckpointError, UsageError
from psarm.model.checkpoint import read_checkpoint, save_checkpoint
from psarm.training import trainer
from psarm.training.saving import put_best_right
from psarm.training.trainer import train

BETTER = [{"epoch": 1, "search": {"mAP": 0.3}, "detection": {"ap": 0.5}}]
BEST_NOW = [*BETTER, {"epoch": 2, "search": {"mAP": 0.4}, "detection": {"ap": 0.5}}]
FIRST_BEST = [*BETTER, {"epoch": 2, "search": {"mAP": 0.2}, "detection": {"ap": 0.5}}]


@pytest.fixture
def frames(tmp_path):
    return write_tiny_prw(tmp_path / "prw")


@pytest.fixture
def trained(frames, tmp_path):
    """A folder with two epochs trained, and no validation."""
    train(tiny(frames, tmp_path, epochs=2))
    return tmp_path


def test_the_last_weights_become_the_best_where_the_save_was_cut_off(trained):
    put_best_right(trained, 2, BEST_NOW)
    assert read_checkpoint(trained / "best.safetensors").epoch == 2
    put_best_right(trained, 2, BEST_NOW)


def test_a_best_file_of_another_epoch_is_refused(trained):
    with pytest.raises(CheckpointError, match=r"best.safetensors is not of epoch 1"):
        put_best_right(trained, 2, FIRST_BEST)
    old = dataclasses.replace(read_checkpoint(trained / "model.safetensors"), epoch=None)
    save_checkpoint(old, trained / "best.safetensors")
    put_best_right(trained, 2, FIRST_BEST)  # an earlier version's, which tells no epoch


def test_a_new_epoch_outdates_the_evaluation(frames, trained):
    (trained / "metrics.json").write_text(json.dumps({}))
    train(tiny(frames, trained, epochs=2), resume=True)  # nothing to train
    assert (trained / "metrics.json").exists()
    train(tiny(frames, trained, epochs=3), resume=True, allow_changes=True)
    assert not (trained / "metrics.json").exists()


def test_weights_without_a_state_are_not_overwritten_unasked(frames, trained):
    (trained / "last.pt").unlink()
    for resume in (False, True):
        with pytest.raises(UsageError, match=r"holds model.safetensors but no last.pt to resume from"):
            train(tiny(frames, trained), resume=resume)
    train(tiny(frames, trained, epochs=1), overwrite=True)
    assert state_of(trained).epoch == 1


def test_fewer_epochs_than_finished_are_refused(frames, trained):
    for allowed in (False, True):
        with pytest.raises(UsageError, match=r"2 epochs are finished, and train.epochs is 1"):
            train(tiny(frames, trained, epochs=1), resume=True, allow_changes=allowed)


def test_the_best_weights_can_be_given_up(frames, trained, monkeypatch, capsys):
    state = state_of(trained)
    state.validation.extend(FIRST_BEST)
    monkeypatch.setattr(trainer, "load_state", lambda path: state)
    with pytest.raises(CheckpointError, match="--allow-changes"):
        train(tiny(frames, trained, epochs=2), resume=True)
    result = train(tiny(frames, trained, epochs=2), resume=True, allow_changes=True)
    assert result.validation == [] and result.checkpoint == trained / "model.safetensors"
    assert "the validations so far are forgotten" in " ".join(capsys.readouterr().err.split())
    assert torch.load(trained / "last.pt", weights_only=True)["epoch"] == 2
