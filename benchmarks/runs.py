"""Trainings of an experiment: one folder a run, each by a `psarm train` of its own, and what came out of several seeds.

An experiment can be stopped and started again: a run that has its metrics and its record is not repeated, one that was
cut short goes on after its last epoch (how many seconds it took is not known then). The record says what the run was
made of, not only by which command, and a run or a data set made of something else is refused.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import psarm
from psarm.benchmarks.facts import git_commit
from psarm.benchmarks.report import Metrics
from psarm.config import Config, load_config, to_dict
from psarm.console import err
from psarm.errors import DataError, PsarmError, UsageError
from psarm.files import sha256, write_json
from psarm.presets import find_config

METRICS_FILE = "metrics.json"
"""What `psarm train` writes after its evaluation."""
STATE_FILE = "last.pt"
"""What it goes on from."""
FIGURES = {"AP": ("detection", "ap"), "mAP": ("search", "mAP"), "top-1": ("search", "top1")}
"""What is compared, by the name it goes under, and where a run's metrics have it."""


RECORD = ("command", "commit", "seconds", "settings", "inputs")
"""What is noted of a run."""


@dataclass(frozen=True)
class Training:
    """A run: what `psarm train` is to be given, and the folder that is its output."""

    name: str
    seed: int
    folder: Path
    recipe: str
    overrides: tuple[str, ...]
    data: Path
    inputs: Mapping[str, Any]
    """What the data set is made of: the command, without places of this machine, and checksums."""
    shown: Mapping[str, str] = field(default_factory=dict)
    """Overrides with places of this machine, and what the noted command has instead of each."""

    @property
    def record_path(self) -> Path:
        """Beside the folder: what made the run."""
        return record_path(self.folder)

    @property
    def words(self) -> list[str]:
        """The command, without `psarm`."""
        return self._words(self.overrides)

    @property
    def command(self) -> str:
        """The command as it is noted."""
        return shlex.join(["psarm", *self._words([self.shown.get(each, each) for each in self.overrides])])

    def _words(self, overrides: Sequence[str]) -> list[str]:
        options = [word for override in overrides for word in ("-o", override)]
        places = ["--data-root", str(self.data), "--output", str(self.folder)]
        return ["train", "--config", self.recipe, *options, *places]

    @property
    def config(self) -> Config:
        """What the recipe and the overrides say today."""
        return load_config(find_config(self.recipe), self.overrides)

    def made_of(self) -> dict[str, Any]:
        """What decides the outcome: every setting, with a checksum in place of initial weights, and the data set."""
        settings = to_dict(self.config)
        del settings["data"]["root"], settings["train"]["output"]
        weights = Path(settings["train"]["init"])
        if weights.is_file():
            settings["train"]["init"] = sha256(weights)
        return {"settings": settings, "inputs": dict(self.inputs)}

    @property
    def measured(self) -> bool:
        """Whether it was trained and evaluated, here or elsewhere."""
        return (self.folder / METRICS_FILE).exists()

    @property
    def recorded(self) -> bool:
        """Whether it is known what made the run."""
        return self.record_path.exists()

    def metrics(self) -> Metrics:
        """Fractions; raises `DataError` where the file is damaged."""
        metrics: Metrics = _read(self.folder / METRICS_FILE)
        for group, name in FIGURES.values():
            if not isinstance(metrics.get(group), dict) or name not in metrics[group]:
                raise DataError(f"{self.folder / METRICS_FILE} has no {group}.{name}; remove the file to train again.")
        return metrics

    def record(self) -> dict[str, Any]:
        """The keys of `RECORD`, each None without a record; raises `DataError` where it is damaged."""
        if not self.recorded:
            return dict.fromkeys(RECORD)
        record = _read(self.record_path)
        if missing := [key for key in RECORD if key not in record]:
            raise DataError(f"{self.record_path} has no {', '.join(missing)}; remove the file to train again.")
        return record

    def check_record(self) -> None:
        """Raise `UsageError` where the run was made of something else; without a record nothing is known of it."""
        if self.recorded:
            record = self.record()
            _check_same(self.folder, {key: record[key] for key in ("settings", "inputs")}, self.made_of())


def record_path(folder: Path) -> Path:
    """Where it is noted what made a folder: beside it."""
    return folder.with_name(f"{folder.name}.json")


def make_data(folder: Path, mark: str, words: Sequence[str], inputs: Mapping[str, Any]) -> None:
    """Run the psarm command `words`, which makes a data set in `folder`, unless it has the file `mark` from before.

    Raises `UsageError` where the data set there was made of other `inputs`, `PsarmError` where the command fails.
    """
    if is_made(folder, mark, inputs):
        return
    record_path(folder).unlink(missing_ok=True)
    err.print(run_psarm([*words, "--overwrite"]), end="")
    write_json(record_path(folder), dict(inputs))


def is_made(folder: Path, mark: str, inputs: Mapping[str, Any]) -> bool:
    """Whether `make_data` has finished there; raises `UsageError` where it was with other `inputs`."""
    if not ((folder / mark).exists() and record_path(folder).exists()):
        return False
    _check_same(folder, _read(record_path(folder)), dict(inputs))
    return True


def train_missing(trainings: Sequence[Training]) -> None:
    """Train what is not finished yet, one after the other.

    Raises `UsageError` where a finished run was made of something else, `PsarmError` where a training fails.
    """
    for training in trainings:
        if training.measured and training.recorded:
            training.check_record()
            err.print(f"{training.folder.name} is finished: {training.folder / METRICS_FILE}", soft_wrap=True)
            continue
        training.record_path.unlink(missing_ok=True)  # of a run that is about to be replaced
        record = {"command": training.command, "commit": git_commit(Path(psarm.__file__).resolve().parents[1])}
        record |= training.made_of()  # now, as the recipe may be edited while this trains
        goes_on = (training.folder / STATE_FILE).exists()
        summary = json.loads(run_psarm([*training.words, "--resume" if goes_on else "--overwrite", "--json"]))
        write_json(training.record_path, record | {"seconds": None if goes_on else summary["seconds"]})


def require_measured(trainings: Sequence[Training]) -> None:
    """For runs that are only to be collected: raise `DataError` naming those that are missing, `UsageError` for one
    that was made of something else than the experiment's."""
    missing = [training.folder.name for training in trainings if not training.measured]
    if missing:
        raise DataError(
            f"{trainings[0].folder.parent} has no {METRICS_FILE} of {', '.join(missing)}; wait until they are trained, "
            "or leave --runs out to train them."
        )
    for training in trainings:
        training.check_record()


def run_psarm(words: Sequence[str]) -> str:
    """What a psarm command prints, run in a process of its own; raises `PsarmError` where it fails."""
    err.print(f"$ psarm {shlex.join(words)}", style="bold", soft_wrap=True)
    result = subprocess.run([sys.executable, "-m", "psarm", *words], stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        raise PsarmError(f"psarm {words[0]} ended with exit code {result.returncode}; the experiment stops here.")
    return result.stdout


def run_report(training: Training) -> dict[str, Any]:
    """A run as the results file has it; None for what is not known of a run without a record."""
    record = training.record()
    noted = {key: record[key] for key in ("command", "commit", "seconds")}
    return {"name": training.name, "seed": training.seed, **noted, "metrics": training.metrics()}


def figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What is compared, out of a run's metrics."""
    return {figure: float(metrics[group][name]) for figure, (group, name) in FIGURES.items()}


def mean_and_deviation(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and sample deviation; None for the deviation of a single value."""
    return {"mean": mean(values), "deviation": stdev(values) if len(values) > 1 else None}


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """`ours` minus `theirs` seed by seed, their mean, sample deviation and Student's 95 % interval of the mean."""
    from scipy.stats import t

    differences = [mine - other for mine, other in zip(ours, theirs, strict=True)]
    spread = mean_and_deviation(differences)
    interval = None
    if spread["mean"] is not None and spread["deviation"] is not None:
        half = float(t.ppf(0.975, len(differences) - 1)) * spread["deviation"] / len(differences) ** 0.5
        interval = [spread["mean"] - half, spread["mean"] + half]
    return {"by_seed": differences, **spread, "interval_95": interval}


def percent(spread: Mapping[str, float | None]) -> str:
    """`52.6 ± 0.4` of fractions."""
    value, deviation = spread["mean"], spread["deviation"]
    assert value is not None
    return f"{100 * value:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def _check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    from psarm.training.changes import differences

    if changes := differences(before, now):
        raise UsageError(
            f"{folder} was made of something else ({'; '.join(changes)}); give another folder, or remove it."
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); remove it to make it again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object; remove it to make it again.")
    return content
