"""kill -9 at any moment: --resume gives what a training never interrupted gives, bit for bit."""

import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from tiny_runs import assert_equal, state_of
from torchrun import ENVIRONMENT, run, train_command

pytestmark = pytest.mark.slow
EPOCHS = 5
SUICIDE = str(Path(__file__).with_name("kill_itself.py"))
MOMENTS = {
    ("step", "-", 1): 0,
    ("half", "last.pt", 1): 0,
    ("after", "model.safetensors", 2): 1,
    ("half", "model.safetensors", 1): 1,
    ("after", "last.pt", 2): 2,
    ("step", "-", 3): 3,
}
"""Where the program dies, counted from its start, and the epochs that are saved then."""


def assert_same_training(output, straight):
    one, other = state_of(output), state_of(straight)
    assert one.epoch == other.epoch == EPOCHS
    for part in ("model", "average", "optimizer", "losses"):
        assert_equal(getattr(one, part), getattr(other, part), part)
    assert (output / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
    assert not list(output.glob(".*.tmp"))


def test_killed_at_six_moments(prw, tmp_path):
    settings = {"train__epochs": EPOCHS, "train__ema": 0.9, "data__workers": 1}
    output, straight = tmp_path / "killed", tmp_path / "straight"
    assert run(train_command(prw, straight, **settings)).returncode == 0
    for (moment, name, count), epochs in MOMENTS.items():
        flags = ["--resume"] if (output / "last.pt").exists() else []
        program = (SUICIDE, moment, name, str(count))
        result = run(train_command(prw, output, *flags, program=program, **settings))
        assert result.returncode == -signal.SIGKILL, result.stderr
        assert len(list(output.glob(".*.tmp"))) == (moment != "step")
        assert (state_of(output).epoch if (output / "last.pt").exists() else 0) == epochs
    assert run(train_command(prw, output, "--resume", **settings)).returncode == 0
    assert_same_training(output, straight)


def test_two_processes_killed_at_once(prw, tmp_path):
    settings = {"train__epochs": EPOCHS, "train__batch_size": 1, "processes": 2}
    output, straight = tmp_path / "killed", tmp_path / "straight"
    assert run(train_command(prw, straight, **settings)).returncode == 0
    command = train_command(prw, output, **settings)
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
        while not (output / "last.pt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        launcher = psutil.Process(process.pid)
        started = [launcher, *launcher.children(recursive=True)]  # each in a session of its own
        for one in started:
            one.kill()
        psutil.wait_procs(started)
    assert 1 <= state_of(output).epoch < EPOCHS
    assert run(train_command(prw, output, "--resume", **settings)).returncode == 0
    assert_same_training(output, straight)
