"""What values activations take: histograms over pictures, and the scale that rounds them with the least error.

A histogram's bins are the floats' own first bits: sign apart, the exponent and six bits of the fraction. They need no
range in advance, so that one pass over the pictures is enough, and are 1.6 % wide at most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from psarm.export.precision.session import Feed, Session, Tensors

_SHIFT = 17  # of a float32's 23 bits of fraction, those that are dropped
_BINS = 0x7F800000 >> _SHIFT  # infinity's bin and those of nan are behind
_CENTRES = ((np.arange(_BINS, dtype=np.uint32) << _SHIFT) + (1 << (_SHIFT - 1))).view(np.float32).astype(np.float64)
_STEP = 11
"""Every how manieth value is counted. Sides of RoIs and maps and their cells are multiples of 2, 3, 5 and 7: of such a
step some columns would never be counted."""
_LIMITS = np.linspace(0.1, 1, 91)
"""Shares of the largest value that are tried as the largest one represented."""


class Histogram:
    """How often an activation took each magnitude, and whether it was ever negative."""

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(_BINS, np.int64)
        self.negative = False

    def add(self, values: NDArray[np.float32]) -> None:
        """Count some values."""
        magnitudes = np.abs(values).ravel().view(np.uint32) >> _SHIFT
        self.counts += np.bincount(magnitudes, minlength=_BINS)
        self.negative = self.negative or bool((values < 0).any())

    def limit(self, levels: int) -> float:
        """The magnitude that the last of `levels` steps should stand for: least squared error, clipping included."""
        used = np.flatnonzero(self.counts)
        used = used[_CENTRES[used] > np.finfo(np.float32).tiny]
        if len(used) == 0:
            return 1.0
        values, counts = _CENTRES[used], self.counts[used]
        limits = values[-1] * _LIMITS
        steps = limits / levels
        beyond = np.maximum(values - limits[:, None], 0)  # [limits, values]
        errors = np.where(beyond > 0, beyond**2, np.minimum(steps[:, None] ** 2 / 12, values**2))
        return float(limits[(errors @ counts).argmin()])


class Observer:
    """Runs a graph for its `outputs`, and keeps histograms of the activations `names`, inputs among them."""

    def __init__(self, model: onnx.ModelProto, names: Sequence[str], outputs: Sequence[str]) -> None:
        inputs = {value.name for value in model.graph.input}
        inner = [name for name in names if name not in inputs]
        self._session = Session(_with_samples(model, inner), [*outputs, *map(_sample, inner)])
        self.histograms = {name: Histogram() for name in names}

    def run(self, feed: Feed) -> Tensors:
        """The outputs; every histogram counts this run."""
        values = self._session.run(feed)
        for name, histogram in self.histograms.items():
            histogram.add(feed[name].ravel()[::_STEP] if name in feed else values.pop(_sample(name)))
        return values


def _with_samples(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The graph with every `_STEP`-th value of some activations, which whole would fill the memory.

    Of what pooling leaves of a map nothing is skipped: it is little.
    """
    pooled = {node.output[0] for node in model.graph.node if node.op_type == "ReduceMax"}
    sampled = onnx.ModelProto()
    sampled.CopyFrom(model)
    graph = sampled.graph
    constants = {"flat": [-1], "start": [0], "end": [np.iinfo(np.int64).max], "axis": [0], "step": [_STEP], "each": [1]}
    for key, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.int64), f"sampling.{key}"))
    for name in names:
        step = "each" if name in pooled else "step"
        slicing = [f"sampling.{key}" for key in ("start", "end", "axis", step)]
        graph.node.append(helper.make_node("Reshape", [name, "sampling.flat"], [f"{name}.flat"]))
        graph.node.append(helper.make_node("Slice", [f"{name}.flat", *slicing], [_sample(name)]))
    return sampled


def _sample(name: str) -> str:
    return f"{name}.sample"
