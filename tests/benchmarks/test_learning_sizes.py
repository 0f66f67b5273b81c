"""The experiment on sizes for CPU boxes: what it trains and measures, and what it makes of that."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_prw import write_tiny_prw

from psarm.benchmarks import learning, learning_front, runs
from psarm.benchmarks.learning_sizes import OF_THE_RECIPE, REFERENCE, SIZES, SizesExperiment, model_overrides
from psarm.config import load_config, to_dict
from psarm.errors import PsarmError, UsageError
from psarm.presets import find_config

MAPS = dict(zip(SIZES, (0.3, 0.35, 0.45, 0.5, 0.4), strict=True))


@pytest.fixture
def commands(monkeypatch):
    """The commands that were run; trainings and benchmarks leave figures that depend on the size."""
    called = []

    def pretend(words):
        called.append(words)
        if words[0] == "data":
            write_tiny_prw(Path(words[2]))
        elif words[0] == "train":
            folder = Path(words[words.index("--output") + 1])
            folder.mkdir(parents=True)
            value = MAPS[folder.name.rsplit("-", 1)[0]]
            figures = {"detection": {"ap": 0.9, "recall": 0.9}, "search": {"mAP": value, "top1": value}}
            (folder / "metrics.json").write_text(json.dumps(figures))
            return json.dumps({"seconds": 60.0})
        elif words[0] == "bench":
            size = Path(words[1]).parent.name.rsplit("-", 1)[0]
            names = [words[i + 1] for i, word in enumerate(words) if word == "--precision"]
            rows = [row(size, name, place) for place, name in enumerate(names)]
            Path(words[words.index("--json") + 1]).write_text(json.dumps({"rows": rows}))
        return ""

    monkeypatch.setattr(runs, "run_psarm", pretend)
    monkeypatch.setattr(learning_front, "run_psarm", pretend)
    return called


def row(size, precision, place, status="ok"):
    return {
        "precision": precision,
        "status": status,
        "failure": "" if status == "ok" else "it is not there",
        "metrics": {"search": {"mAP": MAPS[size] - 0.01 * place, "top1": 0.6}},
        "timing": {"total_ms": 10.0 * (SIZES.index(size) + 1) / (place + 1)},
    }


def run_sizes(*arguments):
    return CliRunner().invoke(learning.main, ["sizes", *map(str, arguments)])


@pytest.mark.parametrize("size", SIZES[:-1])
def test_a_size_is_the_model_of_its_preset(size):
    recipe = find_config("learning_sizes")
    made = to_dict(load_config(recipe, model_overrides(size, load_config(recipe).model)).model)
    wanted = to_dict(load_config(find_config(f"psarm_{size}_prw")).model)
    assert {key for key in wanted if made[key] != wanted[key]} <= set(OF_THE_RECIPE)


def test_the_reference_differs_from_small_by_its_backbone(tmp_path):
    small, reference = (
        next(t for t in SizesExperiment(tmp_path).trainings() if t.name == name).config for name in ("small", REFERENCE)
    )
    assert reference.model.backbone == "resnet50"
    assert {**to_dict(reference), "model": None} == {**to_dict(small), "model": None}
    assert {**to_dict(reference.model), "backbone": "resnet18"} == to_dict(small.model)


def test_every_size_is_trained_once_measured_and_drawn(tmp_path, commands):
    path, picture = tmp_path / "results.json", tmp_path / "front.svg"
    result = run_sizes("--out", tmp_path / "out", "--measure", "--plot", picture, "--json", path)
    assert result.exit_code == 0, result.output
    assert commands[0][:2] == ["data", "synth"] and "768x576" in commands[0]
    assert [words[0] for words in commands[1:]] == ["train"] * 5 + ["export", "bench"] * 5
    report = json.loads(path.read_text())
    assert list(report["sizes"]) == list(SIZES)
    assert report["sizes"]["nano"]["share_of_resnet50"]["mean"] == pytest.approx(0.75)
    assert report["sizes"]["small"]["measured"][2] == {
        **{"precision": "int8", "ms": 10.0, "mAP": 0.43, "top1": 0.6},
        "share_of_resnet50": pytest.approx(0.43 / 0.4),
    }
    assert "run of its own" in report["milliseconds"] and "run of its own" in result.output
    assert "112.5" in result.output and "43.0" in result.output
    text = picture.read_text()
    assert "<svg" in text and all(f"<!-- {size} -->" in text for size in SIZES)


def test_some_sizes_at_a_time(tmp_path, commands):
    path = tmp_path / "results.json"
    arguments = ("--out", tmp_path / "out", "--json", path)
    assert run_sizes(*arguments, "--size", "tiny", "--size", "nano").exit_code == 0
    report = json.loads(path.read_text())
    assert list(report["sizes"]) == ["nano", "tiny"] and report["sizes"]["nano"]["share_of_resnet50"] is None
    assert "--size nano --size tiny" in report["command"]
    commands.clear()
    assert run_sizes(*arguments).exit_code == 0
    assert [Path(words[words.index("--output") + 1]).name for words in commands] == [
        "small-0",
        "medium-0",
        "resnet50-0",
    ]


def test_a_plot_without_measuring_is_refused(tmp_path):
    result = run_sizes("--out", tmp_path, "--plot", tmp_path / "a.svg")
    assert isinstance(result.exception, UsageError)


def test_a_plot_that_cannot_be_drawn_is_refused_before_training(tmp_path, commands):
    result = run_sizes("--out", tmp_path, "--measure", "--plot", tmp_path / "front.xyz")
    assert isinstance(result.exception, UsageError) and ".svg" in str(result.exception) and not commands


def test_figures_are_written_before_the_plot(tmp_path, commands, monkeypatch):
    def plot(sizes, path):
        raise PsarmError("it cannot be drawn")

    monkeypatch.setattr(learning, "plot_front", plot)
    path = tmp_path / "results.json"
    result = run_sizes("--out", tmp_path, "--measure", "--plot", tmp_path / "a.svg", "--json", path)
    assert isinstance(result.exception, PsarmError) and json.loads(path.read_text())["sizes"]


def test_a_reference_that_learned_nothing(tmp_path, commands, monkeypatch):
    monkeypatch.setitem(MAPS, REFERENCE, 0.0)
    monkeypatch.setattr(learning_front, "PRECISIONS", ("fp32",))
    path = tmp_path / "results.json"
    result = run_sizes("--out", tmp_path, "--measure", "--json", path)
    assert result.exit_code == 0, result.output
    nano = json.loads(path.read_text())["sizes"]["nano"]
    assert nano["share_of_resnet50"] is None and nano["measured"][0]["share_of_resnet50"] is None


def test_a_precision_that_does_not_run_ends_it(tmp_path, commands, monkeypatch):
    def failing(words):
        if words[0] == "bench":
            rows = [row("nano", "int8", 0, "failed")]
            (tmp_path / "bench.json").write_text(json.dumps({"rows": rows}))
        return ""

    monkeypatch.setattr(learning_front, "run_psarm", failing)
    with pytest.raises(PsarmError, match="OpenVINO in int8 did not run: it is not there"):
        learning_front.measure_size(tmp_path, tmp_path)
