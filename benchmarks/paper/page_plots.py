"""The page's plots, each with its numbers in a table below."""

from __future__ import annotations

import html

from psarm.benchmarks.notation import DASH, speed
from psarm.benchmarks.page.charts import Curve, Pair, Point, boxes_chart, gallery_chart, speed_chart
from psarm.benchmarks.page.parts import plots, table
from psarm.benchmarks.paper.published import SPEEDS, title_of, untimed
from psarm.benchmarks.paper.report import PaperReport, Result
from psarm.benchmarks.paper.scores import GT_BOXES

CBGM = "search_cbgm"


def speed_section(report: PaperReport) -> str:
    """Fig. 1: mAP against frames a second."""
    points = [Point(r.contender.name, r.fps, r.percent(CBGM, "mAP")) for r in report.results]
    published, levels = SPEEDS.get(report.settings.dataset, []), untimed(report.settings.dataset)
    spoken = "; ".join(f"{point.name} {point.y:.1f} % at {speed(point.x)} FPS" for point in points)
    alt = f"mAP with CBGM against frames a second. {spoken}."
    caption = "mAP is with CBGM; frames a second are of finding the people of one image, without it, "
    caption += f"on {report.speed.device}."
    if published:
        quoted = "; ".join(f"{p.title} {p.mAP} % at {p.fps} FPS on a {p.gpu}, from {p.source}" for p in published)
        caption += f" Hollow: published, {quoted}. Speeds on other machines do not compare."
        alt += f" Published: {quoted}."
    caption += "".join(f" Dotted: {name} {value} %, published without a speed." for name, value in levels.items())
    caption += " The paper gives the other speeds of its Fig. 1 as a plot only; they are not quoted."
    rows = [(p.name, [f"{p.y:.1f}", speed(p.x), f"{1000 / p.x:.1f}"]) for p in points]
    rows += [
        (f"{p.title} (published, {p.gpu})", [f"{p.mAP:.1f}", speed(p.fps), f"{1000 / p.fps:.1f}"]) for p in published
    ]
    rows += [(f"{name} (published)", [f"{value:.1f}", DASH, DASH]) for name, value in levels.items()]
    numbers = table("Accuracy and speed", [["checkpoint", "mAP with CBGM, %", "FPS", "ms an image"]], rows)
    return plots([(speed_chart(points, published, levels, alt), caption)], numbers)


def galleries_section(report: PaperReport) -> str:
    """Fig. 5: mAP over the size of the gallery, where there are several."""
    if not report.galleries:
        name = html.escape(title_of(report.facts["dataset"]["name"]))
        return (
            "<p>Fig. 5 of the paper is CUHK-SYSU's, which lists galleries of 50 to 4,000 frames for every query. "
            f"{name} has no such series, so there is nothing to plot here.</p>"
        )
    frames = [float(gallery.frames) for gallery in report.galleries]
    curves = [
        Curve(r.contender.name, frames, [r.percent(f"{g.group}_cbgm", "mAP") for g in report.galleries])
        for r in report.results
    ]
    spoken = "; ".join(f"{c.name} from {c.y[0]:.1f} % at {c.x[0]:g} to {c.y[-1]:.1f} % at {c.x[-1]:g}" for c in curves)
    caption = (
        "With CBGM. The last size is the full test set. The paper gives Fig. 5 as a plot only; "
        "its figures are not quoted here, but that of the gallery of 100 is in the table above."
    )
    head = [["checkpoint", *(f"{g.name}" for g in report.galleries)]]
    rows = []
    for result in report.results:
        for suffix, title in (("_cbgm", "mAP with CBGM"), ("", "mAP")):
            values = [f"{result.percent(f'{g.group}{suffix}', 'mAP'):.1f}" for g in report.galleries]
            rows.append((f"{result.contender.name}: {title}", values))
    chart = gallery_chart(curves, f"mAP over the number of frames in the gallery. {spoken}.")
    return plots([(chart, caption)], table("Accuracy by gallery size", head, rows))


def boxes_section(report: PaperReport) -> str:
    """Fig. 8: search among detected and among annotated boxes."""
    figures = []
    for key, title in (("mAP", "mAP"), ("top1", "top-1")):
        pairs = [_pair(result, key) for result in report.results]
        spoken = "; ".join(f"{p.name} {p.detected:.1f} % detected, {p.annotated:.1f} % annotated" for p in pairs)
        alt = f"{title} with detected and with ground-truth boxes. {spoken}."
        caption = f"{title} with CBGM. Filled: the checkpoint's own boxes; hatched: ground-truth boxes."
        figures.append((boxes_chart(pairs, title, alt), caption))
    note = (
        "<p>What the re-identification alone reaches: every annotated person is found, with score 1. "
        "The paper gives Fig. 8 as a plot only; its figures are not quoted.</p>"
    )
    ways = {
        "search": "detected",
        GT_BOXES: "ground truth",
        CBGM: "detected, CBGM",
        f"{GT_BOXES}_cbgm": "ground truth, CBGM",
    }
    rows = [
        (f"{r.contender.name}: {title}", [f"{r.percent(group, 'mAP'):.1f}", f"{r.percent(group, 'top1'):.1f}"])
        for r in report.results
        for group, title in ways.items()
    ]
    return note + plots(figures, table("Detected and ground-truth boxes", [["boxes", "mAP, %", "top-1, %"]], rows))


def _pair(result: Result, key: str) -> Pair:
    return Pair(result.contender.name, result.percent(CBGM, key), result.percent(f"{GT_BOXES}_cbgm", key))
