"""From the start of Python to the first result, with compiled graphs kept from before and without.

    python -m psarm.benchmarks.cold_start prw.psarm --json cold_start.json

Every figure is the median over fresh processes, in turns: `none` (PSARM_COMPILED_CACHE=0), `first` (an empty cache
folder: compiled, and written to it) and `again` (from that folder). Files are in the system's cache of the disk.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import click
import cv2
import numpy as np

import psarm
from psarm.benchmarks import script
from psarm.benchmarks.facts import git_commit
from psarm.benchmarks.fresh_process import PHASES, Subject, measure_phases
from psarm.console import out
from psarm.errors import UsageError
from psarm.files import write_json
from psarm.machine import default_threads, describe_machine, package_versions
from psarm.runtime import Bundle
from psarm.runtime.backends import runnable

TO_FIRST_RESULT = PHASES[:-1]
MODES = ("none", "first", "again")
BACKENDS = ("openvino", "onnxruntime")
"""Those whose compiled graphs are kept."""


def measure(subject: Subject, repeats: int) -> tuple[dict[str, list[dict[str, float]]], int]:
    """Samples by mode, `repeats` of each in turns, and the bytes that were kept."""
    samples: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    kept = 0
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            for mode in MODES:
                environment = {"PSARM_CACHE": folder, "PSARM_COMPILED_CACHE": "0" if mode == "none" else "1000"}
                seconds = measure_phases(subject, environment)
                samples[mode].append({phase: round(value, 4) for phase, value in seconds.items()})
            kept = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return samples, kept


def summarise(subject: Subject, samples: dict[str, list[dict[str, float]]], kept: int) -> dict[str, Any]:
    """A row of the report: medians by mode, and how much the cache is worth."""
    medians = {
        mode: {
            **{f"{phase}_seconds": round(median(one[phase] for one in taken), 3) for phase in PHASES},
            "to_first_result_seconds": round(median(sum(one[phase] for phase in TO_FIRST_RESULT) for one in taken), 3),
        }
        for mode, taken in samples.items()
    }
    ratios = [none["open"] / again["open"] for none, again in zip(samples["none"], samples["again"], strict=True)]
    return {
        "backend": subject.backend,
        "precision": subject.precision,
        "kept_bytes": kept,
        "medians": medians,
        "open_times_as_fast": round(median(ratios), 2),
        "samples": samples,
    }


def _show(row: dict[str, Any]) -> None:
    for mode, seconds in row["medians"].items():
        phases = "  ".join(f"{phase} {seconds[f'{phase}_seconds']:.2f}" for phase in PHASES)
        total = seconds["to_first_result_seconds"]
        text = f"{row['backend']:12} {row['precision']:5} {mode:6} {phases}  to the first result {total:.2f} s"
        out.print(text, soft_wrap=True)
    out.print(f"{'':19}opens {row['open_times_as_fast']:.2f} times as fast, {row['kept_bytes'] / 1e6:.0f} MB kept")


def _choices(bundle: Bundle, precisions: tuple[str, ...]) -> list[tuple[str, str]]:
    """Backend and precision of every row; raises `UsageError` where one of `precisions` or everything runs nowhere."""
    running = [(backend, precision) for backend in BACKENDS for precision in runnable(bundle, backend)]
    names = list(dict.fromkeys(precision for _, precision in running))
    missing = [precision for precision in precisions if precision not in names]
    if missing or not running:
        what = f"--precision {missing[0]}" if missing else "the bundle"
        raise UsageError(
            f"{what} runs on neither of {', '.join(BACKENDS)} here; what runs: {', '.join(names) or 'none'}."
        )
    return [choice for choice in running if not precisions or choice[1] in precisions]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--precision", "precisions", multiple=True, help="Of these only  [default: all that run here].")
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Processes of each kind.")
@click.option(
    "--size", nargs=2, type=click.IntRange(min=32), default=(1080, 1920), help="Height and width of the frame."
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads  [default: OMP_NUM_THREADS or all cores].")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(
    bundle: Path,
    precisions: tuple[str, ...],
    repeats: int,
    size: tuple[int, int],
    threads: int | None,
    json_path: Path | None,
) -> None:
    """Seconds from the start of Python to the first result of BUNDLE, with and without kept compiled graphs."""
    opened, threads = Bundle.open(bundle), threads or default_threads()
    choices = _choices(opened, precisions)
    load, rows = [os.getloadavg()[0]], []
    with tempfile.TemporaryDirectory() as folder:
        frame = str(Path(folder) / "frame.png")
        cv2.imwrite(frame, np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
        for backend, precision in choices:
            subject = Subject(str(bundle), None, backend, precision, threads, [frame])
            rows.append(summarise(subject, *measure(subject, repeats)))
            _show(rows[-1])
    load.append(os.getloadavg()[0])
    if json_path is not None:
        report = {
            "command": shlex.join(["python", "-m", "psarm.benchmarks.cold_start", *sys.argv[1:]]),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": git_commit(Path(psarm.__file__).resolve().parents[1]),
            "machine": asdict(describe_machine()),
            "packages": package_versions(),
            "threads": threads,
            "frame": list(size),
            "model": asdict(opened.manifest.model),
            "bundle_bytes": sum(file.size for file in opened.manifest.files.values()),
            "repeats": repeats,
            "load_average": load,  # before and after; the script itself makes up to the number of threads
            "rows": rows,
        }
        write_json(json_path, report)


if __name__ == "__main__":
    script.run(main)
