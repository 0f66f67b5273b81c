"""Which layers suffer from int8: found by quantising one block at a time; the worst are left out until it is enough.

The noises of the blocks nearly add up, so the loudest of them alone is the loudest of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from psarm.console import track
from psarm.export.precision.layers import Layer
from psarm.export.precision.qdq import insert_pairs
from psarm.export.precision.ranges import Histogram
from psarm.export.precision.sections import Section, snr

TARGET = 20.0
"""dB that every signal must keep. With coarser and coarser grids, the shipped ResNet-18 lost 0.3 points of mAP where
the worst signal had 17 dB and 2 points where it had 12."""


@dataclass(frozen=True)
class Sensitive:
    """A block that stays in float32."""

    block: str
    signal: str
    """The signal that it disturbs most."""
    snr: float
    """That signal's ratio in dB with this block alone quantised."""


@dataclass(frozen=True)
class Choice:
    """Which layers of a section to quantise."""

    layers: list[Layer]
    sensitive: list[Sensitive]
    snr: dict[str, float]
    """Every signal's ratio in dB with all of `layers` quantised."""


def choose_layers(
    section: Section,
    layers: Sequence[Layer],
    histograms: Mapping[str, Histogram],
    target: float = TARGET,
    say: Callable[[str], None] = lambda message: None,
) -> Choice:
    """As many of `layers` as leave every signal of the section at least `target` dB.

    Where all of them do, nothing else is measured.
    """
    expected = section.answers(section.model)

    def ratios(chosen: Sequence[Layer]) -> dict[str, float]:
        return snr(expected, section.answers(insert_pairs(section.model, chosen, histograms)))

    chosen = list(layers)
    measured = ratios(chosen)
    if _all_reach(measured, target):
        return Choice(chosen, [], measured)
    say(f"{section.name}: {min(measured.values()):.1f} dB with all layers in int8; finding the sensitive ones…")
    ranking = _rank(section, layers, ratios)
    sensitive: list[Sensitive] = []
    while not _all_reach(measured, target) and ranking:
        sensitive.append(ranking.pop(0))
        chosen = [layer for layer in chosen if layer.block != sensitive[-1].block]
        measured = ratios(chosen)
    return Choice(chosen, sensitive, measured)


def _all_reach(ratios: Mapping[str, float], target: float) -> bool:
    """A ratio that is no number does not, wherever it stands."""
    return all(ratio >= target for ratio in ratios.values())


def _rank(
    section: Section, layers: Sequence[Layer], ratios: Callable[[Sequence[Layer]], dict[str, float]]
) -> list[Sensitive]:
    """All blocks, the most sensitive first."""
    blocks: dict[str, list[Layer]] = {}
    for layer in layers:
        blocks.setdefault(layer.block, []).append(layer)
    found = []
    for block, members in track(blocks.items(), f"sensitivity of the {section.name}", total=len(blocks)):
        alone = ratios(members)
        worst = min(alone, key=lambda signal: _sorted_first(alone[signal]))
        found.append(Sensitive(block, worst, alone[worst]))
    return sorted(found, key=lambda one: _sorted_first(one.snr))


def _sorted_first(ratio: float) -> float:
    """A ratio by which the worst come first, those that are no numbers before all."""
    return -math.inf if math.isnan(ratio) else ratio
