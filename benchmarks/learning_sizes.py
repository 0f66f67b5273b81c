"""What do the sizes for CPU boxes reach? Each preset and a ResNet-50 on drawn frames, the same epochs for each.

The ResNet-50 is psarm_prw's network with the input, RoIs and proposals of psarm_small_prw.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from psarm.benchmarks.learning_front import Measured, measure_size
from psarm.benchmarks.learning_mixers import budget, summary
from psarm.benchmarks.notation import DASH
from psarm.benchmarks.runs import (
    FIGURES,
    Training,
    figures,
    make_data,
    mean_and_deviation,
    percent,
    require_measured,
    run_report,
    train_missing,
)
from psarm.config import ModelConfig, load_config, to_dict
from psarm.console import out
from psarm.data.prw import QUERIES
from psarm.presets import find_config

REFERENCE = "resnet50"
SIZES = ("nano", "tiny", "small", "medium", REFERENCE)
"""The presets psarm_SIZE_prw, and what they are compared with."""
FRAME_SIZE, PEOPLE_PER_FRAME = "768x576", 7
DATA_SEED = 768576
TEST_FRACTION = 0.4
SEPARATE_RUNS = "Every size is timed in a run of its own: precisions of a size took turns, sizes did not."
"""What milliseconds can be compared with."""
OF_THE_RECIPE = ("roi_batch_size", "num_identities", "queue_size")
"""Keys of the model that only training knows; the recipe's are everybody's."""


@dataclass(frozen=True)
class SizesExperiment:
    """What is trained on what, in `folder`; with `runs`, the finished runs of that folder are taken instead."""

    folder: Path
    sizes: tuple[str, ...] = SIZES
    runs: Path | None = None
    recipe: str = "learning_sizes"
    frames: int = 1600
    identities: int = 240
    seeds: int = 1
    measure: bool = False
    """Export every size and run its bundle in every precision on two threads."""

    @property
    def data(self) -> Path:
        """The drawn data set."""
        return self.folder / "data"

    def synth(self, target: Path) -> list[str]:
        """The command that draws it, without `psarm`."""
        amount = ["--frames", str(self.frames), "--identities", str(self.identities)]
        look = ["--size", FRAME_SIZE, "--people-per-frame", str(PEOPLE_PER_FRAME), "--seed", str(DATA_SEED)]
        return ["data", "synth", str(target), *amount, "--test-fraction", str(TEST_FRACTION), *look]

    @property
    def inputs(self) -> dict[str, Any]:
        """What the data set is made of, wherever it lies."""
        return {"command": shlex.join(["psarm", *self.synth(Path("DATA"))])}

    def trainings(self) -> list[Training]:
        """Every size with every seed, seed by seed."""
        runs = self.runs or self.folder / "runs"
        return [
            Training(
                name=size,
                seed=seed,
                folder=runs / f"{size}-{seed}",
                recipe=self.recipe,
                overrides=(*model_overrides(size, self._model), f"train.seed={seed}"),
                data=self.data,
                inputs=self.inputs,
            )
            for seed in range(self.seeds)
            for size in self.sizes
        ]

    def run(self) -> dict[str, Any]:
        """Draw, train, measure and report; raises `PsarmError` where a step fails or a run is missing."""
        trainings = self.trainings()
        if self.runs is not None:
            require_measured(trainings)
        else:
            make_data(self.data, QUERIES, self.synth(self.data), self.inputs)
            train_missing(trainings)
        measured = {
            training.name: measure_size(training.folder, self.data)
            for training in trainings
            if self.measure and training.seed == 0
        }
        return self._report(trainings, measured)

    @property
    def _model(self) -> ModelConfig:
        return load_config(find_config(self.recipe)).model

    def _report(self, trainings: Sequence[Training], measured: Mapping[str, list[Measured]]) -> dict[str, Any]:
        reports = [run_report(training) for training in trainings]
        by_size = {size: [report for report in reports if report["name"] == size] for size in self.sizes}
        return {
            "data": shlex.join(["psarm", *self.synth(self.data)]),
            "budget": budget(load_config(find_config(self.recipe))),
            "sizes": {
                size: {
                    "model": list(model_overrides(size, self._model)),
                    **summary(of_size),
                    "share_of_resnet50": share(of_size, by_size.get(REFERENCE, [])),
                    "measured": measured_rows(measured.get(size, []), measured.get(REFERENCE, [])),
                }
                for size, of_size in by_size.items()
            },
            "milliseconds": SEPARATE_RUNS,
            "runs": reports,
        }


def model_overrides(size: str, recipe: ModelConfig) -> tuple[str, ...]:
    """What turns the recipe's model into that of a size, as `-o` takes it."""
    if size == REFERENCE:
        return ("model.backbone=resnet50",)
    wanted, given = to_dict(load_config(find_config(f"psarm_{size}_prw")).model), to_dict(recipe)
    return tuple(
        f"model.{key}={json.dumps(wanted[key])}"
        for key in given
        if wanted[key] != given[key] and key not in OF_THE_RECIPE
    )


def share(ours: Sequence[dict[str, Any]], reference: Sequence[dict[str, Any]]) -> dict[str, float | None] | None:
    """mAP as a share of the ResNet-50's, seed by seed; None where that was not trained or learned nothing."""
    if not reference:
        return None
    pairs = list(zip(ours, reference, strict=True))
    if not all(_map(other) > 0 for _, other in pairs):
        return None
    return mean_and_deviation([_map(one) / _map(other) for one, other in pairs])


def measured_rows(ours: Sequence[Measured], reference: Sequence[Measured]) -> list[dict[str, Any]]:
    """A size's bundle in every precision, its mAP also as a share of that of the ResNet-50's bundle in fp32.

    The share is None where the ResNet-50 was not measured or has a mAP of 0.
    """
    whole = next((row.mAP for row in reference if row.precision == "fp32"), 0.0)
    return [{**dataclasses.asdict(row), "share_of_resnet50": row.mAP / whole if whole > 0 else None} for row in ours]


def _map(report: dict[str, Any]) -> float:
    return figures(report["metrics"])["mAP"]


def print_sizes(report: Mapping[str, Any]) -> None:
    """One table of what was learned, and one of what the bundles reach and take."""
    learned = Table("size", title="Percent, mean ± sample deviation over the seeds", title_justify="left")
    for title in (*FIGURES, "mAP of ResNet-50's", "training seconds"):
        learned.add_column(title, justify="right")
    for size, one in report["sizes"].items():
        shares, seconds = one["share_of_resnet50"], one["seconds"]
        learned.add_row(
            size,
            *(percent(one[figure]) for figure in FIGURES),
            DASH if shares is None else percent(shares),
            DASH if seconds is None else f"{seconds['mean']:.0f}",
        )
    out.print(learned)
    rows = [(size, row) for size, one in report["sizes"].items() for row in one["measured"]]
    if not rows:
        return
    front = Table("size", "precision", title=f"Bundles, {FRAME_SIZE} frames, OpenVINO", title_justify="left")
    for title in ("ms a frame", "mAP", "of ResNet-50's fp32", "top-1"):
        front.add_column(title, justify="right")
    for size, row in rows:
        share_of = row["share_of_resnet50"]
        front.add_row(
            *(size, row["precision"], f"{row['ms']:.1f}", f"{100 * row['mAP']:.1f}"),
            *(DASH if share_of is None else f"{100 * share_of:.1f}", f"{100 * row['top1']:.1f}"),
        )
    out.print(front)
    out.print(SEPARATE_RUNS, soft_wrap=True)
