"""The page's tables: what was measured, with the paper's row below, marked as published."""

from __future__ import annotations

import html
from collections.abc import Sequence

from psarm.benchmarks.model_cost import FRAME, PEOPLE, PROPOSALS
from psarm.benchmarks.notation import DASH, speed
from psarm.benchmarks.page import template
from psarm.benchmarks.page.parts import table_row
from psarm.benchmarks.paper.published import CONTEXT_NOTE, PAPER, PublishedRow
from psarm.benchmarks.paper.report import PaperReport, Result

COLUMNS = 9
"""Of the accuracy table, after the name."""
TAG = '<span class="tag">published</span>'


def accuracy_section(report: PaperReport) -> str:
    """The table of checkpoints beside the paper's rows, and the paper's other rows folded below."""
    head = (
        '<tr><th scope="col" rowspan="2">checkpoint</th><th colspan="2" scope="colgroup">search, %</th>'
        '<th colspan="2" scope="colgroup">search with CBGM, %</th><th colspan="2" scope="colgroup">detection, %</th>'
        '<th colspan="2" scope="colgroup">model</th><th colspan="1" scope="colgroup">speed</th></tr>\n'
        + table_row("th", ["mAP", "top-1", "mAP", "top-1", "recall", "AP", "parameters, M", "GMACs", "FPS"])
    )
    body = "\n".join(_group(row, results) for row, results in _grouped(report.results))
    measured = template.TABLE.format(label="Accuracy, size and work", head=head, body=body)
    notes = (
        f"<p>GMACs: multiply-adds of one {FRAME[0]} x {FRAME[1]} frame with {PROPOSALS} proposals and {PEOPLE} people. "
        f"FPS: one image at a time, on {html.escape(report.speed.device)}.</p>"
    )
    notes += f"\n<p>{CONTEXT_NOTE}</p>" if report.published else ""
    return f"{measured}\n{notes}\n{_all_published(report)}"


def _grouped(results: Sequence[Result]) -> list[tuple[PublishedRow | None, list[Result]]]:
    """Checkpoints of the same row of the paper together, in the order they were given."""
    groups: dict[str, tuple[PublishedRow | None, list[Result]]] = {}
    for result in results:
        row = result.published
        groups.setdefault(row.preset if row else "", (row, []))[1].append(result)
    return list(groups.values())


def _group(row: PublishedRow | None, results: Sequence[Result]) -> str:
    lines = [_measured(result) for result in results]
    if row is None:
        lines.append(f'<tr class="published"><th scope="row">{TAG}</th><td colspan="{COLUMNS}">no such row</td></tr>')
    else:
        figures = row.figures
        lines.append(
            f'<tr class="published"><th scope="row">{TAG} {html.escape(row.title)}'
            f'<span class="note">{html.escape(row.source)} of the paper</span></th>'
            f'<td colspan="4">mAP {_figure(figures.mAP)}, top-1 {_figure(figures.top1)}</td>'
            f'<td>{_figure(figures.recall)}</td><td>{_figure(figures.AP)}</td><td colspan="3"></td></tr>'
        )
    return "<tbody>\n" + "\n".join(lines) + "\n</tbody>"


def _measured(result: Result) -> str:
    cost = result.contender.cost
    cells = [f"{result.percent(g, n):.1f}" for g in ("search", "search_cbgm") for n in ("mAP", "top1")]
    cells += [f"{result.percent('detection', name):.1f}" for name in ("recall", "ap")]
    cells += [f"{cost.parameters / 1e6:.1f}", f"{cost.macs.total / 1e9:.0f}", speed(result.fps)]
    note = "; ".join([result.contender.model.variant, *result.differences()])
    name = f'{html.escape(result.contender.name)}<span class="note">{html.escape(note)}</span>'
    return f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _all_published(report: PaperReport) -> str:
    if not report.published:
        return ""
    lines = [
        f'<tr class="published"><th scope="row">{html.escape(row.title)}</th><td>{html.escape(row.source)}</td>'
        + "".join(f"<td>{_figure(value)}</td>" for value in _figures(row))
        + "</tr>"
        for row in report.published
    ]
    head = table_row("th", [f"{TAG} row", "source", "mAP", "top-1", "recall", "AP"])
    content = template.TABLE.format(
        label="Published rows", head=head, body="<tbody>\n" + "\n".join(lines) + "\n</tbody>"
    )
    return template.DETAILS.format(summary=f"All rows of {html.escape(PAPER)} on this data set", content=content)


def _figures(row: PublishedRow) -> list[float | None]:
    figures = row.figures
    return [figures.mAP, figures.top1, figures.recall, figures.AP]


def _figure(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f}"
