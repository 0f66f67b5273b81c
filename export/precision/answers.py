"""What the graphs of one precision say about some frames, and where that is run.

Everything runs on ONNX Runtime's CPU provider, so that a figure does not depend on the machine. FP16 graphs run in
their rounded form there (`half.rounded_graph`): their own would be computed in float32.

n people of a frame, D embedding dimensions. Frames are uint8 [h,w,3] BGR, boxes xyxy in frame pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from psarm.export.precision.half import rounded_graph
from psarm.export.tracing import TracedGraph
from psarm.export.verify_graphs import GraphRunner
from psarm.export.verify_people import score_gap
from psarm.runtime.bundle import Bundle
from psarm.runtime.detections import Detections
from psarm.runtime.engine import PersonSearch
from psarm.runtime.manifest import describe_files
from psarm.runtime.preprocess import make_batch

Frame = NDArray[np.uint8]

BACKEND = "onnxruntime"
TENSORS = ("features", "objectness", "deltas", "boxes", "scores", "counts")
"""What is looked at of the detect graph; inner ones where the graph still has them."""
PEOPLE = (2, 8)
"""Least and most proposals a frame that are let through where the bundle's own threshold leaves nobody."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What one precision says, frame by frame."""

    tensors: list[dict[str, NDArray[Any]]]
    """Those of `TENSORS`, of one image each."""
    people: list[Detections]
    """As the runtime gives them, embeddings weighted by the score."""
    embeddings: list[NDArray[np.float32]]
    """Unit embeddings [n,D] of the boxes in which fp32 finds people."""


@contextmanager
def runnable(bundle: Bundle, precision: str, graphs: Sequence[TracedGraph]) -> Iterator[Bundle]:
    """The bundle in the form in which `precision` is run for measurements; it is gone after the with block.

    `graphs` are the traced ones that the bundle was made of.
    """
    if precision != "fp16":
        yield bundle
        return
    with TemporaryDirectory(prefix="psarm-fp16-") as folder:
        files = {graph.name: f"{graph.name}.fp16.onnx" for graph in graphs}
        for graph in graphs:
            onnx.save(rounded_graph(graph), Path(folder) / files[graph.name])
        described = describe_files(folder, files.values())
        manifest = dataclasses.replace(
            bundle.manifest, precisions={precision: files}, files=described, weights=None, tensorrt={}
        )
        yield Bundle(Path(folder), manifest)


def open_engine(bundle: Bundle, precision: str, threshold: float | None = None) -> PersonSearch:
    """An engine for measurements, with as many threads as torch has here."""
    return PersonSearch(bundle, BACKEND, precision, torch.get_num_threads(), threshold)


def run_tensors(bundle: Bundle, precision: str, frames: Sequence[Frame]) -> list[dict[str, NDArray[Any]]]:
    """The detect graph on every frame: `Answers.tensors`."""
    path = bundle.graph_path(precision, "detect")
    made = {name for node in onnx.load(path).graph.node for name in node.output}
    known = bundle.manifest.graphs["detect"].outputs
    runner = GraphRunner(path, "detect", tuple(name for name in TENSORS if name in made and name not in known))
    answers = []
    for frame in frames:
        batch = make_batch([frame], bundle.manifest.preprocessing)
        outputs = runner.run(images=torch.from_numpy(batch.images), image_sizes=torch.from_numpy(batch.image_sizes))
        answers.append({name: outputs[name].numpy() for name in TENSORS if name in outputs})
    return answers


def run_people(
    bundle: Bundle,
    precision: str,
    frames: Sequence[Frame],
    threshold: float,
    boxes: Sequence[NDArray[np.float32]] | None = None,
) -> tuple[list[Detections], list[NDArray[np.float32]]]:
    """People of every frame, and the embeddings of `boxes` (None: of the people's own)."""
    with open_engine(bundle, precision, threshold) as engine:
        people = [engine.detect(frame) for frame in frames]
        given = [found.boxes for found in people] if boxes is None else boxes
        return people, [engine.embed(frame, part) for frame, part in zip(frames, given, strict=True)]


def people_threshold(tensors: Sequence[Mapping[str, NDArray[Any]]], own: float) -> float:
    """The bundle's own score threshold, or where nobody is above it the middle of a gap that leaves a few proposals."""
    scores = np.concatenate([one["scores"][0, : int(one["counts"][0])] for one in tensors])
    if (scores > own).any() or not len(scores):
        return own
    least, most = (count * len(tensors) for count in PEOPLE)
    return score_gap(torch.from_numpy(scores), min(least, len(scores)), min(most, len(scores)))
