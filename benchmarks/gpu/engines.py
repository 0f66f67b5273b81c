"""Whole engines: a frame in host memory to `Detections`, and what 16 bits cost on people that a trained model knows.

n people of one frame. Frames are uint8 [H,W,3] BGR.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from psarm.data.scenes import to_tensor
from psarm.export.bundle_files import BundleFiles
from psarm.export.manifest_of import manifest_of
from psarm.export.torch_backend import MODE
from psarm.export.tracing import TracedGraph
from psarm.model import PersonSearchModel
from psarm.runtime import Bundle, PersonSearch
from psarm.runtime.manifest import GraphSpec, TensorSpec


def torch_bundle(model: PersonSearchModel, folder: Path) -> Bundle:
    """A bundle with no ONNX graphs, for the torch backend alone: nothing has to be traced."""
    files = BundleFiles(folder, simplify=False)
    files.write_weights(model, None)
    files.precisions = {"fp32": {name: f"{name}.onnx" for name in ("detect", "reid")}}
    for name in ("detect", "reid"):  # the manifest wants them, the torch backend does not
        (folder / f"{name}.onnx").write_bytes(b"")
    graphs = [TracedGraph(name, ModelProto(), spec) for name, spec in _specs(model).items()]
    return Bundle(folder, manifest_of(model, None, graphs, files))


@contextmanager
def open_engine(bundle: Bundle, precision: str, mode: str = "graphs") -> Iterator[PersonSearch]:
    """The torch backend in one of its modes."""
    before = os.environ.get(MODE)
    os.environ[MODE] = mode
    try:
        with PersonSearch(bundle, "torch", precision) as engine:
            yield engine
    finally:
        if before is None:
            del os.environ[MODE]
        else:
            os.environ[MODE] = before


def _specs(model: PersonSearchModel) -> dict[str, GraphSpec]:
    config, heads = model.config, model.roi_heads
    proposals = config.post_nms_top_n_test
    arms = [head.reid_head.arm for head in heads.reid_heads]
    channels = sum(arm.reduce.out_channels for arm in arms if arm is not None) or model.backbone.out_channels
    features = TensorSpec("float32", ("N", channels, "h", "w"))
    boxes, numbers = TensorSpec("float32", ("R", 4)), TensorSpec("int64", ("R",))
    return {
        "detect": GraphSpec(
            {"images": TensorSpec("float32", ("N", 3, "H", "W")), "image_sizes": TensorSpec("int64", ("N", 2))},
            {
                "boxes": TensorSpec("float32", ("N", proposals, 4)),
                "scores": TensorSpec("float32", ("N", proposals)),
                "counts": TensorSpec("int64", ("N",)),
                "features": features,
            },
        ),
        "reid": GraphSpec(
            {"features": features, "boxes": boxes, "batch_indices": numbers},
            {"refined_boxes": boxes, "embeddings": TensorSpec("float32", ("R", heads.embedding_dim))},
        ),
    }


def literal_detect(model: PersonSearchModel, dtype: torch.dtype) -> Callable[[NDArray[np.uint8]], Any]:
    """The literal model from a frame in host memory to people there; 16-bit types by autocast."""
    device = next(model.parameters()).device

    def detect(frame: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            people = model.detect([to_tensor(frame).to(device).float().div(255)])[0]
        return {name: value.float().cpu().numpy() for name, value in people.items()}

    return detect
