"""Trainings of an experiment: one folder a run, each by a `psarm train` of its own, and what came out of several seeds.

An experiment can be stopped and started again: a run that has its metrics is not repeated, one that was cut short
begins anew, so that its seconds are those of a whole training.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import psarm
from psarm.benchmarks.facts import git_commit
from psarm.benchmarks.report import Metrics
from psarm.console import err
from psarm.errors import DataError, PsarmError, UsageError
from psarm.files import write_json

METRICS_FILE = "metrics.json"
"""What `psarm train` writes after its evaluation."""
FIGURES = {"AP": ("detection", "ap"), "mAP": ("search", "mAP"), "top-1": ("search", "top1")}
"""What is compared, by the name it goes under, and where a run's metrics have it."""


@dataclass(frozen=True)
class Training:
    """A run: `psarm train`'s arguments but the output, and the folder that is its output."""

    name: str
    seed: int
    folder: Path
    arguments: tuple[str, ...]

    @property
    def record_path(self) -> Path:
        """Beside the folder: what made the run."""
        return self.folder.with_name(f"{self.folder.name}.json")

    @property
    def words(self) -> list[str]:
        """The command, without `psarm`."""
        return ["train", *self.arguments, "--output", str(self.folder)]

    @property
    def finished(self) -> bool:
        """Whether it was trained and evaluated."""
        return (self.folder / METRICS_FILE).exists()

    def metrics(self) -> Metrics:
        """Fractions; raises `DataError` where the file is damaged."""
        metrics: Metrics = _read(self.folder / METRICS_FILE)
        for group, name in FIGURES.values():
            if not isinstance(metrics.get(group), dict) or name not in metrics[group]:
                raise DataError(f"{self.folder / METRICS_FILE} has no {group}.{name}; remove the file to train again.")
        return metrics

    def record(self) -> dict[str, Any]:
        """command, commit and seconds; empty where another program than `train_missing` made the run."""
        return _read(self.record_path) if self.record_path.exists() else {}


def train_missing(trainings: Sequence[Training]) -> None:
    """Train what is not finished yet, one after the other.

    Raises `UsageError` where a finished run was made by another command, `PsarmError` where a training fails.
    """
    for training in trainings:
        command = shlex.join(["psarm", *training.words])
        if training.finished:
            before = training.record().get("command", command)
            if before != command:
                raise UsageError(
                    f"{training.folder} was made by another command ({before}); give another --out, or remove it."
                )
            err.print(f"{training.folder.name} is finished: {training.folder / METRICS_FILE}", soft_wrap=True)
            continue
        summary = json.loads(run_psarm([*training.words, "--overwrite", "--json"]))
        seconds, losses = summary["seconds"], summary["losses"]
        commit = git_commit(Path(psarm.__file__).resolve().parents[1])
        write_json(
            training.record_path, {"command": command, "commit": commit, "seconds": seconds, "last_losses": losses}
        )


def require_finished(trainings: Sequence[Training]) -> None:
    """Raise `DataError` naming the runs that are missing, where they are only to be collected."""
    missing = [training.folder.name for training in trainings if not training.finished]
    if missing:
        raise DataError(
            f"{trainings[0].folder.parent} has no {METRICS_FILE} of {', '.join(missing)}; wait until they are trained, "
            "or leave --runs out to train them."
        )


def run_psarm(words: Sequence[str]) -> str:
    """What a psarm command prints, run in a process of its own; raises `PsarmError` where it fails."""
    err.print(f"$ psarm {shlex.join(words)}", style="bold", soft_wrap=True)
    result = subprocess.run([sys.executable, "-m", "psarm", *words], stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        raise PsarmError(f"psarm {words[0]} ended with exit code {result.returncode}; the experiment stops here.")
    return result.stdout


def run_report(training: Training) -> dict[str, Any]:
    """A run as the results file has it."""
    record = training.record()
    return {
        "name": training.name,
        "seed": training.seed,
        "command": shlex.join(["psarm", *training.words]),
        "commit": record.get("commit"),
        "seconds": record.get("seconds"),
        "metrics": training.metrics(),
    }


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


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); remove it to train again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object; remove it to train again.")
    return content
