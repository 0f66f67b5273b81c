"""The fp16 graphs, run once by ONNX Runtime on the CPU beside those in fp32 of the same form.

That they load, that everything they give is a number, and that it is near fp32's. Which proposals a detect graph
chooses may turn on a rounding, so of its answers only the features are compared.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from psarm.errors import ExportError
from psarm.export.precision.drift import decibels
from psarm.export.precision.session import Feed, Session, Tensors
from psarm.export.verify import SEED
from psarm.export.verify_inputs import batch_cases, border_boxes

LEAST = 20.0
"""Decibels; graphs in order have more than 50."""
COMPARED = ("features", "refined_boxes", "embeddings")

Models = Mapping[str, onnx.ModelProto]


def verify_half(exact: Models, half: Models, form: str = "") -> None:
    """The graphs `half` beside those `exact` of the same names, `detect` among them; `form` is said before a name.

    Raises `ExportError` for a graph that does not run, or gives something else.
    """
    rng = np.random.default_rng(SEED)
    case = batch_cases(rng)[0]
    feed: Feed = {"images": case.images.numpy(), "image_sizes": np.asarray(case.sizes, np.int64)}
    features = _compare(exact["detect"], half["detect"], feed, f"{form}detect")["features"]
    boxes = border_boxes(case.sizes[0], (case.images.shape[2], case.images.shape[3]), rng).numpy()
    heads: Feed = {"features": features, "boxes": boxes, "batch_indices": np.zeros(len(boxes), np.int64)}
    for name in half.keys() - {"detect"}:
        _compare(exact[name], half[name], heads, form + name)


def _compare(exact: onnx.ModelProto, half: onnx.ModelProto, feed: Feed, name: str) -> Tensors:
    """What the fp32 graph gives."""
    outputs = [value.name for value in exact.graph.output]
    expected = Session(exact, outputs).run(feed)
    actual = Session(half, outputs).run(_typed(half, feed))
    for output, values in actual.items():
        if not np.isfinite(values).all():
            raise _error(name, f"{output} holds values that are no numbers")
        ratio = decibels([(expected[output], values)]) if output in COMPARED else None
        if ratio is not None and ratio < LEAST:
            raise _error(name, f"{output} keeps {ratio:.1f} dB of fp32's, less than {LEAST:g}")
    return expected


def _typed(model: onnx.ModelProto, feed: Feed) -> Feed:
    """The feed in the types that the graph takes."""
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    return {
        name: feed[name].astype(onnx.helper.tensor_dtype_to_np_dtype(kind), copy=False) for name, kind in kinds.items()
    }


def _error(name: str, what: str) -> ExportError:
    return ExportError(f"The fp16 form of {name} leaves half's range or precision: {what}; export without fp16.")
