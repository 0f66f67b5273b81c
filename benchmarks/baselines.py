"""What the numbers have to beat: colour histograms of the same boxes, and the network before training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from psarm.benchmarks.engines import load_frames
from psarm.benchmarks.histogram import histogram_embeddings
from psarm.benchmarks.report import Row
from psarm.console import track
from psarm.data.types import PersonSearchDataset
from psarm.evaluation import (
    DetectionSet,
    DetectionsFile,
    ImageDetections,
    SearchProtocol,
    score_detections,
)
from psarm.evaluation.collect import collect_detections

if TYPE_CHECKING:
    from psarm.config import ModelConfig

HISTOGRAM = "colour histogram"
UNTRAINED = "untrained network"


def histogram_row(
    dataset: PersonSearchDataset, protocol: SearchProtocol, found: DetectionsFile, gallery_sizes: Sequence[str] = ()
) -> Row:
    """Search by HSV histograms of the boxes another row found, weighted by their scores as the model's embeddings are.

    Raises `ImageError` when a picture cannot be read.
    """
    gallery = []
    paths = [frame.path for frame in dataset.gallery]
    for index, image in enumerate(track(load_frames(paths), f"{HISTOGRAM}: gallery", len(paths))):
        people = found.gallery.of_image(index)
        weighted = histogram_embeddings(image, people.boxes) * people.scores[:, None]
        gallery.append(ImageDetections(people.boxes, people.scores, weighted))
    paths = [query.path for query in dataset.queries]
    images = track(load_frames(paths), f"{HISTOGRAM}: queries", len(paths))
    embeddings = [
        histogram_embeddings(image, query.box[None]) for image, query in zip(images, dataset.queries, strict=True)
    ]
    content = DetectionsFile(found.gallery_names, DetectionSet.from_images(gallery), np.concatenate(embeddings))
    return Row(HISTOGRAM, metrics=score_detections(protocol, content, gallery_sizes=gallery_sizes))


def untrained_row(
    dataset: PersonSearchDataset,
    protocol: SearchProtocol,
    config: ModelConfig,
    threads: int,
    seed: int = 0,
    gallery_sizes: Sequence[str] = (),
) -> Row:
    """The architecture `config` with the random weights of `seed`. Raises `ImageError`, `MissingExtraError`."""
    from psarm.benchmarks.torch_engine import untrained_engine

    engine = untrained_engine(config, threads, seed)
    try:
        found = collect_detections(engine, dataset, load_frames, title=UNTRAINED)
    finally:
        engine.close()
    metrics = score_detections(protocol, found, gallery_sizes=gallery_sizes)
    return Row(UNTRAINED, "fp32", engine.device, metrics=metrics)
