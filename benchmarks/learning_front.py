"""The accuracy and speed of a trained size's bundle in every precision, and the front of all sizes as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psarm.benchmarks.runs import run_psarm
from psarm.errors import PsarmError, UsageError
from psarm.extras import require
from psarm.files import atomic_path

PRECISIONS = ("fp32", "bf16", "int8")
THREADS = 2
PLOTS = (".svg", ".png", ".pdf")


@dataclass(frozen=True)
class Measured:
    """A bundle on OpenVINO in one precision."""

    precision: str
    ms: float
    """Median of a frame, end to end."""
    mAP: float
    top1: float


def measure_size(folder: Path, data: Path) -> list[Measured]:
    """Export the model of a finished run, INT8 calibrated on its training frames, and benchmark the bundle.

    Raises `PsarmError` where a command fails or a precision does not run.
    """
    bundle, result = folder / "bundle.psarm", folder / "bench.json"
    checkpoint = str(folder / "model.safetensors")
    graphs = ["--precision", "fp32,int8", "--calibrate", str(data)]
    run_psarm(["export", checkpoint, "--out", str(bundle), *graphs, "--overwrite", "--json"])
    precisions = [word for name in PRECISIONS for word in ("--precision", name)]
    where = ["--data-root", str(data), "--backend", "openvino", "--threads", str(THREADS)]
    run_psarm(["bench", str(bundle), *where, *precisions, "--json", str(result)])
    return [_measured(row) for row in json.loads(result.read_text(encoding="utf-8"))["rows"]]


def check_plot(path: Path) -> None:
    """Whether a plot can be drawn to `path`; raises `UsageError` for its suffix and `MissingExtraError`."""
    if path.suffix not in PLOTS:
        raise UsageError(f"--plot {path}: a plot is one of {', '.join(PLOTS)}; give the file such a name.")
    require("matplotlib", feature="A plot", extra="paper")


def plot_front(sizes: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw mAP over milliseconds, a line a precision, to `path`, which `check_plot` accepts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot(
        xlabel=f"ms a frame, 768x576, {THREADS} threads", ylabel="search mAP, %", xscale="log", title="OpenVINO, CPU"
    )
    for precision in PRECISIONS:
        rows = sorted(
            (row["ms"], 100 * row["mAP"], size)
            for size, one in sizes.items()
            for row in one["measured"]
            if row["precision"] == precision
        )
        axes.plot([row[0] for row in rows], [row[1] for row in rows], marker="o", label=precision)
        for milliseconds, accuracy, size in rows:
            axes.annotate(size, (milliseconds, accuracy), textcoords="offset points", xytext=(4, 4), fontsize=8)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix("."))


def _measured(row: Mapping[str, Any]) -> Measured:
    if row["status"] != "ok":
        raise PsarmError(f"OpenVINO in {row['precision']} did not run: {row['failure']}.")
    search = row["metrics"]["search"]
    return Measured(row["precision"], row["timing"]["total_ms"], search["mAP"], search["top1"])
