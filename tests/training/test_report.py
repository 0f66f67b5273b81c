import io
import re

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from psarm import console
from psarm.training.report import LOG_FOLDER, Report, duration


def events(output):
    accumulator = EventAccumulator(str(output / LOG_FOLDER))
    accumulator.Reload()
    return {
        tag: [(event.step, pytest.approx(event.value)) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def show(output, done, epochs, per_epoch=2):
    with Report(output, epochs, per_epoch, done) as report:
        for epoch in range(done, epochs):
            for iteration in range(epoch * per_epoch, (epoch + 1) * per_epoch):
                report.iteration(iteration, {"total": iteration / 2, "oim": 0.25}, lr=0.1, gradient_norm=iteration)
            report.epoch(epoch + 1, {"total": epoch, "oim": 0.25}, lr=0.1)


def test_tensorboard_goes_on_after_a_resume(tmp_path):
    show(tmp_path, 0, 2)
    show(tmp_path, 1, 3)  # epoch 2 anew, as after a stop before its checkpoint
    found = events(tmp_path)
    assert found["loss/total"] == [(step, step / 2) for step in range(6)]
    assert found["gradient_norm"] == [(step, step) for step in range(6)]
    assert found["lr"] == [(step, 0.1) for step in range(6)]
    assert found.keys() == {"loss/total", "loss/oim", "lr", "gradient_norm", "epoch_loss/total", "epoch_loss/oim"}


def test_a_line_an_epoch_where_stderr_is_a_pipe(tmp_path, capsys):
    show(tmp_path, 0, 2)
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert [line.split("  ")[:4] for line in lines] == [
        ["epoch 1/2", "total 0.000", "oim 0.250", "lr 0.1"],
        ["epoch 2/2", "total 1.000", "oim 0.250", "lr 0.1"],
    ]
    assert all("it/s  eta 0:00:0" in line for line in lines)


def test_a_bar_with_losses_on_a_terminal(tmp_path, monkeypatch):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=80, highlight=False)
    monkeypatch.setattr(console, "err", terminal)
    show(tmp_path, 0, 2)
    shown = screen.getvalue()
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).rstrip().splitlines()[-2:]
    assert last[0].startswith("epoch 2/2 ━") and "4/4" in last[0] and "eta" in last[0] and len(last[0]) <= 80
    assert last[1] == "total 1.500  oim 0.250"


def test_other_processes_are_silent(tmp_path, capsys):
    with Report(tmp_path, 1, 1, 0, active=False) as report:
        report.iteration(0, {"total": 1.0}, 0.1, 1.0)
        report.epoch(1, {"total": 1.0}, 0.1)
    printed = capsys.readouterr()
    assert printed.out == printed.err == "" and not any(tmp_path.iterdir())


def test_duration():
    assert [duration(seconds) for seconds in (0, 59.6, 3599.4, 36000)] == ["0:00:00", "0:01:00", "0:59:59", "10:00:00"]
