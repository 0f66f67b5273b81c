"""The figures that the paper and SeqNet's authors published, and which of them a checkpoint stands beside.

Only figures that are printed as numbers: what exists as a plot alone (Fig. 5, Fig. 8) is quoted nowhere.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from psarm.config import ModelConfig
from psarm.presets import Figures, Preset, load_presets

PAPER = "PS-ARM (Fiaz et al., ACCV 2022)"
TEST_SETS = {"prw": ("PRW", 6112, 2057), "cuhk-sysu": ("CUHK-SYSU", 6978, 2900)}
"""Name, gallery frames and queries of the test sets that published figures are of."""
CONTEXT_NOTE = (
    "SeqNet's published figures were measured with context matching (CBGM; without it, its authors give "
    "46.7 / 83.4 on PRW and 93.8 / 94.6 on CUHK-SYSU), and the released PS-ARM has it switched on. "
    "The plots here show search with CBGM, the tables both."
)


@dataclass(frozen=True)
class PublishedSpeed:
    """A published point of accuracy against speed."""

    title: str
    mAP: float
    """Percent."""
    fps: float
    gpu: str
    source: str


SPEEDS = {
    "prw": [PublishedSpeed("SeqNet", 47.6, 11.5, "V100", "SeqNet (Li and Miao, AAAI 2021)")],
    "cuhk-sysu": [PublishedSpeed("SeqNet", 94.8, 11.5, "V100", "SeqNet (Li and Miao, AAAI 2021)")],
}
"""The paper plots speeds (Fig. 1) and prints none; SeqNet's authors give theirs."""


@dataclass(frozen=True)
class PublishedRow:
    """One row of the paper on one data set."""

    preset: str
    title: str
    source: str
    """`Tables 1 and 2`."""
    figures: Figures
    model: ModelConfig
    """What was trained."""

    def differences(self, model: ModelConfig) -> list[str]:
        """In what a model of the same variant is not the published one: `resnet18, not resnet50`, …"""
        ours, theirs = _described(model), _described(self.model)
        return [f"{ours[key]}, not {theirs[key]}" for key in ours if ours[key] != theirs[key]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, figures in percent."""
        figures = {name: value for name, value in asdict(self.figures).items() if value is not None}
        return {"preset": self.preset, "title": self.title, "source": f"{self.source} of {PAPER}", "figures": figures}


def title_of(dataset: str) -> str:
    """The name of a data set as people write it."""
    return TEST_SETS[dataset][0] if dataset in TEST_SETS else dataset


def published_rows(dataset: str) -> list[PublishedRow]:
    """The rows of the paper on a data set, in its order."""
    return [_row(preset) for preset in load_presets() if _has_figures(preset) and preset.config.data.dataset == dataset]


def untimed(dataset: str) -> dict[str, float]:
    """What the paper's own network reaches on a data set, mAP in percent: it prints no speed of it."""
    found = [row.figures.mAP for row in published_rows(dataset) if row.model.variant == "psarm"]
    return {"PS-ARM": found[0]} if found and found[0] is not None else {}


def matching_row(model: ModelConfig, rows: list[PublishedRow]) -> PublishedRow | None:
    """The row of the same variant with RoIs of the same shape (its height over its width), if there is one."""
    found = [row for row in rows if row.model.variant == model.variant and _aspect(row.model) == _aspect(model)]
    return found[0] if found else None


def not_comparable(dataset: str, frames_here: int, queries_here: int) -> str:
    """Why figures measured here do not compare with published ones; empty where the data set is as large as theirs."""
    if dataset not in TEST_SETS:
        return f"Nothing is published on {dataset}."
    name, frames, queries = TEST_SETS[dataset]
    if (frames_here, queries_here) == (frames, queries):
        return ""
    return (
        f"The published figures are of {name}'s test set, {frames:,} gallery frames and {queries:,} queries. "
        f"What was searched here has {frames_here:,} frames and {queries_here:,} queries: the figures do not compare."
    )


def _has_figures(preset: Preset) -> bool:
    return bool(preset.about.paper) and preset.about.published.mAP is not None


def _row(preset: Preset) -> PublishedRow:
    about = preset.about
    source = about.paper[0].upper() + about.paper[1:]
    return PublishedRow(preset.name, about.title, source, about.published, preset.config.model)


def _aspect(model: ModelConfig) -> float:
    height, width = model.roi_shape
    return height / width


def _described(model: ModelConfig) -> dict[str, str]:
    height, width = model.roi_shape
    return {
        "backbone": model.backbone,
        "width": f"width {model.width:g}",
        "size": f"{model.min_size}–{model.max_size} px",
        "rois": f"RoIs of {height}x{width}",
    }
