"""The parts of the graphs in which rounding is measured, each with what goes into it and what is looked at.

Which proposals the detect graph chooses may turn on the last digit, and boxes that changed places tell nothing about
rounding. So it is cut at RoIAlign: the map's part ends in the RPN's maps and the features, the head's part begins with
RoIs as float32 has them. Boxes are looked at as shifts from where they came, in sides, and scores as logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from psarm.errors import ExportError
from psarm.export.precision.session import Feed, Session

Signals = dict[str, NDArray[np.float64]]

_CHOICE = ("proposals", "counts", "image_sizes")
"""What the head's part takes beside the RoIs."""
_LOGITS = 12.0
"""Scores that round to 0 or 1 count as this far out."""


@dataclass(frozen=True, eq=False)
class Section:
    """A part of a graph and what goes into it, one feed a picture."""

    name: str
    """`map`, `head`, `refine` or `reid`."""
    model: onnx.ModelProto
    signals: Mapping[str, str]
    """What is looked at → the value of the graph that holds it."""
    feeds: Sequence[Feed]

    def answers(self, model: onnx.ModelProto) -> list[Signals]:
        """What is looked at, of `model`, this part or a quantised form of it, for every picture."""
        session = Session(model, list(self.signals.values()))
        answers = []
        for feed in self.feeds:
            values = session.run(feed)
            answers.append(_signals({signal: values[name] for signal, name in self.signals.items()}, feed))
        return answers


def inner_values(detect: onnx.ModelProto) -> tuple[str, ...]:
    """What `cut_detect` wants to know of a run of the detect graph."""
    return (_roi_align(detect).output[0], "proposals", "counts")


def cut_detect(detect: onnx.ModelProto, feeds: Sequence[Feed]) -> Iterator[Section]:
    """The map's and the head's part; `feeds` hold the inputs of the graph and its `inner_values`."""
    extractor = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(detect))
    align = _roi_align(detect)
    maps = {name: name for name in ("objectness", "deltas", "features")}
    if align.input[0] not in maps:
        maps["head_features"] = align.input[0]
    answers = {name: name for name in ("boxes", "scores")}
    yield Section("map", extractor.extract_model(["images"], list(maps.values())), maps, feeds)
    yield Section("head", extractor.extract_model([align.output[0], *_CHOICE], list(answers)), answers, feeds)


def snr(expected: Sequence[Signals], actual: Sequence[Signals]) -> dict[str, float]:
    """Signal-to-noise ratio of every signal in dB, over all pictures."""
    ratios = {}
    for name in expected[0]:
        power = sum(np.square(one[name]).sum() for one in expected)
        noise = sum(np.square(one[name] - other[name]).sum() for one, other in zip(expected, actual, strict=True))
        ratios[name] = float(10 * np.log10(max(power, 1e-30) / max(noise, 1e-30)))
    return ratios


def _signals(values: Feed, feed: Feed) -> Signals:
    """Boxes [...,4] → shifts in sides, scores → logits; both of the head's real rows alone."""
    signals: Signals = {name: value.astype(np.float64) for name, value in values.items()}
    if "scores" in signals:
        real = np.arange(signals["scores"].shape[1]) < feed["counts"][:, None]  # [N,P]
        scores = signals["scores"][real]
        with np.errstate(divide="ignore"):
            signals["scores"] = (np.log(scores) - np.log1p(-scores)).clip(-_LOGITS, _LOGITS)
        signals["boxes"] = _shifts(signals["boxes"][real], feed["proposals"][real])
    if "refined_boxes" in signals:
        signals["refined_boxes"] = _shifts(signals["refined_boxes"], feed["boxes"])
    return signals


def _shifts(boxes: NDArray[np.float64], origins: NDArray[np.float64]) -> NDArray[np.float64]:
    sides = np.maximum(origins[:, 2:] - origins[:, :2], 1.0)
    shifts: NDArray[np.float64] = (boxes - origins) / np.tile(sides, 2)
    return shifts


def _roi_align(detect: onnx.ModelProto) -> onnx.NodeProto:
    found: list[onnx.NodeProto] = [node for node in detect.graph.node if node.op_type == "RoiAlign"]
    if len(found) != 1:
        raise ExportError(f"The detect graph has {len(found)} RoiAlign; int8 needs one: quantise the graphs as traced.")
    return found[0]
