"""`make demo`: person search from nothing, with the commands a user would type, each in its own process.

Draws a street with people, fine-tunes the shipped checkpoint on its training half, exports the result, benchmarks
PyTorch beside ONNX Runtime on people never seen in training, searches for one of them, and says what came out. Exits
with 1 where the result is worse than the goals below.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from psarm.benchmarks.baselines import HISTOGRAM, UNTRAINED
from psarm.benchmarks.report import Metrics
from psarm.benchmarks.script import run
from psarm.console import out
from psarm.data.prw import read_prw
from psarm.errors import PsarmError, UsageError

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs/demo.yaml"
RELEASE = ROOT / "release/psarm-resnet18-synthetic.safetensors"
BACKEND = "onnxruntime"
WIDTH, HEIGHT = 640, 360
GOAL_AP = 0.80
GOAL_MAP = 0.60
GOAL_OVER_HISTOGRAM = 2.0


@dataclass(frozen=True)
class DemoSize:
    """How much the demo draws and trains."""

    frames: int = 360
    identities: int = 60
    epochs: int = 2
    seed: int = 7


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--out", "folder", default="demo", show_default=True, metavar="DIR", help="Folder for everything made.")
@click.option("--frames", default=DemoSize.frames, show_default=True, help="Frames to draw.")
@click.option("--identities", default=DemoSize.identities, show_default=True, help="People to draw.")
@click.option("--epochs", default=DemoSize.epochs, show_default=True, help="Epochs of fine-tuning.")
@click.option("--check/--no-check", default=True, help="Fail when the goals are missed.")
def main(folder: str, frames: int, identities: int, epochs: int, check: bool) -> None:
    """See person search work: data, training, export, benchmark, search."""
    if not RELEASE.exists():
        raise UsageError(f"{RELEASE} is missing; the demo runs from a checkout of psarm, not from a wheel.")
    started = time.monotonic()
    demo = Demo(Path(folder), DemoSize(frames, identities, epochs))
    demo.run()
    missed = demo.summarise(time.monotonic() - started)
    if missed and check:
        sys.exit(1)


class Demo:
    """The steps, each timed."""

    def __init__(self, folder: Path, size: DemoSize) -> None:
        self.folder = folder
        self.size = size
        self.data = folder / "data"
        self.training = folder / "training"
        self.bundle = folder / "bundle.psarm"
        self.bench = folder / "bench.json"
        self.page = folder / "search.html"
        self.seconds: dict[str, float] = {}

    def run(self) -> None:
        """All steps in order; raises `PsarmError` where one fails."""
        size = self.size
        data = ["--frames", str(size.frames), "--identities", str(size.identities), "--seed", str(size.seed)]
        self._step("Draw a street", "data", "synth", self.data, "--size", f"{WIDTH}x{HEIGHT}", *data, "--overwrite")
        trained = self.training / "model.safetensors"
        self._step(
            "Fine-tune the small PS-ARM on its training half",
            *("train", "--config", CONFIG, "--data-root", self.data, "--output", self.training, "--overwrite"),
            *("-o", f"train.init={RELEASE}", "-o", f"train.epochs={size.epochs}"),
        )
        self._step("Export it to ONNX and verify", "export", trained, "--out", self.bundle, "--overwrite")
        self._step(
            "Benchmark on people never seen in training",
            *("bench", self.bundle, "--dataset", "prw", "--data-root", self.data, "--checkpoint", trained),
            *("--backend", BACKEND, "--cbgm", "--baselines", "--json", self.bench),
        )
        query, box, gallery = self._query()
        self._step(
            "Search for one of them",
            *("search", self.bundle, "--query", query, "--box", box, "--top-k", "8", "--html", self.page, gallery),
        )

    def summarise(self, seconds: float) -> list[str]:
        """Say what came out and what to do next; returns the goals that were missed.

        Raises `PsarmError` where the benchmark has no numbers of the bundle or of a baseline.
        """
        rows = json.loads(self.bench.read_text(encoding="utf-8"))["rows"]
        ours, untrained = measured(rows, BACKEND), measured(rows, UNTRAINED)["search"]["mAP"]
        histogram = measured(rows, HISTOGRAM)["search"]["mAP"]
        missed = goals_missed(ours, histogram)
        out.rule("Done")
        times = ", ".join(f"{name.split()[0].lower()} {taken:.0f} s" for name, taken in self.seconds.items())
        out.print(f"{seconds / 60:.1f} minutes ({times}).", soft_wrap=True)
        out.print(
            f"Detection AP {ours['detection']['ap']:.1%}, search mAP {ours['search']['mAP']:.1%}, "
            f"top-1 {ours['search']['top1']:.1%} on test people; colour histograms of the same boxes: mAP "
            f"{histogram:.1%}; untrained network: mAP {untrained:.1%}."
        )
        for miss in missed:
            out.print(f"Goal missed: {miss}")
        out.print(f"Open the search page: {self.page.resolve()}", soft_wrap=True)
        out.print("Next, with your own pictures:", soft_wrap=True)
        out.print(f"  .venv/bin/psarm detect {self.bundle} PICTURE… --save {self.folder / 'found'}", soft_wrap=True)
        out.print(f"  .venv/bin/psarm search {self.bundle} --query PICTURE FOLDER --html page.html", soft_wrap=True)
        return missed

    def _step(self, title: str, *arguments: str | Path) -> None:
        words = [str(argument) for argument in arguments]
        out.rule(title)
        out.print(f"$ psarm {' '.join(words)}", style="bold", soft_wrap=True)
        started = time.monotonic()
        code = subprocess.run([sys.executable, "-m", "psarm", *words], check=False).returncode
        self.seconds[title] = time.monotonic() - started
        if code:
            raise PsarmError(f"psarm {words[0]} ended with exit code {code}; the demo stops here.")

    def _query(self) -> tuple[Path, str, Path]:
        """The largest query clear of the picture's edges, its box, and a folder with the test frames to search in."""
        dataset = read_prw(self.data)
        query = max(dataset.queries, key=lambda query: visible_area(query.box))
        gallery = self.folder / "gallery"
        shutil.rmtree(gallery, ignore_errors=True)
        gallery.mkdir(parents=True)
        for frame in dataset.gallery:
            if frame.name != query.name:
                shutil.copy(frame.path, gallery / frame.name)
        return query.path, ",".join(f"{side:.0f}" for side in query.box), gallery


def visible_area(box: NDArray[np.float32]) -> float:
    """Area of a box [4] xyxy, negative where it touches the picture's edge: somebody there may be cut off."""
    area = float(np.prod(box[2:] - box[:2]))
    inside = box.min() > 2 and box[2] < WIDTH - 2 and box[3] < HEIGHT - 2
    return area if inside else -1 / (1 + area)


def measured(rows: list[dict[str, Any]], name: str) -> Metrics:
    """Metrics of the row `name` of a benchmark's JSON; raises `PsarmError` where it is missing or failed."""
    missing: dict[str, Any] = {"failure": "there is no such row"}
    row = next((row for row in rows if row["name"] == name), missing)
    if row["failure"]:
        raise PsarmError(f"The benchmark has no numbers for {name}: {row['failure'].rstrip('.')}.")
    metrics: Metrics = row["metrics"]
    return metrics


def goals_missed(metrics: Metrics, histogram_map: float) -> list[str]:
    """What the result on test people falls short of, one sentence each."""
    missed = []
    ap, search = metrics["detection"]["ap"], metrics["search"]["mAP"]
    if ap < GOAL_AP:
        missed.append(f"detection AP {ap:.1%}, at least {GOAL_AP:.0%} was meant.")
    if search < GOAL_MAP and search < GOAL_OVER_HISTOGRAM * histogram_map:
        missed.append(
            f"search mAP {search:.1%}, at least {GOAL_MAP:.0%} or {GOAL_OVER_HISTOGRAM:.0f} times the colour "
            f"histogram's {histogram_map:.1%} was meant."
        )
    return missed


if __name__ == "__main__":
    run(main)
