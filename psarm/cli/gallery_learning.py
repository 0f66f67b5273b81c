"""`psarm gallery calibrate` and `index`: what a gallery learns from itself."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from psarm.cli.gallery_options import AS_JSON, GALLERY

if TYPE_CHECKING:
    from rich.table import Table

    from psarm.runtime.gallery.ann import IndexKind, IndexReport
    from psarm.runtime.gallery.calibration import Calibration

SIMILARITIES = [step / 20 for step in range(6, 20)]
"""Of the table of rates."""


@click.command()
@GALLERY
@click.option(
    "--fmr",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="False-match rate: share of other people who may look as similar. Hits less sure than that are marked.",
)
@AS_JSON
def calibrate(gallery: str, fmr: float, as_json: bool) -> None:
    """Estimate how often other people look as similar. The visits in the gallery tell.

    It is kept in the gallery: searches then mark what is probably not a match. Calibrate again when much was added.
    """
    from psarm.cli.gallery_search_notes import judged
    from psarm.console import out
    from psarm.runtime.gallery.gallery import Gallery

    with Gallery.open(gallery) as opened:
        found = opened.calibrate(fmr)
    if as_json:
        rates = [
            {"similarity": s, "false_match_rate": found.false_match_rate(s), "bound": found.bound(s)}
            for s in SIMILARITIES
        ]
        facts = {
            name: getattr(found, name) for name in ("target", "threshold", "certain", "pairs", "visits", "created")
        }
        click.echo(json.dumps({**facts, "rates": rates}))
        return
    out.print(_rates_table(found))
    out.print(judged(found))
    out.print(f"From {found.pairs:,} pairs of {found.visits:,} visits{_how_sure(found)}.")


def _how_sure(found: Calibration) -> str:
    if found.certain:
        return ", seen at the same time and so of different people"
    return "; some may be of one person, so that the true rates are lower"


def _rates_table(found: Calibration) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column("similarity from", justify="right")
    table.add_column("false-match rate", justify="right")
    table.add_column("at most, 95 % sure", justify="right")
    for value in SIMILARITIES:
        table.add_row(f"{value:.2f}", f"{found.false_match_rate(value):.3%}", f"{found.bound(value):.3%}")
    return table


@click.command()
@GALLERY
@click.option(
    "--kind",
    type=click.Choice(["IVF_PQ", "IVF_SQ", "IVF_HNSW_SQ"]),
    default="IVF_SQ",
    show_default=True,
    help="IVF_PQ is smaller and takes long to build, IVF_HNSW_SQ has a graph in every part.",
)
@click.option("--queries", type=click.IntRange(min=1), default=100, show_default=True, help="To measure it with.")
@AS_JSON
def index(gallery: str, kind: IndexKind, queries: int, as_json: bool) -> None:
    """Build an index for psarm search --approximate. What share of the exact hits it finds is measured."""
    from psarm.console import out, print_whole, spinner
    from psarm.runtime.gallery.gallery import Gallery

    with Gallery.open(gallery) as opened, spinner() as bar:
        task = bar.add_task("Opening the gallery", total=None)
        reports = opened.build_index(kind, queries=queries, on_step=lambda step: bar.update(task, description=step))
    if as_json:
        click.echo(json.dumps([asdict(report) for report in reports]))
        return
    print_whole(_reports_table(reports), out)
    for report in reports:
        if report.reason:
            out.print(f"{report.table}: no index, {report.reason}.", markup=False)


def _reports_table(reports: list[IndexReport]) -> Table:
    from rich.table import Table

    table = Table()
    for title in ("table", "index"):
        table.add_column(title)
    for title in ("rows", "recall", "exact, ms", "indexed, ms", "built in"):
        table.add_column(title, justify="right")
    for report in reports:
        table.add_row(
            report.table,
            report.kind or "none",
            f"{report.rows:,}",
            "–" if report.recall is None else f"{report.recall:.1%} of {report.k}",
            "–" if report.exact_ms is None else f"{report.exact_ms:.1f}",
            "–" if report.approximate_ms is None else f"{report.approximate_ms:.1f}",
            "–" if report.kind is None else f"{report.build_s:.1f} s",
        )
    return table
