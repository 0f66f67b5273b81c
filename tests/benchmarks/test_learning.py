"""The learning experiments: what they run, what they repeat, and the figures they make of the runs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from clips import write_clip
from scipy.stats import ttest_rel

from psarm.benchmarks import learning, learning_mixers, learning_pets, runs
from psarm.benchmarks.crop_search import Crops, embed_crops, search_crops
from psarm.benchmarks.demo import RELEASE
from psarm.benchmarks.histogram import histogram_embeddings
from psarm.benchmarks.learning_mixers import VARIANTS, difference_in_words
from psarm.benchmarks.learning_pets import without_paths
from psarm.benchmarks.runs import Training, mean_and_deviation, paired_difference, percent
from psarm.cli import run as run_command
from psarm.data.visits import read_records
from psarm.errors import DataError, PsarmError

ROOT = Path(__file__).parents[2]


def metrics(ap, search, top1):
    return {"detection": {"ap": ap, "recall": ap}, "search": {"mAP": search, "top1": top1}}


def finish(folder, values, checkpoint=None):
    """What a training leaves behind."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(values))
    if checkpoint is not None:
        shutil.copy(checkpoint, folder / "model.safetensors")


def output_of(words):
    return Path(words[words.index("--output") + 1])


@pytest.fixture
def commands(monkeypatch):
    """The commands that were run; trainings leave metrics that grow with the variant and the seed."""
    called = []

    def pretend(words):
        called.append(words)
        if words[0] != "train":
            return ""
        variant, seed = output_of(words).name.rsplit("-", 1)
        value = 0.1 * VARIANTS.index(variant) + 0.01 * int(seed) ** 2
        finish(output_of(words), metrics(0.5 + value, value, 2 * value))
        return json.dumps({"seconds": 10.0 + int(seed), "losses": {"total": 1.0}, "metrics": None})

    monkeypatch.setattr(runs, "run_psarm", pretend)
    monkeypatch.setattr(learning_mixers, "run_psarm", pretend)
    return called


def run_mixers(*arguments):
    return CliRunner().invoke(learning.main, ["mixers", *map(str, arguments)])


def test_mixers_trains_every_variant_with_every_seed_once(tmp_path, commands):
    path = tmp_path / "results.json"
    arguments = ("--out", tmp_path / "out", "--json", path)
    result = run_mixers(*arguments)
    assert result.exit_code == 0, result.output
    synth, *trainings = commands
    drawn = "--frames 1600 --identities 240 --test-fraction 0.4 --size 640x360 --seed 4242"
    assert synth == ["data", "synth", str(tmp_path / "out/data"), *drawn.split(), "--overwrite"]
    assert len({tuple(words) for words in trainings}) == 9
    for words in trainings:
        variant, seed = output_of(words).name.rsplit("-", 1)
        assert f"model.variant={variant}" in words and f"train.seed={seed}" in words
        assert words[words.index("--config") + 1] == "learning_mixers"
    report = json.loads(path.read_text())
    assert [run["metrics"]["search"]["mAP"] for run in report["runs"] if run["name"] == "psarm"] == pytest.approx(
        [0.2, 0.21, 0.24]
    )
    assert {run["seconds"] for run in report["runs"]} == {10.0, 11.0, 12.0}
    assert report["summary"]["psarm"]["mAP"] == pytest.approx(mean_and_deviation([0.2, 0.21, 0.24]))
    assert report["minus_baseline"]["psarm"]["mAP"]["by_seed"] == pytest.approx([0.2] * 3)
    assert (report["budget"]["epochs"], report["budget"]["init"], report["budget"]["threads"]) == (5, "", 1)
    assert report["parameters"]["seqnet"] < report["parameters"]["psarm"]
    assert "+20.0" in result.output and "21.7 ± 2.1" in result.output
    # Again: only what has no metrics yet is trained, anew.
    (tmp_path / "out/runs/psarm-1/metrics.json").unlink()
    commands.clear()
    assert run_mixers(*arguments).exit_code == 0
    [again] = [words for words in commands if words[0] == "train"]
    assert output_of(again).name == "psarm-1" and "--overwrite" in again
    assert json.loads(path.read_text())["runs"] == report["runs"]


def test_runs_of_another_command_are_not_taken_for_this_one(tmp_path, commands):
    assert run_mixers("--out", tmp_path, "--seeds", 1).exit_code == 0
    recipe = shutil.copy(ROOT / "configs/learning_mixers.yaml", tmp_path / "mine.yaml")
    result = run_mixers("--out", tmp_path, "--seeds", 1, "--config", recipe)
    assert "seqnet-0 was made by another command" in str(result.exception)
    assert "give another --out, or remove it" in str(result.exception)


def test_finished_runs_are_collected_and_nothing_is_run(tmp_path, commands):
    for variant in VARIANTS:
        for seed in range(2):
            finish(tmp_path / f"{variant}-{seed}", metrics(0.9, 0.5 + 0.1 * seed, 0.7))
    arguments = ("--runs", tmp_path, "--out", tmp_path / "none", "--json", tmp_path / "results.json")
    result = run_mixers(*arguments, "--seeds", 2)
    assert result.exit_code == 0, result.output
    assert commands == []
    report = json.loads((tmp_path / "results.json").read_text())
    assert report["summary"]["seqnet"]["seconds"] is None
    assert report["minus_baseline"]["psarm"]["mAP"]["mean"] == 0
    result = run_mixers(*arguments)
    assert isinstance(result.exception, DataError)
    assert "no metrics.json of seqnet-2, seqnet_mlp_mixer-2, psarm-2" in str(result.exception)


def test_damaged_metrics_are_named(tmp_path):
    training = Training("psarm", 0, tmp_path / "psarm-0", ())
    for content in ("{", "[]", '{"detection": {"ap": 1}}'):
        finish(training.folder, {})
        (training.folder / "metrics.json").write_text(content)
        with pytest.raises(DataError, match=r"metrics\.json .*remove (it|the file) to train again"):
            training.metrics()


def test_a_command_that_fails_ends_the_experiment(capfd):
    with pytest.raises(PsarmError, match="psarm data ended with exit code 2"):
        runs.run_psarm(["data", "check", "/nowhere"])
    assert "psarm data check /nowhere" in capfd.readouterr().err


def test_statistics_are_students():
    ours, theirs = [0.3, 0.5, 0.45], [0.25, 0.4, 0.46]
    difference = paired_difference(ours, theirs)
    expected = ttest_rel(ours, theirs).confidence_interval(0.95)
    assert difference["interval_95"] == pytest.approx([expected.low, expected.high])
    assert difference["deviation"] == pytest.approx(np.std(np.subtract(ours, theirs), ddof=1))
    assert difference_in_words(difference).startswith("+4.7 (seed by seed +5.0, +10.0, -1.0; 95 % interval -9.0 to")
    one = paired_difference([0.3], [0.2])
    assert one["interval_95"] is None and difference_in_words(one) == "+10.0 (one seed)"
    assert percent(mean_and_deviation([0.5])) == "50.0"
    assert percent(mean_and_deviation([0.5, 0.6])) == "55.0 ± 7.1"


@pytest.mark.parametrize("later_only", [False, True])
def test_crops_are_ranked_as_a_slow_search_does(later_only):
    rng = np.random.default_rng(0)
    visits = rng.integers(0, 9, 60)
    crops = Crops(rng.normal(size=(60, 4)), visits // 2, visits, rng.random(60) < 0.5)
    precisions, firsts = [], []
    for query in range(60):
        others = [i for i in range(60) if visits[i] != visits[query] and (crops.later[i] or not later_only)]
        others.sort(key=lambda i: -float(crops.embeddings[query] @ crops.embeddings[i]))
        right = [visits[i] // 2 == visits[query] // 2 for i in others]
        if any(right):
            precisions.append(np.mean([sum(right[: k + 1]) / (k + 1) for k, hit in enumerate(right) if hit]))
            firsts.append(right[0])
    assert 0 < len(firsts) < 60
    found = search_crops(crops, later_only)
    assert found == {"queries": len(firsts), "mAP": pytest.approx(np.mean(precisions)), "top1": np.mean(firsts)}


def test_places_of_this_machine_are_left_out():
    report = {"command": "psarm /home/me/x", "rows": [{"name": "/home/me/x"}, 1, None]}
    assert without_paths(report, {"/home/me": "FOOTAGE"}) == {
        "command": "psarm FOOTAGE/x",
        "rows": [{"name": "FOOTAGE/x"}, 1, None],
    }


@pytest.fixture
def footage(tmp_path):
    """A drawn clip under the names of PETS's files."""
    folder = tmp_path / "footage"
    for path, name in zip(write_clip(folder), ("vtest.avi", "gt.txt", "person_ids.json"), strict=True):
        path.rename(folder / name)
    return folder


@pytest.mark.slow
def test_pets_measures_before_and_after(tmp_path, footage, monkeypatch, capfd):
    """With trainings that leave the shipped checkpoint as it is; everything else is real."""

    def run_here(words):
        if words[0] == "train":
            finish(output_of(words), metrics(0.5, 0.4, 0.3), RELEASE)
            return json.dumps({"seconds": 5.0, "losses": {}})
        assert run_command(words) == 0, capfd.readouterr().err
        return ""

    monkeypatch.setattr(runs, "run_psarm", run_here)
    monkeypatch.setattr(learning_pets, "run_psarm", run_here)
    monkeypatch.setattr(learning_pets, "EVERY", 1)
    monkeypatch.setattr(learning_pets, "CROPS_EVERY", 1)
    path = tmp_path / "results.json"
    arguments = ["pets", "--footage", str(footage), "--out", str(tmp_path / "out"), "--seeds", "1", "--json", str(path)]
    result = CliRunner().invoke(learning.main, arguments)
    assert result.exit_code == 0, result.output
    text = path.read_text()
    assert str(footage) not in text and str(ROOT) not in text and "FOOTAGE/vtest.avi" in text
    report = json.loads(text)
    assert list(report["search"]) == [
        "shipped checkpoint",
        "shipped checkpoint at the recipe's image size",
        "trained, seed 0",
    ]
    assert report["search"]["trained, seed 0"] == report["search"]["shipped checkpoint"]
    assert report["data"]["train_frames"] == 6 and report["data"]["queries"] == 1
    records = read_records(tmp_path / "out/crops")
    assert report["crops"]["colour histogram"]["all_frames"] == search_crops(embed_crops(records, histogram_embeddings))
    assert report["references"]["HSV histogram"] == {"top1": 0.63, "mAP": 0.45}


def test_footage_that_is_not_there_is_named(tmp_path, footage):
    (footage / "gt.txt").unlink()
    result = CliRunner().invoke(learning.main, ["pets", "--footage", str(footage), "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, DataError) and f"{footage} has no gt.txt" in str(result.exception)
