"""`psarm models`: the presets, their rows in the paper, and what their models cost and reach."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from psarm.extras import require

if TYPE_CHECKING:
    from rich.table import Table

    from psarm.benchmarks.model_table import ModelRow


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list; figures in percent.")
def command(as_json: bool) -> None:
    """List the presets that psarm train --config takes by name, and the models they make.

    GMACs are multiply-adds of one 1080x1920 frame with 300 proposals, where the model leaves as many, and 20 people,
    RoIAlign and element-wise work not counted, for the PyTorch model (an exported bundle needs fewer). Figures are mAP
    and top-1 of search, recall and AP of detection, in percent.
    """
    require("torch", "torchvision", "yaml", feature="psarm models", extra="train")
    from psarm.benchmarks.model_table import model_rows

    rows = model_rows()
    if as_json:
        click.echo(json.dumps([row.to_dict() for row in rows], indent=2))
    else:
        _print_table(rows)


def _print_table(rows: Sequence[ModelRow]) -> None:
    from psarm.console import fits, out, print_whole

    everything = _columns(rows, range(7))
    if fits(everything, out):
        print_whole(everything, out)
    else:
        out.print(_columns(rows, (0, 1, 2, 3)), _columns(rows, (0, 4, 5, 6)))


def _columns(rows: Sequence[ModelRow], numbers: Iterable[int]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from psarm.benchmarks.model_table import HEADINGS

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number in numbers:
        table.add_column(HEADINGS[number], justify="right" if number > 1 else "left", no_wrap=number == 0)
    for row in rows:
        cells = row.cells()
        table.add_row(*(cells[number] for number in numbers))
    return table
