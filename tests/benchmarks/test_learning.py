"""The learning experiments: what they run, what they repeat, and the figures they make of the runs."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from clips import write_clip
from scipy.stats import ttest_rel
from tiny_prw import write_tiny_prw

from psarm.benchmarks import learning, learning_pets, runs, torch_engine
from psarm.benchmarks.crop_search import Crops, embed_crops, search_crops
from psarm.benchmarks.demo import RELEASE
from psarm.benchmarks.facts import git_commit
from psarm.benchmarks.histogram import histogram_embeddings
from psarm.benchmarks.learning_mixers import VARIANTS, difference_in_words
from psarm.benchmarks.learning_pets import PetsExperiment
from psarm.benchmarks.runs import Training, mean_and_deviation, paired_difference, percent
from psarm.cli import run as run_command
from psarm.data.visits import read_records
from psarm.errors import DataError, PsarmError, UsageError

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
            write_tiny_prw(Path(words[2]))
            return ""
        variant, seed = output_of(words).name.rsplit("-", 1)
        value = 0.1 * VARIANTS.index(variant) + 0.01 * int(seed) ** 2
        finish(output_of(words), metrics(0.5 + value, value, 2 * value))
        return json.dumps({"seconds": 10.0 + int(seed), "losses": {"total": 1.0}, "metrics": None})

    monkeypatch.setattr(runs, "run_psarm", pretend)
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
    # One that was cut short after an epoch goes on.
    (tmp_path / "out/runs/psarm-1/metrics.json").unlink()
    (tmp_path / "out/runs/psarm-1/last.pt").touch()
    commands.clear()
    assert run_mixers(*arguments).exit_code == 0
    [on] = [words for words in commands if words[0] == "train"]
    assert output_of(on).name == "psarm-1" and "--resume" in on and "--overwrite" not in on
    [run] = [run for run in json.loads(path.read_text())["runs"] if run["name"] == "psarm" and run["seed"] == 1]
    assert run["seconds"] is None


@pytest.fixture
def recipe(tmp_path):
    return Path(shutil.copy(ROOT / "configs/learning_mixers.yaml", tmp_path / "mine.yaml"))


def edit(recipe):
    text = recipe.read_text()
    assert "epochs: 5" in text
    recipe.write_text(text.replace("epochs: 5", "epochs: 6"))


def refusal(*arguments):
    result = run_mixers(*arguments)
    assert isinstance(result.exception, UsageError), result.output
    return str(result.exception)


def test_runs_of_another_recipe_are_not_taken_for_this_one(tmp_path, commands, recipe):
    arguments = ("--out", tmp_path / "out", "--seeds", 1, "--config", recipe)
    assert run_mixers(*arguments).exit_code == 0
    commands.clear()
    edit(recipe)  # the command is still the same
    sentence = refusal(*arguments)
    assert "runs/seqnet-0 was made of something else (settings.train.epochs: 5 → 6)" in sentence
    assert "give another folder, or remove it" in sentence
    assert "settings.train.epochs: 5 → 6" in refusal(*arguments, "--runs", tmp_path / "out/runs")
    assert commands == []


def test_runs_on_other_data_are_not_taken_for_these(tmp_path, commands):
    arguments = ("--out", tmp_path / "out", "--seeds", 1)
    assert run_mixers(*arguments, "--frames", 50).exit_code == 0
    commands.clear()
    sentence = refusal(*arguments, "--frames", 60)
    assert "out/data was made of something else (command: psarm data synth DATA --frames 50" in sentence
    assert "→ psarm data synth DATA --frames 60" in sentence
    collected = refusal(*arguments, "--frames", 60, "--runs", tmp_path / "out/runs")
    assert "seqnet-0 was made of something else (inputs.command: psarm data synth DATA --frames 50" in collected
    assert commands == []


def test_a_recipe_of_another_name_or_place_is_the_same(tmp_path, commands, recipe):
    assert run_mixers("--out", tmp_path / "out", "--seeds", 1).exit_code == 0
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    commands.clear()
    assert run_mixers("--out", moved, "--seeds", 1, "--config", recipe).exit_code == 0
    assert commands == []


def test_other_initial_weights_are_something_else(tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"1")
    training = Training("psarm", 0, tmp_path / "psarm-0", "learning_mixers", (f"train.init={weights}",), tmp_path, {})
    made_of = training.made_of()
    assert str(tmp_path) not in json.dumps(made_of)
    weights.write_bytes(b"2")
    assert training.made_of() != made_of


def test_a_run_cut_short_before_its_record_begins_anew(tmp_path, commands):
    arguments = ("--out", tmp_path, "--seeds", 1)
    assert run_mixers(*arguments).exit_code == 0
    record = tmp_path / "runs/psarm-0.json"
    before = record.read_text()
    record.unlink()
    commands.clear()
    assert run_mixers(*arguments).exit_code == 0
    assert [output_of(words).name for words in commands] == ["psarm-0"]
    assert record.read_text() == before


def test_a_training_that_fails_leaves_no_record(tmp_path, commands, monkeypatch):
    """Not even the one of the run that it replaces, whose metrics may be gone or may not."""
    arguments = ("--out", tmp_path, "--seeds", 1)
    assert run_mixers(*arguments).exit_code == 0
    (tmp_path / "runs/psarm-0/metrics.json").unlink()

    def killed(words):
        finish(output_of(words), metrics(0.1, 0.1, 0.1))
        raise PsarmError("killed")

    monkeypatch.setattr(runs, "run_psarm", killed)
    assert isinstance(run_mixers(*arguments).exception, PsarmError)
    assert not (tmp_path / "runs/psarm-0.json").exists()


def test_finished_runs_are_collected_and_nothing_is_run(tmp_path, commands):
    """What is reported of them is what their records say, and without records that it is not known."""
    made, path = tmp_path / "made", tmp_path / "results.json"
    assert run_mixers("--out", made, "--seeds", 2, "--json", path).exit_code == 0
    before = json.loads(path.read_text())
    commands.clear()
    arguments = ("--runs", made / "runs", "--out", tmp_path / "none", "--json", path)
    result = run_mixers(*arguments, "--seeds", 2)
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert report["runs"] == before["runs"] and str(made) in report["runs"][0]["command"]
    assert report["budget"] == before["budget"] and report["command"].endswith(" --runs DIR")
    (made / "runs/psarm-1.json").unlink()
    assert run_mixers(*arguments, "--seeds", 2).exit_code == 0
    report = json.loads(path.read_text())
    assert report["data"] is report["budget"] is report["parameters"] is None
    unknown = report["runs"].pop()
    assert (unknown["command"], unknown["commit"], unknown["seconds"]) == (None, None, None)
    assert report["runs"] == before["runs"][:-1]
    assert report["summary"]["psarm"]["seconds"] is None
    assert report["minus_baseline"]["psarm"]["mAP"]["mean"] == pytest.approx(0.2)
    assert commands == []
    result = run_mixers(*arguments)
    assert isinstance(result.exception, DataError)
    assert "no metrics.json of seqnet-2, seqnet_mlp_mixer-2, psarm-2" in str(result.exception)


def test_damaged_records_are_named(tmp_path, commands):
    arguments = ("--out", tmp_path, "--seeds", 1)
    assert run_mixers(*arguments).exit_code == 0
    for content, sentence in (("{", "cannot be read as JSON"), ('{"command": ""}', "has no commit, seconds, settings")):
        (tmp_path / "runs/seqnet-0.json").write_text(content)
        assert sentence in str(run_mixers(*arguments).exception)


def test_damaged_metrics_are_named(tmp_path):
    training = Training("psarm", 0, tmp_path / "psarm-0", "learning_mixers", (), tmp_path, {})
    for content in ("{", "[]", '{"detection": {"ap": 1}}'):
        finish(training.folder, {})
        (training.folder / "metrics.json").write_text(content)
        with pytest.raises(DataError, match=r"metrics\.json .*remove (it to make it|the file to train) again"):
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


def test_nothing_to_find_is_no_figure():
    crops = Crops(np.eye(2), np.array([0, 1]), np.array([0, 1]), np.array([True, True]))
    assert search_crops(crops) == {"queries": 0, "mAP": None, "top1": None}


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
    events = []
    opened, closed = torch_engine.TorchEngine.__init__, torch_engine.TorchEngine.close

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
    monkeypatch.setattr(torch_engine.TorchEngine, "__init__", lambda *a, **b: events.append("open") or opened(*a, **b))
    monkeypatch.setattr(torch_engine.TorchEngine, "close", lambda self: events.append("close") or closed(self))
    path = tmp_path / "results.json"
    arguments = ["pets", "--footage", str(footage), "--out", str(tmp_path / "out"), "--seeds", "1", "--json", str(path)]
    result = CliRunner().invoke(learning.main, arguments)
    assert result.exit_code == 0, result.output
    text = path.read_text()
    assert str(footage) not in text and str(ROOT) not in text and "FOOTAGE/vtest.avi" in text
    assert "-o train.init=release/psarm-resnet18-synthetic.safetensors" in json.loads(text)["runs"][0]["command"]
    assert events[-4:] == ["open", "close"] * 2  # the two models that are given boxes, never both in memory
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


@pytest.mark.parametrize("name", [".", "data", "train"])
def test_footage_of_any_name_leaves_commands_whole(tmp_path, footage, monkeypatch, name):
    """A short path is found inside other words, too."""
    folder = footage.rename(tmp_path / name) if name != "." else footage
    monkeypatch.chdir(folder if name == "." else tmp_path)
    experiment = PetsExperiment(Path(name), tmp_path / "out", RELEASE)
    files = "--video FOOTAGE/vtest.avi --labels FOOTAGE/gt.txt --people FOOTAGE/person_ids.json"
    data = shlex.quote(str(tmp_path / "out/data"))
    assert experiment.convert_command(5, experiment.data) == f"psarm data convert {data} --from mot {files} --every 5"
    command = experiment.trainings()[0].command
    assert command.startswith(
        "psarm train --config learning_pets -o train.init=release/psarm-resnet18-synthetic.safetensors "
        f"-o train.seed=0 --data-root {data} --output "
    )


def test_other_footage_is_other_data(tmp_path, footage):
    experiment = PetsExperiment(footage, tmp_path / "out", RELEASE)
    before = experiment.inputs(5)
    moved = footage.rename(tmp_path / "elsewhere")
    assert PetsExperiment(moved, tmp_path / "out", RELEASE).inputs(5) == before
    with (moved / "gt.txt").open("a") as file:
        file.write("\n")
    assert PetsExperiment(moved, tmp_path / "out", RELEASE).inputs(5) != before


def test_footage_that_is_not_there_is_named(tmp_path, footage):
    (footage / "gt.txt").unlink()
    result = CliRunner().invoke(learning.main, ["pets", "--footage", str(footage), "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, DataError) and f"{footage} has no gt.txt" in str(result.exception)


def test_the_commit_tells_of_changes_and_of_recipes_that_it_lacks(tmp_path):
    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "configs").mkdir()
    for name in ("a.py", "configs/a.yaml"):
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "-m", "a")
    (tmp_path / "results.json").write_text("1")
    commit = git_commit(tmp_path)
    assert len(commit) >= 7 and "+" not in commit
    for name in ("configs/b.yaml", "configs/new/c.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
        assert git_commit(tmp_path) == f"{commit}+changes"
        (tmp_path / name).unlink()
    assert git_commit(tmp_path) == commit
    (tmp_path / "a.py").write_text("2")
    assert git_commit(tmp_path) == f"{commit}+changes"
