"""Tables of a Markdown file, made from the committed results they name.

    python -m psarm.benchmarks.readme_table README.md           write them
    python -m psarm.benchmarks.readme_table README.md --check   fail where one is not what its results say

A table stands between two comments; the first names a report of `psarm bench --json`, of
`psarm.benchmarks.deployment_goals` or of `psarm.benchmarks.gallery_scale`, from the repository's root::

    <!-- bench: benchmarks/results/demo.json -->
    <!-- end of bench -->

    <!-- goals: benchmarks/results/deployment_goals.json -->
    <!-- end of goals -->

    <!-- goals_accuracy: benchmarks/results/deployment_goals.json -->
    <!-- end of goals_accuracy -->

    <!-- gallery: benchmarks/results/gallery_scale.json -->
    <!-- end of gallery -->

    <!-- gallery_costs: benchmarks/results/gallery_scale.json -->
    <!-- end of gallery_costs -->
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import click

from psarm.benchmarks.baselines import HISTOGRAM, UNTRAINED
from psarm.benchmarks.compare import Report, read_report
from psarm.benchmarks.gallery_markdown import costs_table, growth_table
from psarm.benchmarks.goals_contenders import YARDSTICK
from psarm.benchmarks.report import PYTORCH
from psarm.benchmarks.script import run
from psarm.benchmarks.workloads import row_name
from psarm.console import err
from psarm.data.json_file import read_json_object
from psarm.errors import DataError
from psarm.files import write_text
from psarm.runtime.timing import STAGES

ROOT = Path(__file__).resolve().parents[1]
MARKED = re.compile(
    r"(<!-- (bench|goals|goals_accuracy|gallery|gallery_costs): (\S+) -->\n).*?(<!-- end of \2 -->)", re.DOTALL
)
NAMES = {
    PYTORCH: "PyTorch, eager",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tensorrt": "TensorRT",
    "torch": "torch",
    HISTOGRAM: "colour histograms of the same boxes",
    UNTRAINED: "the network untrained",
}
LITERAL = "the released form, PyTorch eager"
ACCURACY = ("mAP", "top-1", "mAP, CBGM", "top-1, CBGM")
STAGE_TITLES = {"preprocess": "preprocess", "detect": "detect", "nms": "NMS", "reid": "re-id", "post": "post"}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--check", is_flag=True, help="Write nothing; fail where a table is not what its results say.")
def main(file: Path, check: bool) -> None:
    """Write the benchmark tables of a Markdown FILE from the results they name."""
    text = file.read_text(encoding="utf-8")
    made = with_tables(text, ROOT)
    if made == text:
        err.print(f"{file}: every table is what its results say.", soft_wrap=True)
    elif check:
        raise DataError(
            f"{file} has a table that is not what its results say; write it with: python -m {__spec__.name} {file}."
        )
    else:
        write_text(file, made)
        err.print(f"{file} is written.", soft_wrap=True)


def with_tables(text: str, root: Path) -> str:
    """`text` with every marked table made anew; raises `DataError` where there is none, or a report cannot be read."""
    if not MARKED.search(text):
        raise DataError(
            "No table is marked: needed <!-- bench: RESULTS.json -->, and <!-- end of bench --> below it; or goals, "
            "goals_accuracy, gallery or gallery_costs in place of bench."
        )
    makers: dict[str, Callable[[Path], str]] = {
        "bench": lambda path: markdown_table(read_report(path)),
        "goals": lambda path: goals_table(_goals(path)),
        "goals_accuracy": lambda path: goals_accuracy_table(_goals(path)),
        "gallery": lambda path: growth_table(_scale(path)),
        "gallery_costs": lambda path: costs_table(_scale(path)),
    }
    return MARKED.sub(lambda found: f"{found[1]}{makers[found[2]](root / found[3])}{found[4]}", text)


def markdown_table(report: Report) -> str:
    """The rows of a report that ran; columns that none of them has are left out."""
    rows = [row for row in report["rows"] if not row["failure"]]
    columns = {title: cells for title, cell in _columns().items() if any(cells := [cell(row) for row in rows])}
    lines = [f"| engine | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    several = len({row["name"] for row in rows}) < len(rows)
    for number, row in enumerate(rows):
        shown = "".join(f" {cells[number]} |".replace("  ", " ") for cells in columns.values())
        lines.append(f"| {_name(row, several)} |{shown}")
    return "\n".join(lines) + "\n"


def goals_table(report: Report) -> str:
    """How fast the engines of a report of the deployment goals ran the released model, beside the yardstick."""
    rows = report["presets"]["released"]["rows"]
    literal = next(row["timing"]["total_ms"] for row in rows if row["name"] == YARDSTICK)
    lines = ["| engine | ms a frame | times as fast |", "| --- | ---: | ---: |"]
    for row in rows:
        milliseconds = row["timing"]["total_ms"]
        name = LITERAL if row["name"] == YARDSTICK else NAMES[row["backend"]]
        ratio = "1" if row["name"] == YARDSTICK else f"{literal / milliseconds:.2f}"
        lines.append(f"| {name}, {row['precision']} | {milliseconds:.0f} | {ratio} |")
    return "\n".join(lines) + "\n"


def goals_accuracy_table(report: Report) -> str:
    """What each engine and precision of a report of the deployment goals found, in percent."""
    columns = {title: cell for title, cell in _columns().items() if title in ACCURACY}
    lines = [f"| engine | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for row in report["accuracy"]["rows"]:
        backend, _, precision = row["name"].partition("-")
        name = f"{NAMES[backend]}, {precision}" if precision else row["name"].replace(YARDSTICK, f"{LITERAL}, fp32")
        lines.append(f"| {name} | {' | '.join(cell(row) for cell in columns.values())} |")
    return "\n".join(lines) + "\n"


def _goals(path: Path) -> Report:
    return read_json_object(path, "a report of psarm.benchmarks.deployment_goals")


def _scale(path: Path) -> Report:
    return read_json_object(path, "a report of psarm.benchmarks.gallery_scale")


def _columns() -> dict[str, Callable[[Report], str]]:
    """Title → a row's cell, empty where it has none."""
    metrics = {
        "mAP": ("search", "mAP"),
        "top-1": ("search", "top1"),
        "mAP, CBGM": ("search_cbgm", "mAP"),
        "top-1, CBGM": ("search_cbgm", "top1"),
        "detection AP": ("detection", "ap"),
        "recall": ("detection", "recall"),
    }
    columns: dict[str, Callable[[Report], str]] = {title: _percent(*place) for title, place in metrics.items()}
    columns |= {STAGE_TITLES[stage]: _stage(stage) for stage in STAGES}
    columns["total"] = _timing("total_ms")
    columns["frames/s"] = _timing("fps")
    columns["speed"] = lambda row: "1" if row["name"] == PYTORCH else _form(row.get("speed_up"), "×{:.2f}")
    return columns


def _name(row: Report, several: bool) -> str:
    """The engine; its precision and workload where engines have several rows."""
    name = str(NAMES.get(row["name"], row["name"]))
    if not several:
        return name
    work = row.get("workload", {})
    return row_name(name, row["precision"], work.get("batch", 1), work.get("people"), work.get("size"))


def _percent(group: str, name: str) -> Callable[[Report], str]:
    def cell(row: Report) -> str:
        value = row["metrics"].get(group, {}).get(name)
        return _form(None if value is None else 100 * value, "{:.1f}")

    return cell


def _stage(stage: str) -> Callable[[Report], str]:
    return lambda row: _form(((row["timing"] or {}).get("stages_ms") or {}).get(stage), "{:.1f}")


def _timing(key: str) -> Callable[[Report], str]:
    return lambda row: _form((row["timing"] or {}).get(key), "{:.1f}")


def _form(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


if __name__ == "__main__":
    run(main)
