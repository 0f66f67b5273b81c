"""Time and memory of OIM and of a whole training step, beside OIM as it is usually written.

    python -m psarm.benchmarks.training_cost --json benchmarks/results/training_cost.json

The usual OIM joins its tables for every loss, and moves them inside the backward pass, sample by sample. How cost grows
with images a batch, identities and image size. Images and people are drawn at random (seeded); the model is PS-ARM on
ResNet-18 at half width with RoIs of 7x7 cells, on one thread. Every measurement is a process of its own, the two kinds
taking turns.
"""

from __future__ import annotations

import os
import resource
import shlex
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from rich import box
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

import psarm
from psarm.benchmarks.facts import git_commit
from psarm.benchmarks.literal_oim import LiteralMatching
from psarm.benchmarks.script import run
from psarm.config import ModelConfig
from psarm.console import out, track
from psarm.files import write_json
from psarm.machine import describe_machine, package_versions
from psarm.model import PersonSearchModel, build_model
from psarm.model.oim import OnlineInstanceMatching

KINDS = ("literal", "psarm")
PEOPLE = 4  # an image, three of them with an identity
POSITIVES = 64  # RoIs on people that a head sees of an image
Oim = OnlineInstanceMatching | LiteralMatching
Sample = dict[str, float]


@dataclass(frozen=True)
class Case:
    """What is measured."""

    part: str
    """oim: loss, its gradient and the update of the tables; step: a whole training step without the data."""
    batch: int = 2
    identities: int = 482
    height: int = 240
    """Of the images, which are 5/3 as wide."""


STEP = Case("step")
CASES = (
    *(Case("oim", batch, identities) for batch in (2, 8) for identities in (482, 5_000, 20_000, 100_000)),
    *(replace(STEP, batch=batch) for batch in (1, 2, 4, 8)),
    *(replace(STEP, identities=identities) for identities in (5_000, 20_000, 100_000)),
    *(replace(STEP, height=height) for height in (360, 480)),
)
QUICK = (Case("oim", 1, 50), Case("step", 1, 50, 60))


def make_oim(kind: str, config: ModelConfig) -> Oim:
    """OIM with tables of random unit rows, as they are when everybody has been seen."""
    make = LiteralMatching if kind == "literal" else OnlineInstanceMatching
    oim = make(
        config.embedding_dim, config.num_identities, config.queue_size, config.oim_momentum, config.oim_scalar
    ).train()
    for table in (oim.lut, oim.cq):
        table.normal_().div_(table.norm(dim=1, keepdim=True))
    return oim


def make_oim_step(kind: str, case: Case) -> Callable[[], None]:
    """A function that computes a loss of the RoIs of a batch, its gradient, and moves the tables."""
    oim = make_oim(kind, ModelConfig(num_identities=case.identities))
    people = case.batch * PEOPLE
    identities = torch.randint(0, case.identities, (people,))
    identities[::PEOPLE] = -1
    labels = identities.repeat_interleave(POSITIVES // PEOPLE)
    embeddings = functional.normalize(torch.randn(len(labels), oim.lut.shape[1]), dim=1).requires_grad_()

    def step() -> None:
        embeddings.grad = None
        torch.autograd.backward(oim(embeddings, labels))

    return step


def make_training_step(kind: str, case: Case) -> Callable[[], None]:
    """A function that trains one step on a batch of random images with random people."""
    config = ModelConfig(
        backbone="resnet18",
        width=0.5,
        roi_size=7,
        min_size=case.height,
        max_size=case.height * 5 // 3,
        num_identities=case.identities,
    )
    model = build_model(config).train()
    model.roi_heads.reid_loss = make_oim(kind, config)  # type: ignore[assignment]
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9)
    images = list(torch.rand(case.batch, 3, case.height, case.height * 5 // 3))
    targets = [_people(case) for _ in images]
    return lambda: train_step(model, optimizer, images, targets)


def train_step(
    model: PersonSearchModel, optimizer: torch.optim.Optimizer, images: list[Tensor], targets: list[dict[str, Tensor]]
) -> None:
    """Losses, gradients and new weights."""
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(list(model.losses(images, targets).values()))
    nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()


def _people(case: Case) -> dict[str, Tensor]:
    height, width = case.height, case.height * 5 // 3
    size = torch.tensor([0.15 * height, 0.4 * height])
    corner = torch.rand(PEOPLE, 2) * (torch.tensor([width, height]) - size)
    labels = torch.randint(0, case.identities, (PEOPLE,))
    labels[0] = -1
    return {"boxes": torch.cat([corner, corner + size], dim=1), "labels": labels}


def measure(kind: str, case: Case, steps: int) -> dict[str, Any]:
    """Wall and CPU seconds of `steps` steps after one to warm up, and the most memory this process ever had."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    step = (make_oim_step if case.part == "oim" else make_training_step)(kind, case)
    before = _peak_mib()
    step()
    seconds, cpu_seconds = [], []
    for _ in range(steps):
        start, cpu_start = time.perf_counter(), time.process_time()
        step()
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "mib_before": before, "peak_mib": _peak_mib()}


def _peak_mib() -> float:
    # Kilobytes, but bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


def compare(case: Case, rounds: int, steps: int) -> dict[str, Any]:
    """A case as a row of the report: medians of each kind over all steps of all rounds."""
    # Children of a server that has torch already: each starts at once, with a peak of its own.
    context = get_context("forkserver")
    context.set_forkserver_preload(["psarm.model.builder", "psarm.benchmarks.literal_oim"])
    taken: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind in KINDS:
            with ProcessPoolExecutor(1, context) as process:
                taken[kind].append(process.submit(measure, kind, case, steps).result())
    return {**asdict(case), **{kind: _summary(runs) for kind, runs in taken.items()}}


def _summary(runs: list[dict[str, Any]]) -> Sample:
    def middle(key: str) -> float:
        return float(median(second for taken in runs for second in taken[key]))

    return {
        "seconds": round(middle("seconds"), 5),
        # Other work on the machine makes the wall clock slower, hardly the CPU time.
        "cpu_seconds": round(middle("cpu_seconds"), 5),
        "steps_per_second": round(1 / middle("seconds"), 2),
        "peak_mib": round(median(taken["peak_mib"] for taken in runs)),
        "step_mib": round(median(taken["peak_mib"] - taken["mib_before"] for taken in runs)),
    }


def as_table(rows: list[dict[str, Any]]) -> Table:
    """The rows for the terminal."""
    table = Table("batch", "identities", "image", "OIM", box=box.SIMPLE)
    for unit in ("ms", "CPU ms", "step MiB", "peak MiB"):
        table.add_column(unit, justify="right")
    for row in rows:
        image = f"{row['height']}x{row['height'] * 5 // 3}" if row["part"] == "step" else "OIM alone"
        for kind in KINDS:
            taken = row[kind]
            times = [f"{1000 * taken[key]:.1f}" for key in ("seconds", "cpu_seconds")]
            sizes = [f"{taken[key]:.0f}" for key in ("step_mib", "peak_mib")]
            table.add_row(str(row["batch"]), str(row["identities"]), image, kind, *times, *sizes)
    return table


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=2, show_default=True, type=click.IntRange(1), help="Processes of each kind.")
@click.option("--steps", default=2, show_default=True, type=click.IntRange(1), help="Timed steps of each process.")
@click.option("--quick", is_flag=True, help="Two tiny cases, to see that it runs.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(rounds: int, steps: int, quick: bool, json_path: Path | None) -> None:
    """Time and memory of OIM and of a whole training step, beside OIM as it is usually written."""
    load = [_load_average()]
    rows = [compare(case, rounds, steps) for case in track(QUICK if quick else CASES, "measuring")]
    load.append(_load_average())
    out.print(as_table(rows))
    if json_path is not None:
        report = {
            "command": shlex.join(["python", "-m", "psarm.benchmarks.training_cost", *sys.argv[1:]]),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": git_commit(Path(psarm.__file__).resolve().parents[1]),
            "machine": asdict(describe_machine()),
            "packages": package_versions(),
            "threads": 1,
            "model": "psarm on resnet18, width 0.5, RoIs of 7x7 cells, 128 an image and head",
            "rounds": rounds,
            "steps": steps,
            "load_average": load,  # before and after
            "cases": rows,
        }
        write_json(json_path, report)


def _load_average() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


if __name__ == "__main__":
    run(main)
