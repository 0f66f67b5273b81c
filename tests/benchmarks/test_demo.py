"""What the demo runs and says; the steps themselves are tested with their commands."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from psarm.benchmarks import demo as module
from psarm.benchmarks.demo import Demo, DemoSize, goals_missed, visible_area
from psarm.errors import PsarmError

NAMES = ("PyTorch", "onnxruntime", "colour histogram", "untrained network")


def metrics(ap, search):
    return {"detection": {"ap": ap, "recall": ap}, "search": {"mAP": search, "top1": search}}


def make_demo(folder, numbers, **failures):
    """A demo whose benchmark found `numbers` (AP and mAP by row)."""
    rows = [{"name": name, "failure": "", "metrics": metrics(*pair)} for name, pair in numbers.items()]
    rows += [{"name": name, "failure": reason, "metrics": {}} for name, reason in failures.items()]
    demo = Demo(folder, DemoSize())
    demo.bench.write_text(json.dumps({"rows": rows}))
    demo.seconds = {"Draw a street": 12.0}
    return demo


@pytest.mark.parametrize(
    ("ap", "search", "histogram", "said"),
    [
        (0.8, 0.6, 0.5, []),
        (0.9, 0.4, 0.2, []),  # twice the histogram will do
        (0.79, 0.6, 0.5, ["detection AP 79.0%, at least 80%"]),
        (0.8, 0.59, 0.3, ["search mAP 59.0%, at least 60% or 2 times the colour histogram's 30.0%"]),
        (0.1, 0.1, 0.1, ["detection AP", "search mAP"]),
    ],
)
def test_goals(ap, search, histogram, said):
    missed = goals_missed(metrics(ap, search), histogram)
    assert len(missed) == len(said)
    assert all(sentence.startswith(start) for sentence, start in zip(missed, said, strict=True))


def test_the_summary_says_what_came_out(tmp_path, capsys):
    demo = make_demo(tmp_path, dict(zip(NAMES, [(0.7, 0.7), (0.9, 0.5), (0.9, 0.3), (0.1, 0.01)], strict=True)))
    [missed] = demo.summarise(90)
    printed = " ".join(capsys.readouterr().out.split())
    assert missed.startswith("search mAP 50.0%") and f"Goal missed: {missed}" in printed
    assert "1.5 minutes (draw 12 s)" in printed
    assert "Detection AP 90.0%, search mAP 50.0%, top-1 50.0%" in printed
    assert "mAP 30.0%; untrained network: mAP 1.0%" in printed


@pytest.mark.parametrize("broken", NAMES[1:])
def test_a_row_that_failed_is_one_sentence(tmp_path, capsys, broken):
    numbers = {name: (0.9, 0.9) for name in NAMES if name != broken}
    with pytest.raises(PsarmError, match=rf"^The benchmark has no numbers for {broken}: The device is gone\.$"):
        make_demo(tmp_path, numbers, **{broken: "The device is gone."}).summarise(1)
    with pytest.raises(PsarmError, match="there is no such row"):
        make_demo(tmp_path, numbers).summarise(1)
    assert capsys.readouterr().out == ""


def test_its_own_files_are_found_from_any_folder(tmp_path, monkeypatch):
    commands = {}

    def note(words, check):
        commands[words[3]] = words[4:]
        return SimpleNamespace(returncode=0)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module.subprocess, "run", note)
    monkeypatch.setattr(Demo, "_query", lambda self: (Path("query.jpg"), "1,2,3,4", Path("gallery")))
    Demo(Path("out"), DemoSize()).run()
    assert list(commands) == ["data", "train", "export", "bench", "search"]
    train = commands["train"]
    assert Path(train[train.index("--config") + 1]).is_file()
    root = Path(__file__).parents[2]
    assert f"train.init={root}/release/psarm-resnet18-synthetic.safetensors" in train


def test_a_step_that_fails_ends_the_demo(tmp_path, monkeypatch):
    monkeypatch.setattr(module.subprocess, "run", lambda words, check: SimpleNamespace(returncode=3))
    with pytest.raises(PsarmError, match="psarm data ended with exit code 3"):
        Demo(tmp_path, DemoSize()).run()


def test_the_query_shown_is_the_largest_that_is_not_cut_off():
    cut, small, large = [560, 100, 639, 300], [10, 10, 30, 60], [300, 100, 360, 260]
    areas = [visible_area(np.array(box, np.float32)) for box in (cut, small, large)]
    assert areas[0] < 0 < areas[1] < areas[2]
