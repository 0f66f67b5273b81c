"""Store a trained checkpoint as a release file: float16 weights, half the size (docs/release.md)."""

from __future__ import annotations

from pathlib import Path

import click

from psarm.benchmarks.script import run
from psarm.console import out
from psarm.extras import require


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("release", type=click.Path(path_type=Path))
def main(checkpoint: Path, release: Path) -> None:
    """Write CHECKPOINT to RELEASE with float16 weights."""
    require("torch", "torchvision", "safetensors", feature="Making a release file", extra="train")
    from psarm.model.checkpoint import load_model, read_checkpoint, save_model

    save_model(load_model(checkpoint), release, read_checkpoint(checkpoint).dataset, half=True)
    out.print(f"{release}: {release.stat().st_size / 1e6:.1f} MB", soft_wrap=True)


if __name__ == "__main__":
    run(main)
