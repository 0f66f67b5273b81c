"""The deployment goals' report: what a new run replaces in an older one, and the tables."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich import box
from rich.table import Table

from psarm.benchmarks.goals_accuracy import WAYS
from psarm.benchmarks.goals_contenders import PARITY
from psarm.benchmarks.notation import DASH
from psarm.errors import UsageError
from psarm.runtime.timing import STAGES

SAME = ("frame", "people", "threads", "machine")
"""What two runs must share for their rows to stand in one report."""
SAME_ACCURACY = ("checkpoint", "sha256", "frames", "queries")
"""The same of their accuracy parts."""
PARITY_TITLES = ("people", "matched", "px", "score", "embedding", "SNR dB", "parity")
Report = dict[str, Any]


def check_same(old: Report, new: Report) -> None:
    """Raise `UsageError` where rows of the two cannot stand in one report.

    Only settings and the accuracy's subject are looked at, which are known before anything is measured.
    """
    for key in SAME:
        if old.get(key) != new[key]:
            raise UsageError(
                f"The report was measured with {key} {old.get(key)}, this run with {new[key]}; give another --json."
            )
    if not (old.get("accuracy") and new["accuracy"]):
        return
    for key in SAME_ACCURACY:
        before, now = old["accuracy"].get(key), new["accuracy"][key]
        if before != now:
            raise UsageError(f"The report's accuracy is of {key} {before}, this run's of {now}; give another --json.")


def merged(old: Report, new: Report) -> Report:
    """`new` with the rows and parts of `old` that it has none of its own for; raises `UsageError` where they differ."""
    check_same(old, new)
    presets = {**old["presets"], **new["presets"]}
    for name in old["presets"].keys() & new["presets"].keys():
        presets[name] = _joined(old["presets"][name], new["presets"][name])
    accuracy = new["accuracy"] or old["accuracy"]
    if new["accuracy"] and old["accuracy"]:
        accuracy = _joined(old["accuracy"], new["accuracy"])
    return {**new, "presets": presets, "accuracy": accuracy}


def _joined(old: Report, new: Report) -> Report:
    """Two measurements of one part; what only the old one has, int8 say, stays with its rows."""
    return {**old, **new, "rows": _rows(old, new)}


def _rows(old: Report, new: Report) -> list[Report]:
    fresh = {row["name"]: row for row in new["rows"]}
    kept = [fresh.pop(row["name"], row) for row in old["rows"]]
    return kept + list(fresh.values())


def speed_table(preset: str, part: Report) -> Table:
    """The rows of a preset."""
    table = Table("engine", title=f"{preset}: {part['config']['gmacs']:g} GMACs", box=box.SIMPLE, title_justify="left")
    for title in ("ms", *STAGES, "times as fast", "goal", *PARITY_TITLES):
        table.add_column(title, justify="right")
    for row in part["rows"]:
        if "failure" in row:
            table.add_row(row["name"], f"❌ {row['failure']}")
            continue
        timing, parity = row["timing"], row["parity"]
        stages = [f"{timing['stages_ms'][stage]:.1f}" if timing["stages_ms"] else DASH for stage in STAGES]
        errors = [_small(parity[key]) for key in ("boxes", "scores", "embeddings")]
        table.add_row(
            *(row["name"], f"{timing['total_ms']:.1f}", *stages),
            *(_number(row.get("times_as_fast"), "×{:.2f}"), _goal(row, "×{:g}")),
            *(str(parity["people"]), f"{100 * parity['match_rate']:.0f} %", *errors),
            *(_number(parity["snr_db"], "{:.0f}"), _mark(row["parity_reached"]) if "parity_reached" in row else DASH),
        )
    return table


def algebra_line(part: Report) -> str:
    """What parity is, and what the graphs' algebra is off, in words."""
    errors = part["algebra"]
    limits = ", ".join(f"{name} {PARITY[key]:g}" for key, name in (("boxes", "px"), ("embeddings", "embedding")))
    return (
        f"parity of fp32 with the model in float64: at most {limits}. The graphs in float64 beside it: "
        f"boxes {errors['boxes']:.1e} px, scores {errors['scores']:.1e}, embeddings {errors['embeddings']:.1e}; "
        f"OpenCV's resizing in place of torch's: boxes {_small(part['resizing']['boxes'])} px"
    )


def int8_line(part: Report) -> str:
    """Which blocks int8 left in float, in words."""
    blocks = Counter(f"{one['graph']}: {one['reason']}" for one in part["int8"]["kept"])
    kept = [f"{reason} ({count} layer{'s' if count > 1 else ''})" for reason, count in blocks.items()]
    return f"int8 left in float: {'; '.join(kept) or 'nothing'}"


def accuracy_table(part: Report) -> Table:
    """The rows of the accuracy part."""
    title = f"{part['checkpoint']}: {part['frames']} gallery frames, {part['queries']} queries; points"
    table = Table("engine", title=title, box=box.SIMPLE, title_justify="left")
    ways = ("", " with CBGM")
    for heading in (*(f"{key}{way}" for way in ways for key in ("mAP", "lost", "top-1", "lost")), "goal"):
        table.add_column(heading, justify="right")
    for row in part["rows"]:
        if "failure" in row:
            table.add_row(row["name"], f"❌ {row['failure']}")
            continue
        cells = []
        for way in WAYS:
            lost = row.get("points_lost", {}).get(way, {})
            for key in ("mAP", "top1"):
                cells += [f"{100 * row['metrics'][way][key]:.2f}", _number(lost.get(key), "{:+.2f}")]
        goal = DASH
        if "goal" in row:
            limits = [
                f"{name} {row['goal'][key]:g}" for key, name in (("mAP", "mAP"), ("top1", "top-1")) if row["goal"][key]
            ]
            goal = f"{_mark(row['reached'])} {', '.join(limits)}"
        table.add_row(row["name"], *cells, goal)
    return table


def _goal(row: Report, form: str) -> str:
    return DASH if row.get("goal") is None else f"{_mark(row['reached'])} {form.format(row['goal'])}"


def _mark(reached: bool) -> str:
    return "✅" if reached else "❌"


def _small(value: float | None) -> str:
    return DASH if value is None else f"{value:.1e}"


def _number(value: float | None, form: str) -> str:
    return DASH if value is None else form.format(value)
