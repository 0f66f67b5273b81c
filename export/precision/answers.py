"""What the graphs of one precision say about some frames, and where that is run.

Everything runs on ONNX Runtime, so that a figure depends little on the machine. FP16 graphs run in their rounded form
there (`half.rounded_graph`): their own would be computed in float32. INT8 also runs on OpenVINO where that is
installed: it is what int8 is for on CPUs, and computes what is left in float in bf16 where the CPU has it.

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

from psarm.console import track
from psarm.export.precision.half import rounded_graph
from psarm.export.tracing import TracedGraph
from psarm.export.verify_graphs import GraphRunner
from psarm.export.verify_people import score_gap
from psarm.runtime.backends import BackendStatus, load_backend, open_backend, probe_backend
from psarm.runtime.bundle import Bundle
from psarm.runtime.detections import Detections
from psarm.runtime.engine import PersonSearch
from psarm.runtime.manifest import describe_files
from psarm.runtime.preprocess import make_batch

Frame = NDArray[np.uint8]

BACKEND = "onnxruntime"
INT8_BACKEND = "openvino"
"""Also measured for int8."""
TENSOR_FRAMES = 4
"""Tensors are compared on this many of the frames at most: each has millions of values."""
TENSORS = ("features", "objectness", "deltas", "boxes", "scores", "counts")
"""What is looked at of the detect graph; inner ones where the graph still has them."""
PEOPLE = (2, 8)
"""Least and most proposals a frame that are let through where the bundle's own threshold leaves nobody."""


@dataclass(frozen=True)
class Way:
    """A way to run a precision for measurements."""

    precision: str
    backend: str = BACKEND

    @property
    def title(self) -> str:
        """For people: `int8 on OpenVINO`."""
        return f"{self.precision} on {load_backend(self.backend).title}"


@dataclass(frozen=True, eq=False)
class Answers:
    """What one precision says, frame by frame."""

    tensors: list[dict[str, NDArray[Any]]]
    """Those of `TENSORS`, of one image each, of some of the frames."""
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


def find_ways(precisions: Sequence[str]) -> tuple[list[Way], BackendStatus | None]:
    """The ways to run `precisions`, and why int8 is not run on OpenVINO where it should be."""
    ways = [Way(precision) for precision in precisions]
    if "int8" not in precisions:
        return ways, None
    status = probe_backend(INT8_BACKEND)
    return (ways, status) if not status.loads else ([*ways, Way("int8", INT8_BACKEND)], None)


def open_engine(bundle: Bundle, way: Way) -> PersonSearch:
    """An engine for measurements, with as many threads as torch has here."""
    return PersonSearch(bundle, way.backend, way.precision, torch.get_num_threads())


def run_tensors(bundle: Bundle, way: Way, frames: Sequence[Frame]) -> list[dict[str, NDArray[Any]]]:
    """The detect graph on `TENSOR_FRAMES` of the frames: `Answers.tensors`."""
    some = frames[:: max(1, len(frames) // TENSOR_FRAMES)][:TENSOR_FRAMES]
    return _run_probes(bundle, way.precision, some) if way.backend == BACKEND else _run_outputs(bundle, way, some)


def _run_probes(bundle: Bundle, precision: str, frames: Sequence[Frame]) -> list[dict[str, NDArray[Any]]]:
    """With inner tensors, on ONNX Runtime."""
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


def _run_outputs(bundle: Bundle, way: Way, frames: Sequence[Frame]) -> list[dict[str, NDArray[Any]]]:
    """Of the graph's own outputs those that are looked at."""
    backend, _ = open_backend(bundle, way.backend, way.precision, torch.get_num_threads())
    with backend:
        answers = []
        for frame in frames:
            batch = make_batch([frame], bundle.manifest.preprocessing)
            outputs = backend.run_detect(batch.images, batch.image_sizes)._asdict()
            answers.append({name: np.asarray(outputs[name]) for name in TENSORS if name in outputs})
    return answers


def run_people(
    engine: PersonSearch,
    frames: Sequence[Frame],
    threshold: float,
    title: str,
    boxes: Sequence[NDArray[np.float32]] | None = None,
) -> tuple[list[Detections], list[NDArray[np.float32]]]:
    """People of every frame above a score `threshold`, and the embeddings of `boxes` (None: of the people's own).

    `title` is that of the progress bar.
    """
    own = engine.thresholds
    engine.thresholds = dataclasses.replace(own, score=threshold)
    people, embeddings = [], []
    for number, frame in enumerate(track(frames, title, len(frames))):
        people.append(engine.detect(frame))
        embeddings.append(engine.embed(frame, people[-1].boxes if boxes is None else boxes[number]))
    engine.thresholds = own
    return people, embeddings


def people_threshold(tensors: Sequence[Mapping[str, NDArray[Any]]], own: float) -> float:
    """The bundle's own score threshold, or where nobody is above it the middle of a gap that leaves a few proposals."""
    scores = np.concatenate([one["scores"][0, : int(one["counts"][0])] for one in tensors])
    if (scores > own).any() or not len(scores):
        return own
    least, most = (count * len(tensors) for count in PEOPLE)
    return score_gap(torch.from_numpy(scores), min(least, len(scores)), min(most, len(scores)))
