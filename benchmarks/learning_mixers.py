"""Does ARM gain? SeqNet, SeqNet with MLP-Mixer and PS-ARM on drawn frames, the same epochs for each, several seeds."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from psarm.benchmarks.runs import (
    FIGURES,
    Training,
    figures,
    is_made,
    make_data,
    mean_and_deviation,
    paired_difference,
    percent,
    require_measured,
    run_report,
    train_missing,
)
from psarm.config import Config, load_config
from psarm.console import out
from psarm.data.prw import QUERIES, read_prw
from psarm.presets import find_config

BASELINE = "seqnet"
VARIANTS = (BASELINE, "seqnet_mlp_mixer", "psarm")
SIZE = "640x360"
DATA_SEED = 4242
TEST_FRACTION = 0.4


@dataclass(frozen=True)
class MixersExperiment:
    """What is trained on what, in `folder`; with `runs`, the finished runs of that folder are taken instead."""

    folder: Path
    runs: Path | None = None
    recipe: str = "learning_mixers"
    frames: int = 1600
    identities: int = 240
    seeds: int = 3

    @property
    def data(self) -> Path:
        """The drawn data set."""
        return self.folder / "data"

    def synth(self, target: Path) -> list[str]:
        """The command that draws it, without `psarm`."""
        amount = ["--frames", str(self.frames), "--identities", str(self.identities)]
        look = ["--test-fraction", str(TEST_FRACTION), "--size", SIZE, "--seed", str(DATA_SEED)]
        return ["data", "synth", str(target), *amount, *look]

    @property
    def inputs(self) -> dict[str, Any]:
        """What the data set is made of, wherever it lies."""
        return {"command": shlex.join(["psarm", *self.synth(Path("DATA"))])}

    def trainings(self) -> list[Training]:
        """Every variant with every seed, seed by seed."""
        runs = self.runs or self.folder / "runs"
        return [
            Training(
                name=variant,
                seed=seed,
                folder=runs / f"{variant}-{seed}",
                recipe=self.recipe,
                overrides=(f"model.variant={variant}", f"train.seed={seed}"),
                data=self.data,
                inputs=self.inputs,
            )
            for seed in range(self.seeds)
            for variant in VARIANTS
        ]

    def run(self) -> dict[str, Any]:
        """Draw, train and report; raises `PsarmError` where a step fails or a run to be collected is missing."""
        trainings = self.trainings()
        if self.runs is not None:
            require_measured(trainings)
        else:
            make_data(self.data, QUERIES, self.synth(self.data), self.inputs)
            train_missing(trainings)
        return self._report(trainings)

    def _report(self, trainings: Sequence[Training]) -> dict[str, Any]:
        reports = [run_report(training) for training in trainings]
        facts: dict[str, Any] = {"data": None, "budget": None, "parameters": None}
        if all(training.recorded for training in trainings):  # and so known to be of this recipe and data set
            config = load_config(find_config(self.recipe))
            facts = {
                "data": {"command": shlex.join(["psarm", *self.synth(self.data)]), **self._counts()},
                "budget": budget(config),
                "parameters": {variant: _parameters(config, variant) for variant in VARIANTS},
            }
        return {
            **facts,
            "summary": {variant: summary(_of(reports, variant)) for variant in VARIANTS},
            "minus_baseline": {
                variant: minus_baseline(_of(reports, variant), _of(reports, BASELINE)) for variant in VARIANTS[1:]
            },
            "runs": reports,
        }

    def _counts(self) -> dict[str, int]:
        """Empty where the data set is not at hand, as when runs of another machine are collected."""
        if not is_made(self.data, QUERIES, self.inputs):
            return {}
        dataset = read_prw(self.data)
        return {
            "train_frames": len(dataset.train),
            "train_identities": len(dataset.train_labels),
            "gallery_frames": len(dataset.gallery),
            "queries": len(dataset.queries),
        }


def budget(config: Config) -> dict[str, Any]:
    """What every run of a recipe spends."""
    train, model = config.train, config.model
    return {
        "epochs": train.epochs,
        "batch_size": train.batch_size,
        "threads": train.threads,
        "amp": train.amp,
        "init": train.init,
        "backbone": model.backbone,
        "width": model.width,
        "min_size": model.min_size,
        "max_size": model.max_size,
    }


def _parameters(config: Config, variant: str) -> int:
    import torch

    from psarm.model.builder import build_model

    with torch.device("meta"):
        model = build_model(dataclasses.replace(config.model, variant=variant))
    return sum(parameter.numel() for parameter in model.parameters())


def _of(reports: Sequence[dict[str, Any]], variant: str) -> list[dict[str, Any]]:
    return [report for report in reports if report["name"] == variant]


def _values(reports: Sequence[dict[str, Any]], figure: str) -> list[float]:
    return [figures(report["metrics"])[figure] for report in reports]


def summary(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample deviation over the seeds of one variant, and the seconds of training where all are known."""
    seconds = [report["seconds"] for report in reports]
    spreads: dict[str, Any] = {figure: mean_and_deviation(_values(reports, figure)) for figure in FIGURES}
    return {**spreads, "seconds": None if None in seconds else mean_and_deviation(seconds)}


def minus_baseline(ours: Sequence[dict[str, Any]], baseline: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The paired differences of every figure."""
    return {figure: paired_difference(_values(ours, figure), _values(baseline, figure)) for figure in FIGURES}


def print_mixers(report: Mapping[str, Any]) -> None:
    """The table, and the differences in words."""
    table = Table("variant", title="Percent, mean ± sample deviation over the seeds", title_justify="left")
    for title in (*FIGURES, "training seconds"):
        table.add_column(title, justify="right")
    for variant, spreads in report["summary"].items():
        seconds = spreads["seconds"]
        shown = f"{seconds['mean']:.0f}" if seconds else "–"
        table.add_row(variant, *(percent(spreads[figure]) for figure in FIGURES), shown)
    out.print(table)
    for variant, differences in report["minus_baseline"].items():
        parts = [f"{figure} {difference_in_words(differences[figure])}" for figure in FIGURES]
        out.print(f"{variant} - {BASELINE}, points: {'; '.join(parts)}", soft_wrap=True)


def difference_in_words(difference: dict[str, Any]) -> str:
    """`+1.2 (seed by seed +0.9, +1.5; 95 % interval -2.6 to +5.0)`, from fractions."""
    seeds = ", ".join(f"{100 * value:+.1f}" for value in difference["by_seed"])
    if difference["interval_95"] is None:
        return f"{100 * difference['mean']:+.1f} (one seed)"
    low, high = difference["interval_95"]
    mean = 100 * difference["mean"]
    return f"{mean:+.1f} (seed by seed {seeds}; 95 % interval {100 * low:+.1f} to {100 * high:+.1f})"
