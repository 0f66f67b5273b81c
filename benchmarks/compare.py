"""Two reports of `psarm bench`, row by row: what became slower, larger or less accurate, by ratio."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from psarm.benchmarks.notation import percent
from psarm.benchmarks.workloads import row_name
from psarm.console import print_whole
from psarm.data.json_file import as_number, json_kind, read_json_object
from psarm.errors import DataError, UsageError

Report = dict[str, Any]
Key = tuple[str, str, int, int | None, str | None]  # engine, precision, batch, people, size
MEASURES: dict[str, tuple[tuple[str, ...], bool]] = {
    "ms an image": (("timing", "total_ms"), True),
    "ms a call, p95": (("timing", "p95_ms"), True),
    "cold start, ms": (("fresh_process", "cold_start_ms"), True),
    "memory, MB": (("fresh_process", "memory_bytes"), True),
    "GPU memory, MB": (("fresh_process", "gpu_memory_bytes"), True),
    "mAP, %": (("metrics", "search", "mAP"), False),
    "top-1, %": (("metrics", "search", "top1"), False),
    "detection AP, %": (("metrics", "detection", "ap"), False),
}
"""Name → where a row has it, and whether more of it is worse."""
UNSETTLED = ("timing", "unsettled")
SAME_MACHINE = ("system", "cpu", "cores", "threads", "memory_bytes", "gpus")
SAME_DATA = ("name", "gallery_frames", "queries", "image_sizes", "default_gallery", "drawn")


@dataclass(frozen=True)
class Change:
    """One measure of one row."""

    row: str
    measure: str
    old: float
    new: float
    worse: float
    """How many times as bad the new one is; below 1: better."""


@dataclass(frozen=True)
class Comparison:
    """What two reports have in common and how they differ."""

    differences: list[str]
    """What makes ratios say something else than how psarm changed: another machine, other data, unsettled times."""
    changes: list[Change]
    broken: list[str]
    """Rows that ran in the old report and fail in the new one, with the reason."""
    unmatched: list[str]
    """Rows that only one of the reports has."""

    def regressions(self, threshold: float) -> list[Change]:
        """Changes for the worse by more than `threshold` times."""
        return [change for change in self.changes if change.worse > threshold]


def read_report(path: Path) -> Report:
    """A file that `psarm bench BUNDLE --json` wrote; raises `DataError` for anything else."""
    content = read_json_object(path, "a file of psarm bench BUNDLE --json")
    keys = ("schema", "rows", "machine", "threads", "dataset")
    if any(key not in content for key in keys):
        raise DataError(f"{path} is no report of psarm bench BUNDLE --json: it lacks one of {', '.join(keys)}.")
    for key, kind in (("rows", list), ("machine", dict), ("dataset", dict)):
        if not isinstance(content[key], kind):
            raise _damaged(path, f"{key} is a JSON {json_kind(content[key])}")
    for number, row in enumerate(content["rows"]):
        if flaw := _flaw(row):
            raise _damaged(path, f"rows[{number}] {flaw}")
    return content


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path} is a damaged report of psarm bench BUNDLE --json: {what}; write it anew.")


def _flaw(row: Any) -> str:
    """What of a row cannot be compared; empty for one as `psarm bench` writes it."""
    if not isinstance(row, dict):
        return f"is a JSON {json_kind(row)}"
    for key in ("name", "precision", "failure"):
        if not isinstance(row.get(key), str):
            return f"has no text {key}"
    work = row.get("workload", {})
    kinds = (("batch", 1, int), ("people", None, int | None), ("size", None, str | None))
    if not isinstance(work, dict) or not all(isinstance(work.get(key, usual), kind) for key, usual, kind in kinds):
        return "has a workload that is no batch, people and size"
    for path, _ in MEASURES.values():
        *groups, value = _along(row, path)
        if not all(isinstance(group, dict) for group in groups) or (value is not None and as_number(value) is None):
            return f"has no number or null as {'.'.join(path)}"
    return ""


def _along(row: Report, path: tuple[str, ...]) -> list[Any]:
    """What a row holds at each step of `path`; what is absent or null holds nothing further on."""
    found: list[Any] = [row]
    for key in path:
        inner = found[-1].get(key) if isinstance(found[-1], dict) else None
        found.append({} if inner is None and len(found) < len(path) else inner)
    return found


def compare_reports(old: Report, new: Report) -> Comparison:
    """Match rows by engine, precision, batch, people and size; raises `UsageError` where none match."""
    before, after = ({_key(row): row for row in report["rows"]} for report in (old, new))
    matched = [key for key in before if key in after]
    if not matched:
        raise UsageError("The two reports have no row in common: engine, precision, batch, people and size must match.")
    changes, broken = [], []
    for key in matched:
        if after[key]["failure"] and not before[key]["failure"]:
            broken.append(f"{row_name(*key)}: {after[key]['failure']}")
        for measure, (path, more_is_worse) in MEASURES.items():
            was, now = _value(before[key], path), _value(after[key], path)
            if not was or now is None or (now == 0 and more_is_worse):
                continue
            worse = now / was if more_is_worse else was / now if now else float("inf")
            changes.append(Change(row_name(*key), measure, was, now, worse))
    unmatched = [f"{row_name(*key)}: only in the old report" for key in before if key not in after]
    unmatched += [f"{row_name(*key)}: only in the new report" for key in after if key not in before]
    differences = [*_differences(old, new), *_unsettled("old", before), *_unsettled("new", after)]
    return Comparison(differences, changes, broken, unmatched)


def print_comparison(comparison: Comparison, threshold: float, console: Console) -> None:
    """Print every measure that both have, regressions marked, and what the ratios do not tell."""
    for line in comparison.differences:
        console.print(f"⚠ {line}", markup=False, soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for title in ("row", "measure"):
        table.add_column(title, overflow="fold")
    for title in ("old", "new", "ratio", ""):
        table.add_column(title, justify="right", no_wrap=True)
    for change in comparison.changes:
        mark = "❌" if change.worse > threshold else ""
        ratio = f"×{change.new / change.old:.2f}"
        table.add_row(
            Text(change.row),
            change.measure,
            _text(change.measure, change.old),
            _text(change.measure, change.new),
            ratio,
            mark,
        )
    print_whole(table, console)
    for line in [*(f"❌ {row}" for row in comparison.broken), *comparison.unmatched]:
        console.print(line, markup=False, soft_wrap=True)


def _differences(old: Report, new: Report) -> list[str]:
    parts = {
        "machine": (SAME_MACHINE, old["machine"], new["machine"]),
        "data": (SAME_DATA, old["dataset"], new["dataset"]),
        "run": (("threads",), old, new),
    }
    found = []
    for name, (keys, before, after) in parts.items():
        other = [
            f"{key} {before.get(key)} → {after.get(key)}"
            for key in keys
            if key in before and key in after and before[key] != after[key]
        ]
        if other:
            found.append(f"Another {name}, so that ratios do not tell how psarm changed: {'; '.join(other)}.")
    return found


def _unsettled(name: str, rows: dict[Key, Report]) -> list[str]:
    found = [f"{row_name(*key)} ({why})" for key, row in rows.items() if (why := _along(row, UNSETTLED)[-1])]
    return [f"Unsettled times in the {name} report: {'; '.join(found)}."] if found else []


def _key(row: Report) -> Key:
    """Reports of schema 1 have no workloads: frame by frame, as found."""
    work = row.get("workload", {})
    return row["name"], row["precision"], work.get("batch", 1), work.get("people"), work.get("size")


def _value(row: Report, path: tuple[str, ...]) -> float | None:
    value = _along(row, path)[-1]
    return None if value is None else float(value)


def _text(measure: str, value: float) -> str:
    """As the tables of `psarm bench` have it: fractions in percent, bytes in MB, milliseconds as they are."""
    if measure.endswith("%"):
        return percent(value)
    return f"{value / 1e6:.0f}" if measure.endswith("MB") else f"{value:.1f}"
