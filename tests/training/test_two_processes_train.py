"""Training in two processes of torchrun's agent (gloo, CPU); test_docs_training.py starts torchrun itself."""

import shutil
from pathlib import Path

import pytest
import torch
from tiny_prw import write_tiny_prw
from tiny_runs import state_of
from torchrun import said, train

from psarm.model.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow
FLOAT64, NO_ROOM = (Path(__file__).with_name(name) for name in ("float64.py", "no_room.py"))


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Eight training frames."""
    return write_tiny_prw(tmp_path_factory.mktemp("data") / "prw", train=8)


def test_two_processes_with_batch_2_train_as_one_with_batch_4(frames, tmp_path):
    """Twenty steps: losses, OIM's tables and queue, weights, the average of the weights."""
    settings = {"train__warmup_epochs": 0.0, "train__lr_steps": [], "train__epochs": 10, "train__ema": 0.9}
    settings["program"] = (str(FLOAT64),)
    one = train(frames, tmp_path / "one", train__batch_size=4, **settings)
    two = train(frames, tmp_path / "two", processes=2, **settings)
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    assert "effective batch 4, lr 0.003" in one.stderr
    assert "effective batch 4 = 2 x 2 processes, lr 0.003" in two.stderr and len(said(two)) == 1
    assert two.stdout.count("Trained 10 epochs") == 1
    one, two = state_of(tmp_path / "one"), state_of(tmp_path / "two")
    assert (one.epoch, one.processes, two.epoch, two.processes) == (10, 1, 10, 2)
    assert two.losses == pytest.approx(one.losses, rel=1e-6)
    for part in ("model", "average"):
        for name, value in getattr(one, part).items():
            torch.testing.assert_close(getattr(two, part)[name], value, rtol=1e-6, atol=1e-7, msg=name)
    tables = [value for name, value in one.model.items() if ".reid_loss." in name]
    assert len(tables) == 3 and all(value.any() for value in tables)
    saved = read_checkpoint(tmp_path / "two" / "model.safetensors").state
    assert all(torch.equal(value, two.average[f"module.{name}"].to(value.dtype)) for name, value in saved.items())


def test_validation_best_checkpoint_and_evaluation_are_shared(frames, tmp_path):
    settings = {
        "train__epochs": 2,
        "data__validation": 0.4,
        "train__evaluate": "true",
        "train__sync_batchnorm": "false",
    }
    result = train(frames, tmp_path / "run", processes=2, train__batch_size=1, **settings)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("validation after epoch") == 2
    assert result.stdout.count("Evaluated: ") == 1 and "best.safetensors" in result.stdout
    kept = (tmp_path / "run" / "metrics.json").read_bytes()
    (tmp_path / "run" / "metrics.json").unlink()
    again = train(frames, tmp_path / "run", "--eval-only", processes=2, **settings)
    assert again.returncode == 0 and again.stdout.count("Evaluated: ") == 1
    assert (tmp_path / "run" / "metrics.json").read_bytes() == kept
    refused = train(frames, tmp_path / "run", "--resume", train__batch_size=1, **settings)
    assert refused.returncode == 2
    assert said(refused)[0].startswith(
        "Error: Cannot resume: the run was started with other settings (processes: 2 → 1"
    )


def test_what_all_processes_meet_is_said_once(frames, tmp_path):
    diverging = {"train__lr": 1e30, "train__clip_norm": 1e30, "train__warmup_epochs": 0.0, "train__epochs": 3}
    result = train(frames, tmp_path / "nan", processes=2, **diverging)
    [_, sentence] = said(result)
    assert result.returncode == 1 and sentence.startswith("Error: Training diverged in epoch 1, iteration 2: ")
    result = train(frames, tmp_path / "no", processes=2, train__batch_size=5)
    assert result.returncode == 1  # torchrun's own
    assert said(result) == ["Error: train.batch_size is 5, times 2 processes; needed at most the 8 training frames."]


def test_what_one_process_meets_ends_all(frames, tmp_path):
    root = tmp_path / "broken"
    shutil.copytree(frames, root)
    image = root / "frames" / "c1s1_000000.jpg"
    image.write_bytes(image.read_bytes()[:-3000])  # the size can still be read
    result = train(root, tmp_path / "one", processes=2)
    faults = [line for line in said(result) if "Cannot read" in line]
    assert result.returncode == 1 and len(faults) == 1, result.stderr
    assert faults[0].startswith(("Error: Process 0 of 2: Cannot read", "Error: Process 1 of 2: Cannot read"))
    # The first process alone writes files: no room for its checkpoint.
    result = train(frames, tmp_path / "two", processes=2, program=(str(NO_ROOM),))
    assert result.returncode == 1
    [error] = [line for line in said(result) if line.startswith("Error")]
    assert error.startswith(f"Error: File too large: {tmp_path / 'two'}"), result.stderr
