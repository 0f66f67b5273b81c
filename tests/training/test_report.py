import io
import re
import time

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
    with Report(output, epochs, per_epoch, done, images=6) as report:
        for epoch in range(done, epochs):
            for iteration in report.loading(range(epoch * per_epoch, (epoch + 1) * per_epoch)):
                report.iteration(iteration, {"total": iteration / 2, "oim": 0.25}, lr=0.1, gradient_norm=iteration)
            report.epoch(epoch + 1, {"total": epoch, "oim": 0.25}, lr=0.1)


def test_tensorboard_goes_on_after_a_resume(tmp_path):
    show(tmp_path, 0, 2)
    time.sleep(1.1)  # TensorBoard reads log files in the order of their names, which begin with the second
    show(tmp_path, 1, 3)  # epoch 2 anew, as after a stop before its checkpoint
    found = events(tmp_path)
    assert found["loss/total"] == [(step, step / 2) for step in range(6)]
    assert found["gradient_norm"] == [(step, step) for step in range(6)]
    assert found["lr"] == [(step, 0.1) for step in range(6)]
    speed = {"speed/images_per_second", "speed/data_wait", "speed/peak_memory_gib"}
    losses = {"loss/total", "loss/oim", "epoch_loss/total", "epoch_loss/oim"}
    assert found.keys() == losses | speed | {"lr", "gradient_norm"}


def test_a_line_an_epoch_where_stderr_is_a_pipe(tmp_path, capsys):
    show(tmp_path, 0, 2)
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert [line.split("  ")[:4] for line in lines] == [
        ["epoch 1/2", "total 0.000", "oim 0.250", "lr 0.1"],
        ["epoch 2/2", "total 1.000", "oim 0.250", "lr 0.1"],
    ]
    ending = r"lr 0\.1  [\d.]+ it/s  [\d.]+ images/s  data wait \d+ %  peak \d+\.\d GiB  eta 0:00:00"
    assert all(re.search(f"{ending}$", line) for line in lines)


def test_the_share_of_time_waited_for_data(tmp_path, capsys, monkeypatch):
    """A clock in which a batch takes 1 s to come, twice, and 3 s to train on; what follows an epoch is not of it."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def batches():
        for _ in range(2):
            clock[0] += 1
            yield

    with Report(tmp_path, 1, 2, 0, images=6) as report:
        for step, _ in enumerate(report.loading(batches())):
            clock[0] += 3
            report.iteration(step, {"total": 1.0}, 0.1, 1.0)
        clock[0] += 92
        report.epoch(1, {"total": 1.0}, 0.1)
    assert "0.25 it/s  1.5 images/s  data wait 25 %" in capsys.readouterr().err
    found = events(tmp_path)
    assert found["speed/data_wait"] == [(1, 0.25)] and found["speed/images_per_second"] == [(1, 1.5)]
    assert report.seconds == 100


def test_validations(tmp_path, capsys):
    metrics = {"search": {"mAP": 0.5, "top1": 0.25}, "detection": {"ap": 0.125, "recall": 1.0}}
    with Report(tmp_path, 2, 1, 0) as report:
        report.validation(1, metrics, best=True)
        report.validation(2, metrics, best=False)
    line = "validation after epoch {}  mAP 50.0 %  top-1 25.0 %  detection AP 12.5 %"
    assert capsys.readouterr().err.splitlines() == [f"{line.format(1)}  (best so far)", line.format(2)]
    assert events(tmp_path)["validation/mAP"] == [(1, 0.5), (2, 0.5)]


def test_a_bar_with_losses_on_a_terminal(tmp_path, monkeypatch):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=80, highlight=False)
    monkeypatch.setattr(console, "err", terminal)
    show(tmp_path, 0, 2)
    shown = screen.getvalue()
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).rstrip().splitlines()[-2:]
    assert last[0].startswith("epoch 2/2 ━") and "4/4" in last[0] and "eta" in last[0] and len(last[0]) <= 80
    assert last[1].startswith("total 1.500  oim 0.250  data wait ")


def test_other_processes_are_silent(tmp_path, capsys):
    with Report(tmp_path, 1, 1, 0, active=False) as report:
        for _ in report.loading([0]):
            report.iteration(0, {"total": 1.0}, 0.1, 1.0)
        report.epoch(1, {"total": 1.0}, 0.1)
    printed = capsys.readouterr()
    assert printed.out == printed.err == "" and not any(tmp_path.iterdir())


def test_duration():
    assert [duration(seconds) for seconds in (0, 59.6, 3599.4, 36000)] == ["0:00:00", "0:01:00", "0:59:59", "10:00:00"]
