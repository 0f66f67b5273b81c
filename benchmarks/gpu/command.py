"""The suite's command line and the order of its measurements, the most important first."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import click
import torch
import torch._dynamo.config as dynamo

import psarm
from psarm.benchmarks.facts import git_commit
from psarm.benchmarks.gpu.journal import Journal, OutOfTimeError, deadline, reason
from psarm.benchmarks.gpu.steps import DeviceLostError, Suite
from psarm.benchmarks.gpu.table import goals, print_report
from psarm.console import err, out
from psarm.errors import PsarmError, UsageError
from psarm.machine import describe_machine, package_versions

ROOT = Path(psarm.__file__).resolve().parents[1]
GRACE = 30.0
"""Seconds past the budget after which the measurement that takes them is ended."""
CHECKPOINT = ROOT / "release" / "psarm-resnet18-synthetic.safetensors"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--device", default="cuda", show_default=True, type=click.Choice(["cuda", "cpu"]), help="What to measure."
)
@click.option("--tiny", is_flag=True, help="A tiny model and frame: shows that the suite runs.")
@click.option("--budget", default=480.0, show_default=True, type=click.FloatRange(1), help="Seconds for everything.")
@click.option("--rounds", default=9, show_default=True, type=click.IntRange(1), help="Samples of each time.")
@click.option("--profile", is_flag=True, help="The kernels that take longest in the fastest form.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Rewrite this file after each measurement.")
@click.option(
    "--checkpoint",
    default=CHECKPOINT,
    type=click.Path(path_type=Path),
    help="Trained model, for accuracy [the shipped].",
)
@click.option("--resume", is_flag=True, hidden=True)
def main(
    device: str,
    tiny: bool,
    budget: float,
    rounds: int,
    profile: bool,
    json_path: Path | None,
    checkpoint: Path,
    resume: bool,
) -> None:
    """Measure person search on a GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"torch {torch.__version__} sees no NVIDIA GPU; run on one, or give --device cpu --tiny.")
    facts = {} if resume else _facts(device, tiny)
    _settle(device)
    with tempfile.TemporaryDirectory(prefix="psarm-gpu-") as folder:
        # Without a file asked for, too, so that another process can go on.
        journal = Journal(facts, json_path or Path(folder) / "gpu.json", budget, resume)
        before, lost = set(journal.report["done"]), ""
        try:
            with deadline(max(1.0, journal.left) + GRACE):
                Suite(journal, torch.device(device), tiny, rounds, Path(folder), checkpoint).run(profile)
        except OutOfTimeError as error:  # between two measurements
            err.print(reason(error))
        except DeviceLostError as error:
            done = [title for title in journal.report["done"] if title not in before]
            err.print(f"the GPU failed ({reason(error)})")
            name = done[-1] if done else "a new process"
            journal.add({"group": "device", "name": name, "failure": f"the GPU failed: {error}"[:300]})
            if done:
                _go_on_in_another_process(journal)
            lost = reason(error)  # before any new step: yet another process would not get further
        journal.put("goals", goals(journal.report))
        print_report(journal.report, out)
    if json_path is not None:
        err.print(f"Written to {json_path}")
    if lost:
        raise PsarmError(f"The GPU fails in a new process too ({lost}); what it needs is a reset or a restart.")


def _go_on_in_another_process(journal: Journal) -> NoReturn:
    """A kernel that went astray takes its process' use of the GPU with it; the steps that are left need a new one."""
    err.print("going on in another process")
    given = [word for word in sys.argv[1:] if word != "--resume"]
    words = [sys.executable, "-m", "psarm.benchmarks.gpu", *given, "--resume", "--json", str(journal.path)]
    result = subprocess.run(words, check=False)
    sys.exit(result.returncode)


def _facts(device: str, tiny: bool) -> dict[str, Any]:
    machine = asdict(describe_machine())
    on_gpu = device == "cuda"
    return {
        "command": shlex.join(["python", "-m", "psarm.benchmarks.gpu", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(ROOT),
        "machine": {**machine, "gpus": list(machine["gpus"])},
        "packages": package_versions(),
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "cuda": torch.version.cuda if on_gpu else None,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,  # type: ignore[no-untyped-call]
        "tiny": tiny,
    }


def _settle(device: str) -> None:
    """fp32 means fp32; on a CPU one thread, as a test has."""
    torch.set_float32_matmul_precision("highest")
    dynamo.recompile_limit = 64  # every form and batch compiles the same code
    torch.backends.cudnn.allow_tf32 = False
    if device == "cpu":
        torch.set_num_threads(1)
