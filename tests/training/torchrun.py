"""`psarm train` in processes of its own, one or several that train together."""

import subprocess
from pathlib import Path

import preloaded

ROOT = Path(__file__).parents[2]
SMALL = {"model.width": 0.125, "model.roi_size": 4, "model.min_size": 48, "model.max_size": 80}
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def train(
    prw: Path,
    output: Path,
    *flags: str,
    processes: int = 1,
    program: tuple[str, ...] = ("-m", "psarm"),
    **settings: object,
) -> subprocess.CompletedProcess[str]:
    """The training of a very small model without dropout; `a__b=1` in `settings` is `-o a.b=1`."""
    files = ["--config", str(ROOT / "configs" / "tiny.yaml"), "--data-root", str(prw), "--output", str(output)]
    keys = {"model.arm_dropout": 0.0, "train.evaluate": "false", **SMALL}
    keys |= {key.replace("__", "."): value for key, value in settings.items()}
    overrides = [word for key, value in keys.items() for word in ("-o", f"{key}={value}")]
    return preloaded.run([*program, "train", *files, *overrides, *flags], ENVIRONMENT, processes)


def said(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of psarm's own on stderr; torchrun writes there too when a process fails."""
    ours = ("Error: ", "Interrupted", "Resuming", "psarm on")
    assert result.stderr.count("Traceback") <= 1, result.stderr  # torchrun's
    return [line for line in result.stderr.splitlines() if line.startswith(ours)]
