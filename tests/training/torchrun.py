"""`psarm train` in two processes, as a user starts it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = {"model.width": 0.125, "model.roi_size": 4, "model.min_size": 48, "model.max_size": 80}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def train_command(
    prw: Path,
    output: Path,
    *flags: str,
    processes: int = 1,
    program: tuple[str, ...] = ("-m", "psarm"),
    **settings: object,
) -> list[str]:
    """The command for a very small model without dropout; `a__b=1` in `settings` is `-o a.b=1`."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    files = ["--config", str(ROOT / "configs" / "tiny.yaml"), "--data-root", str(prw), "--output", str(output)]
    keys = {"model.arm_dropout": 0.0, "train.evaluate": "false", **SMALL}
    keys |= {key.replace("__", "."): value for key, value in settings.items()}
    overrides = [word for key, value in keys.items() for word in ("-o", f"{key}={value}")]
    return [*start, *program, "train", *files, *overrides, *flags]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Its exit code and what it printed."""
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def said(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of psarm's own on stderr; torchrun writes there too when a process fails."""
    ours = ("Error: ", "Interrupted", "Resuming", "psarm on")
    assert result.stderr.count("Traceback") <= 1, result.stderr  # torchrun's
    return [line for line in result.stderr.splitlines() if line.startswith(ours)]
