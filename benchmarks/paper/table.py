"""The closing table on the terminal: what was measured, with the published figures beside it."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from psarm.benchmarks.notation import DASH, speed
from psarm.benchmarks.paper.report import PaperReport, Result
from psarm.benchmarks.paper.scores import GT_BOXES
from psarm.console import print_whole

TITLES = ("mAP", "top-1", "mAP\nCBGM", "top-1\nCBGM", "mAP\nGT boxes", "recall", "AP", "FPS", "published\nmAP / top-1")


def print_paper(report: PaperReport, console: Console) -> None:
    """Print the table, why published figures do not compare (if so), and where the page is."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("checkpoint", overflow="fold")
    for title in TITLES:
        table.add_column(title, justify="right", no_wrap=True)
    for result in report.results:
        table.add_row(Text(result.contender.name), *_cells(result))
    console.print("Accuracy in %; GT boxes: without CBGM", style="italic")
    print_whole(table, console)
    if report.warning:
        console.print(report.warning, markup=False, soft_wrap=True)
    console.print(f"Report: {report.settings.out / 'report.html'}", markup=False, soft_wrap=True)


def _cells(result: Result) -> list[str]:
    published = result.published
    groups = [("search", "mAP"), ("search", "top1"), ("search_cbgm", "mAP"), ("search_cbgm", "top1"), (GT_BOXES, "mAP")]
    groups += [("detection", "recall"), ("detection", "ap")]
    figures = published.figures if published else None
    return [
        *(f"{result.percent(group, name):.1f}" for group, name in groups),
        speed(result.fps),
        DASH if figures is None else f"{figures.mAP:.1f} / {figures.top1:.1f}",
    ]
