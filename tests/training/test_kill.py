"""kill -9 at any moment: --resume gives what a training never interrupted gives, bit for bit."""

import os
import signal
import subprocess
import time

import pytest
from tiny_runs import assert_equal, state_of
from torchrun import ENVIRONMENT, run, train_command

pytestmark = pytest.mark.slow
EPOCHS = 5


def epoch_of(output):
    return state_of(output).epoch if (output / "last.pt").exists() else 0


def wait_until(process, happens):
    """Until `happens()`, looking as often as possible; the process must not end before."""
    while not happens():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.0002)


def saving(output, name, epoch):
    """Whether `name` is being written, after `epoch` or more epochs."""
    return epoch_of(output) >= epoch and any(output.glob(f".{name}.*.tmp"))


MOMENTS = {
    "in the first epoch": lambda output: (output / "tensorboard").exists(),
    "while the first checkpoint is written": lambda output: saving(output, "last.pt", 0),
    "between the two files": lambda output: saving(output, "model.safetensors", 1),
    "while a state is written": lambda output: saving(output, "last.pt", 1),
    "in a later epoch": lambda output: epoch_of(output) == 3,
}


def killed(command, happens):
    """Kill the command and all its processes when `happens()`."""
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        wait_until(process, happens)
        os.killpg(process.pid, signal.SIGKILL)  # its own group: start_new_session made it


def assert_same_training(output, straight):
    one, other = state_of(output), state_of(straight)
    assert one.epoch == other.epoch == EPOCHS
    for part in ("model", "average", "optimizer", "losses"):
        assert_equal(getattr(one, part), getattr(other, part), part)
    assert (output / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
    assert not list(output.glob(".*.tmp"))


def test_killed_at_five_moments(prw, tmp_path):
    settings = {"train__epochs": EPOCHS, "train__ema": 0.9, "data__workers": 1}
    output, straight = tmp_path / "killed", tmp_path / "straight"
    assert run(train_command(prw, straight, **settings)).returncode == 0
    for moment, happens in MOMENTS.items():
        before = epoch_of(output)
        flags = ["--resume"] if (output / "last.pt").exists() else []
        killed(train_command(prw, output, *flags, **settings), lambda happens=happens: happens(output))
        assert epoch_of(output) >= before, moment
    assert run(train_command(prw, output, "--resume", **settings)).returncode == 0
    assert_same_training(output, straight)


def test_two_processes_killed(prw, tmp_path):
    settings = {"train__epochs": EPOCHS, "train__batch_size": 1, "processes": 2}
    output, straight = tmp_path / "killed", tmp_path / "straight"
    assert run(train_command(prw, straight, **settings)).returncode == 0
    killed(train_command(prw, output, **settings), lambda: saving(output, "last.pt", 1))
    # torchrun starts each process in a session of its own: they end when they miss it or each other
    assert 1 <= epoch_of(output) < EPOCHS
    assert run(train_command(prw, output, "--resume", **settings)).returncode == 0
    assert_same_training(output, straight)
