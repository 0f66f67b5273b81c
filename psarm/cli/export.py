"""`psarm export`: from a checkpoint to a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from psarm.cli.checkpoint_path import CheckpointPath

if TYPE_CHECKING:
    from rich.table import Table

    from psarm.export import ExportReport
    from psarm.export.comparison import Comparison


@click.command()
@click.argument("checkpoint", type=CheckpointPath())
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory of the bundle to make.")
@click.option("--verify/--no-verify", default=True, show_default=True, help="Compare the graphs with the model.")
@click.option("--simplify", is_flag=True, help="Run onnxslim over the graphs before they are verified.")
@click.option("--overwrite", is_flag=True, help="Replace the bundle that is at --out.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(checkpoint: Path, out: Path, verify: bool, simplify: bool, overwrite: bool, as_json: bool) -> None:
    """Turn a CHECKPOINT into a bundle: ONNX graphs and a manifest.

    CHECKPOINT is a model.safetensors or last.pt of psarm train, or a released SeqNet or PS-ARM .pth file. The export
    fails, and leaves nothing at --out, where boxes differ from the PyTorch model's by more than 0.01 pixels, or scores
    or embeddings by more than 0.0001.
    """
    from psarm.console import err
    from psarm.extras import require

    require(
        "torch", "torchvision", "safetensors", "onnx", "onnxscript", "onnxslim", feature="psarm export", extra="export"
    )
    from psarm.export import export_bundle

    report = export_bundle(checkpoint, out, verify, simplify, overwrite, say=err.print)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
    else:
        _show(report)


def _show(report: ExportReport) -> None:
    from rich.table import Table

    from psarm.console import out

    graphs = Table("graph")
    for column in ("MB", "nodes"):
        graphs.add_column(column, justify="right")
    for name, size in report.sizes.items():
        graphs.add_row(name, f"{size / 1e6:.1f}", str(report.nodes[name]))
    out.print(graphs)
    if report.comparisons:
        out.print(_errors(report.comparisons))
    else:
        out.print("Not compared with the PyTorch model (--no-verify).")
    out.print(f"Bundle: {report.bundle}", soft_wrap=True)
    out.print(f"Next: psarm detect {report.bundle} PICTURE", soft_wrap=True)
    name = report.dataset or "NAME"
    out.print(f"   or psarm bench {report.bundle} --dataset {name} --data-root DIR", soft_wrap=True)


def _errors(comparisons: list[Comparison]) -> Table:
    from rich.table import Table

    from psarm.export.comparison import LIMITS

    title = "Largest errors against the PyTorch model"
    table = Table("graph", "case", title=title, title_justify="left")
    for column in ("compared", "boxes px", "scores", "embeddings"):
        table.add_column(column, justify="right")
    for one in comparisons:
        errors = ("–" if value is None else f"{value:.1e}" for value in (one.boxes, one.scores, one.embeddings))
        redrawn = f" (redrawn {one.redrawn}x)" if one.redrawn else ""
        table.add_row(one.graph, one.case + redrawn, str(one.compared), *errors)
    table.add_section()
    table.add_row("", "limit", "", *(f"{limit:.1e}" for limit in LIMITS.values()))
    return table
