"""`psarm data`: make and check data sets on disk."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from psarm.cli.data_check import check
from psarm.cli.data_convert import convert
from psarm.errors import UsageError
from psarm.machine import usable_cores

if TYPE_CHECKING:
    from psarm.data.synth import SynthSummary


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Make and check data sets on disk."""


command.add_command(check)
command.add_command(convert)


def parse_size(_: click.Context, __: click.Parameter, value: str) -> tuple[int, int]:
    """`960x540` → (960, 540)."""
    parts = value.lower().split("x")
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise UsageError(f"--size '{value}' is not a size; write width x height in pixels, such as 640x360.")
    return int(parts[0]), int(parts[1])


@command.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--format", "layout", type=click.Choice(["prw", "cuhk-sysu"]), default="prw", show_default=True, help="Layout."
)
@click.option("--frames", default=600, show_default=True, help="Frames of all six cameras, training and test.")
@click.option("--identities", default=60, show_default=True, help="People with an identity, training and test.")
@click.option("--test-fraction", default=0.5, show_default=True, help="Share of frames and identities for the test.")
@click.option(
    "--size", callback=parse_size, metavar="WxH", default="960x540", show_default=True, help="Frame size in pixels."
)
@click.option("--people-per-frame", default=4.0, show_default=True, help="People in a frame on average.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same files.")
@click.option("--workers", type=int, default=None, help="Processes that draw.  [default: one per CPU core]")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it holds a synthetic data set of psarm.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def synth(
    out: Path,
    layout: str,
    frames: int,
    identities: int,
    test_fraction: float,
    size: tuple[int, int],
    people_per_frame: float,
    seed: int,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Draw synthetic street scenes with people, as PRW or CUHK-SYSU.

    They are written to OUT in the on-disk format of the one or the other. CUHK-SYSU's galleries of 50 and 100 images
    are always written, larger ones where there are enough test frames. On small sets a gallery is shorter than its name
    says: it holds all test frames but the query's own at most.
    """
    from psarm.data.synth import SynthSettings, generate_dataset

    settings = SynthSettings(frames, identities, test_fraction, size[0], size[1], people_per_frame, seed)
    workers = usable_cores() if workers is None else workers
    summary = generate_dataset(out, settings, layout, workers=workers, overwrite=overwrite)
    if as_json:
        click.echo(json.dumps({"format": layout, **asdict(summary), "root": str(summary.root)}, indent=2))
    else:
        _print_summary(summary)


def _print_summary(summary: SynthSummary) -> None:
    from rich.table import Table

    from psarm.console import out

    table = Table(title=f"Synthetic data set in {summary.root}")
    for title in ("camera", "train frames", "test frames", "boxes", "identities", "queries"):
        table.add_column(title, justify="right")
    for camera in summary.cameras:
        table.add_row(*(str(value) for value in asdict(camera).values()))
    table.add_section()
    identities = f"{summary.train_identities}+{summary.test_identities}"
    totals = (summary.train_frames, summary.test_frames, summary.boxes, identities, summary.queries)
    table.add_row("all", *(str(value) for value in totals))
    out.print(table)
    out.print(f"{summary.unlabelled} of the boxes have no identity; identities are training + test.")
