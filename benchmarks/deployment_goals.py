"""How far the deployment goals are reached: speed, rounding and accuracy of every backend and precision on the CPU.

    python -m psarm.benchmarks.deployment_goals --work goals --json benchmarks/results/deployment_goals.json \
        --checkpoint release/psarm-resnet18-synthetic.safetensors

measures all of it, accuracy on a street that is drawn for it (`psarm.benchmarks.goals_accuracy.STREET`) where no other
data set is given with `--data-root`. Without `--checkpoint` it is speed and rounding only, with `--no-speed` accuracy
only; the report keeps the rest as it was. Nothing else should run on the machine. Every backend
has two threads; the yardstick (`psarm.benchmarks.yardstick`) and they take turns on one frame, and ratios are those of
the medians in one run. `--only openvino-bf16` measures one again, beside the yardstick, and replaces its row in the
report; every row says when, of which commit and with which packages it was `measured`. Frame, weights and
bundle stay in the folder `--work`.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import cv2

import psarm
from psarm.benchmarks.facts import git_commit
from psarm.benchmarks.goals_accuracy import AccuracySubject, draw_street, measure_accuracy
from psarm.benchmarks.goals_contenders import PARITY, POINTS_LOST, TIMES_AS_FAST, chosen
from psarm.benchmarks.goals_report import accuracy_table, algebra_line, check_same, int8_line, merged, speed_table
from psarm.benchmarks.goals_speed import SpeedFolder, measure_preset
from psarm.benchmarks.script import run
from psarm.benchmarks.yardstick import FRAME, PEOPLE, PRESETS
from psarm.console import err, out, print_whole
from psarm.data.json_file import read_json_object
from psarm.errors import UsageError
from psarm.files import write_json
from psarm.machine import describe_machine, package_versions


def parse_size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    """`1080x1920` → (1080, 1920): height, width; raises click's error for anything else."""
    found = re.fullmatch(r"(\d+)x(\d+)", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no size; give HEIGHTxWIDTH, as in 1080x1920.")
    return int(found[1]), int(found[2])


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--work", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Folder for what is made.")
@click.option("--preset", "presets", multiple=True, type=click.Choice(list(PRESETS)), help="Models [released].")
@click.option("--no-speed", is_flag=True, help="Leave out speed and rounding.")
@click.option("--size", default="x".join(map(str, FRAME)), show_default=True, callback=parse_size, help="Of the frame.")
@click.option("--people", default=PEOPLE, show_default=True, type=click.IntRange(1), help="People on the frame.")
@click.option("--only", multiple=True, metavar="NAME", help="Contenders beside the yardstick, as openvino-bf16 [all].")
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1), help="Timed runs of each engine.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1), help="CPU threads of each engine.")
@click.option("--checkpoint", type=click.Path(exists=True, path_type=Path), help="Trained model, for accuracy.")
@click.option("--data-root", type=click.Path(exists=True, path_type=Path), help="In PRW's form, for accuracy [drawn].")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(
    work: Path,
    presets: tuple[str, ...],
    no_speed: bool,
    size: tuple[int, int],
    people: int,
    only: tuple[str, ...],
    rounds: int,
    threads: int,
    checkpoint: Path | None,
    data_root: Path | None,
    json_path: Path | None,
) -> None:
    """How far the deployment goals are reached, on this machine's CPU."""
    if checkpoint is None and data_root is not None:
        raise UsageError("--data-root is for accuracy, which a trained model has; give it with --checkpoint.")
    contenders = chosen(only)
    before = read_json_object(json_path, "a report") if json_path is not None and json_path.exists() else None
    settings = {"frame": list(size), "people": people, "threads": threads, "machine": _machine()}
    subject = None
    if checkpoint is not None:
        subject = AccuracySubject.read(checkpoint, data_root or draw_street(work, threads))
        if before is not None and not only:
            before["accuracy"] = None  # all of it is measured anew, on whatever data
    if before is not None:  # now: once everything is measured it would be lost
        check_same(before, {**settings, "accuracy": subject and subject.to_dict()})
    cv2.setNumThreads(threads)
    load = [_load_average()]
    speed: dict[str, Any] = {}
    for preset in () if no_speed else presets or ("released",):
        speed[preset] = measure_preset(SpeedFolder(work, preset, size, people), contenders, threads, rounds)
    accuracy = None
    if subject is not None:
        bundle = work / f"{subject.checkpoint.stem}.psarm"
        accuracy = measure_accuracy(subject, bundle, contenders, threads, err.print)
    load.append(_load_average())
    report = _report(speed, accuracy, load, settings)
    if json_path is not None:
        report = merged(before, report) if before is not None else report
        write_json(json_path, report)
    _show(report)


def _report(
    speed: dict[str, Any], accuracy: dict[str, Any] | None, load: list[float | None], settings: dict[str, Any]
) -> dict[str, Any]:
    measured = {
        "command": shlex.join(["python", "-m", "psarm.benchmarks.deployment_goals", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(Path(psarm.__file__).resolve().parents[1]),
        "load_average": load,  # before and after
        "packages": package_versions(),
    }
    for row in [row for part in (*speed.values(), accuracy) if part is not None for row in part["rows"]]:
        row["measured"] = measured  # rows of several runs may stand in one report
    return {
        **measured,
        **settings,
        "goals": {"times_as_fast": TIMES_AS_FAST, "parity": PARITY, "points_lost": POINTS_LOST},
        "presets": speed,
        "accuracy": accuracy,
    }


def _machine() -> dict[str, Any]:
    machine = asdict(describe_machine())
    return {**machine, "gpus": list(machine["gpus"])}  # as it is read again


def _show(report: dict[str, Any]) -> None:
    for name, part in report["presets"].items():
        print_whole(speed_table(name, part), out)
        out.print(algebra_line(part), soft_wrap=True)
        if "int8" in part:
            out.print(int8_line(part), soft_wrap=True)
    if report["accuracy"] is not None:
        print_whole(accuracy_table(report["accuracy"]), out)
        if "int8" in report["accuracy"]:
            out.print(int8_line(report["accuracy"]), soft_wrap=True)


def _load_average() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


if __name__ == "__main__":
    run(main)
