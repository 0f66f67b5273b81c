"""kill -9 at any moment: --resume gives what a training never interrupted gives, bit for bit."""

import signal
from pathlib import Path

import pytest
from tiny_runs import assert_equal, state_of
from torchrun import train

pytestmark = pytest.mark.slow
EPOCHS = 5
SUICIDE = str(Path(__file__).with_name("kill_itself.py"))
MOMENTS = {
    ("half", "last.pt", 1): 0,
    ("after", "model.safetensors", 2): 1,
    ("renamed", "model.safetensors", 1): 1,
    ("after", "last.pt", 2): 2,
}
"""Where the program dies, counted from its start, and the epochs that are saved then."""
OF_TWO_PROCESSES = {("half", "last.pt", 2): 1, ("step", "1", 3): 2}


def assert_same_training(output, straight):
    one, other = state_of(output), state_of(straight)
    assert one.epoch == other.epoch == EPOCHS
    for part in ("model", "average", "optimizer", "losses"):
        assert_equal(getattr(one, part), getattr(other, part), part)
    assert (output / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
    assert not list(output.glob(".*.tmp"))


def die_at_all(moments, prw, output, **settings):
    for moment, epochs in moments.items():
        flags = ["--resume"] if (output / "last.pt").exists() else []
        program = (SUICIDE, *map(str, moment))
        result = train(prw, output, *flags, program=program, **settings)
        # torchrun ends the other processes, and with 1.
        assert result.returncode == (-signal.SIGKILL if settings.get("processes", 1) == 1 else 1), result.stderr
        assert list(output.glob(".*.tmp")) or moment[0] in ("step", "renamed")
        assert (state_of(output).epoch if (output / "last.pt").exists() else 0) == epochs, moment


def test_killed_at_four_moments(prw, tmp_path):
    settings = {"train__epochs": EPOCHS, "train__ema": 0.9, "data__workers": 1}
    output, straight = tmp_path / "killed", tmp_path / "straight"
    assert train(prw, straight, **settings).returncode == 0
    die_at_all(MOMENTS, prw, output, **settings)
    assert train(prw, output, "--resume", **settings).returncode == 0
    assert_same_training(output, straight)


def test_one_of_two_processes_is_killed(prw, tmp_path):
    """The first one while it saves, then the other one in a step."""
    settings = {"train__epochs": EPOCHS, "train__batch_size": 1, "processes": 2}
    output, straight = tmp_path / "killed", tmp_path / "straight"
    assert train(prw, straight, **settings).returncode == 0
    die_at_all(OF_TWO_PROCESSES, prw, output, **settings)
    assert train(prw, output, "--resume", **settings).returncode == 0
    assert_same_training(output, straight)
