"""What `psarm export` prints: the bundle's graphs, their errors, and what every precision costs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.table import Table

from psarm.console import out, print_whole

if TYPE_CHECKING:
    from psarm.export import ExportReport
    from psarm.export.comparison import Comparison
    from psarm.export.precision.drift import Drift
    from psarm.export.precision.int8 import Quantised
    from psarm.export.precision.measure import PrecisionReport

NOTHING = "–"
INNER = ("objectness", "deltas")
"""Signals that are no outputs of a graph."""


def show_export(report: ExportReport) -> None:
    """Print the report's tables, and what to do next."""
    graphs = _table("graph", ["MB", "nodes"])
    for name, size in report.sizes.items():
        graphs.add_row(name, f"{size / 1e6:.1f}", str(report.nodes[name]))
    out.print(graphs)
    if report.comparisons:
        print_whole(_errors(report.comparisons), out)
    else:
        out.print("Not compared with the PyTorch model (--no-verify).")
    if report.quantised is not None:
        out.print(_quantised(report.quantised), soft_wrap=True, markup=False, highlight=False)
    drifts = {one.title: one.drift for one in report.precisions if one.drift is not None}
    if drifts:
        print_whole(_drifts(drifts), out)
        some = next(iter(drifts.values())).tensor_frames
        out.print(f"Compared on {report.compared_on}; signal to noise on {some}.", soft_wrap=True, markup=False)
        if any(one.snr[name] is None for one in drifts.values() for name in INNER):
            out.print(
                f"{NOTHING}: OpenVINO gives a graph's outputs; objectness and deltas are inside it.", soft_wrap=True
            )
    if any(one.accuracy for one in report.precisions):
        print_whole(_accuracy(report.precisions), out)
    for one in report.precisions:
        out.print(f"{one.title}: {one.device}.", soft_wrap=True, markup=False)
    if report.bundle is None:
        return
    out.print(f"Bundle: {report.bundle}", soft_wrap=True)
    out.print(f"Next: psarm detect {report.bundle} PICTURE", soft_wrap=True)
    name = report.dataset or "NAME"
    out.print(f"   or psarm bench {report.bundle} --dataset {name} --data-root DIR", soft_wrap=True)


def _errors(comparisons: list[Comparison]) -> Table:
    from psarm.export.comparison import LIMITS

    title = "Largest errors against the PyTorch model"
    table = Table("graph", "case", title=title, title_justify="left")
    for column in ("compared", "boxes px", "scores", "embeddings"):
        table.add_column(column, justify="right")
    for one in comparisons:
        errors = (NOTHING if value is None else f"{value:.1e}" for value in (one.boxes, one.scores, one.embeddings))
        redrawn = f" (redrawn {one.redrawn}x)" if one.redrawn else ""
        table.add_row(one.graph, one.case + redrawn, str(one.compared), *errors)
    table.add_section()
    table.add_row("", "limit", "", *(f"{limit:.1e}" for limit in LIMITS.values()))
    return table


def _quantised(quantised: Quantised) -> str:
    """What became int8, by what pictures, and what did not and why: two lines."""
    layers = ", ".join(f"{count} layers of {graph}" for graph, count in quantised.layers.items())
    worst = min(quantised.snr, key=quantised.snr.__getitem__)
    blocks = Counter(f"{one.graph}: {one.reason}" for one in quantised.kept)
    kept = [f"{reason} ({count} layer{'s' if count > 1 else ''})" for reason, count in blocks.items()]
    ratio = f"the worst signal, {worst}, has {quantised.snr[worst]:.1f} dB"
    return (
        f"int8: {layers}; calibrated on {quantised.source}; {ratio}.\n"
        f"Left in float for accuracy: {'; '.join(kept) or 'nothing'}."
    )


def _drifts(drifts: dict[str, Drift]) -> Table:
    """A column a precision."""
    every = list(drifts.values())
    frames = every[0].frames
    title = f"What the precisions change on {frames} frame{'s' if frames > 1 else ''}"
    table = _table("against fp32 on ONNX Runtime", list(drifts), title)
    for name in every[0].snr:
        table.add_row(f"{name}, signal to noise dB", *(_number(one.snr[name], "{:.1f}") for one in every))
    table.add_section()
    people = [one.people for one in every]
    table.add_row("people found by fp32", *(str(one.expected) for one in people))
    table.add_row("people found by this precision", *(str(one.found) for one in people))
    table.add_row("people found by both", *(str(one.matched) for one in people))
    table.add_row("both, of all found by either %", *(f"{100 * one.matched_share:.1f}" for one in people))
    table.add_row("boxes px, mean / largest", *(_pair(one.box_mean, one.box_max, "{:.2g}") for one in people))
    table.add_row("scores, mean / largest", *(_pair(one.score_mean, one.score_max, "{:.1e}") for one in people))
    table.add_row("cosine, mean / least", *(_pair(one.cosine_mean, one.cosine_min, "{:.5f}") for one in people))
    table.add_section()
    ranks = [one.ranks for one in every]
    table.add_row("searches with another first", *(f"{one.other_first} of {one.queries}" for one in ranks))
    swapped = (None if one.swapped is None else 100 * one.swapped for one in ranks)
    table.add_row("pairs that swap ranks %", *(_number(share, "{:.2f}") for share in swapped))
    return table


def _accuracy(reports: list[PrecisionReport]) -> Table:
    """A row a precision, percent, with the difference to fp32 of the others."""
    columns = {
        "AP": ("detection", "ap"),
        "mAP": ("search", "mAP"),
        "top-1": ("search", "top1"),
        "mAP CBGM": ("search_cbgm", "mAP"),
        "top-1 CBGM": ("search_cbgm", "top1"),
    }
    title = "Accuracy, percent" + (", and difference to fp32" if len(reports) > 1 else "")
    table = _table("precision", list(columns), title)
    first = reports[0].accuracy
    for report in reports:
        if report.accuracy is None or first is None:
            continue
        cells = []
        for group, name in columns.values():
            value = 100 * report.accuracy[group][name]
            change = "" if report is reports[0] else f" ({value - 100 * first[group][name]:+.2f})"
            cells.append(f"{value:.2f}{change}")
        table.add_row(report.title, *cells)
    return table


def _table(first: str, columns: list[str], title: str | None = None) -> Table:
    table = Table(first, title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def _pair(first: float | None, second: float | None, form: str) -> str:
    return f"{_number(first, form)} / {_number(second, form)}"
