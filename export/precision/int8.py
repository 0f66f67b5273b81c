"""INT8: the float32 graphs with explicit QuantizeLinear/DequantizeLinear pairs, calibrated on pictures.

calibration = read_calibration(folder, preprocessing)
quantised = quantise({"detect": …, "reid": …}, calibration, thresholds)
quantised.models["detect"]  # float32 inputs and outputs under the same names
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from psarm.console import track
from psarm.errors import ExportError
from psarm.export.precision.calibration import Calibration
from psarm.export.precision.layers import Layer, find_layers
from psarm.export.precision.qdq import insert_pairs, rounded_activations
from psarm.export.precision.ranges import Observer
from psarm.export.precision.sections import Section, cut_detect, inner_values
from psarm.export.precision.sensitivity import TARGET, Choice, choose_layers
from psarm.export.precision.session import Feed
from psarm.runtime import postprocess
from psarm.runtime.manifest import GRAPH_OUTPUTS, Thresholds

MEASURED_FRAMES = 4
"""Calibration pictures that rounding is measured on."""
PEOPLE = 8
"""Boxes a picture that the graphs after detect are calibrated on at least."""


@dataclass(frozen=True)
class KeptLayer:
    """A layer that stays in float32 and what quantising it would cost."""

    graph: str
    layer: str
    """The node's name in the graph."""
    reason: str
    """In words: `head.trunk.res5.0 alone leaves scores 18.2 dB`."""
    snr: float
    """That ratio."""


@dataclass(frozen=True)
class Quantised:
    """The graphs in int8 and what is to be said about them."""

    models: dict[str, onnx.ModelProto]
    layers: dict[str, int]
    """Graph → number of its convolutions and matrix products in int8."""
    kept: list[KeptLayer]
    """Convolutions and matrix products that stay in float32."""
    snr: dict[str, float]
    """`map.features`, `head.scores`, `reid.embeddings`, … → signal-to-noise ratio in dB on calibration pictures."""
    source: str
    """What they were calibrated on, for people."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the graphs."""
        return {
            "calibration": self.source,
            "layers": self.layers,
            "kept": [asdict(layer) for layer in self.kept],
            "snr": self.snr,
        }


def quantise(
    models: Mapping[str, onnx.ModelProto],
    calibration: Calibration,
    thresholds: Thresholds,
    say: Callable[[str], None] = lambda message: None,
    target: float = TARGET,
) -> Quantised:
    """The float32 graphs `detect`, `refine` where there is one, and `reid`, in int8.

    `thresholds` are the bundle's: the heads are calibrated on the people that the detect graph finds. Blocks of layers
    stay in float32 until every signal has `target` dB. `say` gets a line before each step. Raises `ExportError` where a
    graph cannot be quantised.
    """
    layers = {name: find_layers(model) for name, model in models.items()}
    say(f"calibrating int8 on {calibration.source}…")
    observers = {
        name: Observer(model, rounded_activations(model, layers[name]), _wanted(name, model))
        for name, model in models.items()
    }
    sections = _sections(models, _run(models, observers, calibration, thresholds))
    result = Quantised({}, {}, [], {}, calibration.source)
    for name, model in models.items():
        chosen: list[Layer] = []
        histograms = observers[name].histograms
        for section in sections[name]:
            present = {node.name for node in section.model.graph.node}
            inside = [layer for layer in layers[name] if layer.node in present]
            choice = choose_layers(section, inside, histograms, target, say)
            chosen += choice.layers
            result.snr.update({f"{section.name}.{signal}": ratio for signal, ratio in choice.snr.items()})
            result.kept.extend(_kept(name, inside, choice))
        result.models[name] = insert_pairs(model, chosen, histograms)
        result.layers[name] = len(chosen)
    return result


def _run(
    models: Mapping[str, onnx.ModelProto],
    observers: Mapping[str, Observer],
    calibration: Calibration,
    thresholds: Thresholds,
) -> dict[str, list[Feed]]:
    """Run every picture through the float32 graphs; what goes into each graph, of the pictures to measure on."""
    every = max(1, len(calibration) // MEASURED_FRAMES)
    feeds: dict[str, list[Feed]] = {name: [] for name in models}
    for number, batch in enumerate(track(calibration, "calibrating", total=len(calibration))):
        feed: dict[str, NDArray[Any]] = {"images": batch.images, "image_sizes": batch.image_sizes}
        values = observers["detect"].run(feed)
        used: dict[str, Feed] = {"detect": {**feed, **{name: values[name] for name in inner_values(models["detect"])}}}
        boxes = _people(values, thresholds)
        for name in models:
            if name == "detect" or len(boxes) == 0:
                continue
            indices = np.zeros(len(boxes), np.int64)
            used[name] = {"features": values["features"], "boxes": boxes, "batch_indices": indices}
            refined = observers[name].run(used[name])["refined_boxes"]
            height, width = batch.image_sizes[0]
            boxes = postprocess.clip_boxes(refined, int(height), int(width))
        if number % every == 0 and len(feeds["detect"]) < MEASURED_FRAMES:
            for name, one in used.items():
                feeds[name].append(one)
    if not feeds["reid"]:
        raise ExportError(
            "The detect graph proposes nothing on the calibration pictures; calibrate on pictures of the scenes that "
            "the model was trained for."
        )
    return feeds


def _wanted(name: str, model: onnx.ModelProto) -> list[str]:
    """What has to be known of a run of a float32 graph."""
    outputs = [value.name for value in model.graph.output]
    return outputs if name != "detect" else [*outputs, *(one for one in inner_values(model) if one not in outputs)]


def _people(values: Mapping[str, NDArray[Any]], thresholds: Thresholds) -> NDArray[np.float32]:
    """Boxes [n,4] that the graphs after detect see: everybody found, and, up to a few, whom it takes for background."""
    count = int(values["counts"][0])
    boxes, scores = values["boxes"][0, :count], values["scores"][0, :count]
    rows = postprocess.select_proposals(boxes, scores, dataclasses.replace(thresholds, score=0.0))
    rows = rows[: max(PEOPLE, int((scores[rows] > thresholds.score).sum()))]
    return np.asarray(values.get("regions", values["boxes"])[0, rows], np.float32)


def _sections(models: Mapping[str, onnx.ModelProto], feeds: Mapping[str, list[Feed]]) -> dict[str, list[Section]]:
    """Graph → where rounding in it is measured."""
    signals = {name: {one: one for one in GRAPH_OUTPUTS[name]} for name in models}
    heads = {name: [Section(name, models[name], signals[name], feeds[name])] for name in models if name != "detect"}
    return {"detect": list(cut_detect(models["detect"], feeds["detect"])), **heads}


def _kept(graph: str, layers: Sequence[Layer], choice: Choice) -> Iterator[KeptLayer]:
    blocks = {one.block: one for one in choice.sensitive}
    for layer in layers:
        if layer.block in blocks:
            one = blocks[layer.block]
            yield KeptLayer(graph, layer.name, f"{one.block} alone leaves {one.signal} {one.snr:.1f} dB", one.snr)
