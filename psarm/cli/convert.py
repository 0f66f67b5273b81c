"""`psarm convert`: from a released file to a checkpoint of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from psarm.cli.checkpoint_path import CheckpointPath
from psarm.extras import require

if TYPE_CHECKING:
    from rich.table import Table

    from psarm.model.conversion import Conversion, Part

VARIANTS = {"seqnet": "SeqNet", "psarm": "PS-ARM, released layout"}


@click.command()
@click.argument("released", type=CheckpointPath())
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace the file that is at OUTPUT.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, with every name.")
def command(released: Path, output: Path, overwrite: bool, as_json: bool) -> None:
    """Turn a RELEASED SeqNet or PS-ARM .pth file into a psarm checkpoint.

    OUTPUT is a .safetensors file. Every name of the released file is accounted for: where one is missing, unknown or of
    another shape, it is named and nothing is written. The other commands take the released file, too.
    """
    require("torch", "torchvision", "safetensors", feature="psarm convert", extra="train")
    from psarm.model.conversion import convert_released

    conversion = convert_released(released, output, overwrite)
    if as_json:
        click.echo(json.dumps(conversion.to_dict(), indent=2))
    else:
        _show(conversion)


def _show(conversion: Conversion) -> None:
    from psarm.console import out

    for line in _recognised(conversion):
        out.print(line, soft_wrap=True)
    out.print(_table(conversion))
    for name, reason in conversion.added.items():
        out.print(f"Added as 0: {name} ({reason})", soft_wrap=True, markup=False)
    for reason in dict.fromkeys(conversion.left_out.values()):
        names = [name for name, why in conversion.left_out.items() if why == reason]
        out.print(f"Left out: {', '.join(names)} ({reason})", soft_wrap=True, markup=False)
    out.print(f"Checkpoint: {conversion.output}", soft_wrap=True, markup=False)
    bundle = conversion.output.with_suffix(".psarm").name
    out.print(f"Next: psarm export {conversion.output} --out {bundle}", soft_wrap=True, markup=False)


def _recognised(conversion: Conversion) -> list[str]:
    """What kind of file it was, a line each."""
    released = conversion.released
    config = released.config
    sizes = f"{config.num_identities} identities, a queue of {config.queue_size}"
    whose = conversion.dataset_sizes
    naming = "before 0.13" if released.old_torchvision else "0.13 or later"
    kinds = " and ".join(conversion.stored_as)
    notes = [
        kinds if kinds == "float32" else f"{kinds}, written as float32",
        f"RPN named as by torchvision {naming}",
        *(["DataParallel's 'module.' before every name"] if released.parallel else []),
    ]
    lines = [
        f"Recognised: {VARIANTS[config.variant]}",
        f"OIM tables: {sizes} ({f'the sizes of {whose}' if whose else 'neither CUHK-SYSU nor PRW'})",
        f"File: {', '.join(notes)}",
    ]
    if conversion.epoch is not None:
        lines.append(f"Saved after: epoch {conversion.epoch}, counted from 0")
    return lines


def _table(conversion: Conversion) -> Table:
    from rich.table import Table

    table = Table("part")
    for column in ("read", "renamed", "added", "written", "numbers"):
        table.add_column(column, justify="right")
    for part in conversion.parts:
        table.add_row(*_cells(part))
    table.add_section()
    table.add_row(*_cells(conversion.total))
    return table


def _cells(part: Part) -> list[str]:
    counts = (part.read, part.renamed, part.added, part.written, part.numbers)
    return [part.name, *(f"{count:,}" for count in counts)]
