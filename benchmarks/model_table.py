"""The table of presets: what each is in the paper, what it costs, what it reaches.

`python -m psarm.benchmarks.model_table` writes it into docs/models.md again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psarm.benchmarks.notation import DASH
from psarm.benchmarks.script import run
from psarm.console import out
from psarm.errors import UsageError
from psarm.extras import require
from psarm.files import write_text
from psarm.presets import Figures, Preset, load_presets

if TYPE_CHECKING:
    from psarm.benchmarks.model_cost import Cost

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- the table of python -m psarm.benchmarks.model_table -->", "<!-- end of the table -->"
HEADINGS = (
    "preset",
    "row of the paper",
    "parameters (M)",
    "GMACs",
    "published mAP / top-1",
    "published recall / AP",
    "ours mAP / top-1",
)


@dataclass(frozen=True)
class ModelRow:
    """A preset and what its model costs."""

    preset: Preset
    cost: Cost

    def cells(self) -> list[str]:
        """The row under `HEADINGS`."""
        about = self.preset.about
        published, ours = about.published, about.measured
        return [
            self.preset.name,
            f"{about.paper}: {about.title}" if about.paper else f"none: {about.title}",
            f"{self.cost.parameters / 1e6:.1f}",
            f"{self.cost.macs.total / 1e9:.{0 if self.cost.macs.total > 1e11 else 1}f}",
            _pair(published.mAP, published.top1, DASH),
            _pair(published.recall, published.AP, DASH),
            _pair(ours.mAP, ours.top1, "not measured"),
        ]

    def to_dict(self) -> dict[str, Any]:
        """The row as plain values, figures in percent."""
        about, config = self.preset.about, self.preset.config
        return {
            "name": self.preset.name,
            "title": about.title,
            "paper": about.paper or None,
            "dataset": config.data.dataset,
            "variant": config.model.variant,
            "backbone": config.model.backbone,
            "parameters": self.cost.parameters,
            "macs": {**dataclasses.asdict(self.cost.macs), "total": self.cost.macs.total},
            "published": _known(about.published),
            "measured": _known(about.measured),
        }


def model_rows() -> list[ModelRow]:
    """Every preset with its cost, in the order of the paper."""
    from psarm.benchmarks.model_cost import model_cost

    return [ModelRow(preset, model_cost(preset.config.model)) for preset in load_presets()]


def markdown(rows: Sequence[ModelRow]) -> str:
    """The table as Markdown."""
    lines = [HEADINGS, ["---"] * 2 + ["---:"] * (len(HEADINGS) - 2)]
    lines += [[f"`{name}`", *rest] for name, *rest in (row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_table(document: str, rows: Sequence[ModelRow]) -> str:
    """`document` with the table between its two marks; ValueError where they are missing."""
    before, rest = document.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{markdown(rows)}\n{END}{after}"


def _pair(first: float | None, second: float | None, unknown: str) -> str:
    return unknown if first is None or second is None else f"{first:.1f} / {second:.1f}"


def _known(figures: Figures) -> dict[str, float]:
    return {name: value for name, value in dataclasses.asdict(figures).items() if value is not None}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("document", type=click.Path(path_type=Path, exists=True, dir_okay=False), default=DOCUMENT)
def main(document: Path) -> None:
    """Put the table of presets into DOCUMENT (docs/models.md) in place of the one there."""
    require("torch", "torchvision", "yaml", feature="Counting a model's cost", extra="train")
    rows = model_rows()
    try:
        text = with_table(document.read_text(encoding="utf-8"), rows)
    except ValueError as error:
        raise UsageError(f"{document} has no place for the table; it needs the lines {BEGIN} and {END}.") from error
    write_text(document, text)
    out.print(f"{document}: {len(rows)} presets", soft_wrap=True)


if __name__ == "__main__":
    run(main)
