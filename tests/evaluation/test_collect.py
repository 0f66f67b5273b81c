"""Collecting detections against the obvious loops, with an engine whose answers tell what it was asked."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from psarm.errors import DataError, UsageError
from psarm.evaluation import ImageDetections
from psarm.evaluation.collect import collect_detections, embed_ground_truth


@dataclass
class Frame:
    name: str
    camera: int
    boxes: np.ndarray
    identities: np.ndarray
    path: Path


@dataclass
class Query:
    name: str
    camera: int
    box: np.ndarray
    identity: int
    path: Path


@dataclass
class Dataset:
    gallery: list
    queries: list


@dataclass
class Engine:
    """Images are numbers; the embedding of a box in image i is [i, x1]."""

    asked: list = field(default_factory=list)

    def detect(self, image):
        self.asked.append(("detect", image))
        boxes = np.arange(4.0 * image).reshape(image, 4)
        return ImageDetections(boxes, np.full(image, 0.5), self._embed(image, boxes) * 0.5)

    def embed(self, image, boxes):
        self.asked.append(("embed", image))
        if boxes.min() < 0:
            raise UsageError("Box 0 lies outside the picture.")
        return self._embed(image, boxes)

    def detect_around(self, image, box):
        self.asked.append(("around", image))
        if box.min() < 0:
            raise UsageError("Box 0 lies outside the picture.")
        boxes = np.stack([box, np.ones(4)])
        return ImageDetections(boxes, np.array([1.0, 0.6]), self._embed(image, boxes))

    def _embed(self, image, boxes):
        return np.stack([np.full(len(boxes), image), boxes[:, 0]], axis=1)


def load(paths):
    return (int(path.stem) for path in paths)


def box(x):
    return np.array([x, 1, 9, 9.0])


@pytest.fixture
def dataset():
    counts = [2, 0, 1]
    gallery = [
        Frame(f"{i}.jpg", 1, np.arange(4.0 * n).reshape(n, 4), np.zeros(n), Path(f"{i}.jpg"))
        for i, n in enumerate(counts)
    ]
    # Queries of image 2 are not neighbours, and the order is not that of the gallery.
    queries = [Query(f"{i}.jpg", 1, box(x), 0, Path(f"{i}.jpg")) for i, x in [(2, 5), (0, 6), (2, 7)]]
    return Dataset(gallery, queries)


def test_gallery_in_order_and_queries_of_one_image_together(dataset):
    engine = Engine()
    found = collect_detections(engine, dataset, load)
    assert found.gallery_names == ["0.jpg", "1.jpg", "2.jpg"]
    assert found.gallery.counts.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(found.gallery.boxes[1:], np.arange(8.0).reshape(2, 4))
    np.testing.assert_array_equal(found.gallery.embeddings, [[0.5, 0], [1, 0], [1, 2]])
    np.testing.assert_array_equal(found.query_embeddings, [[2, 5], [0, 6], [2, 7]])
    assert found.context is None
    assert engine.asked == [("detect", 0), ("detect", 1), ("detect", 2), ("embed", 2), ("embed", 0)]


def test_contexts_hold_the_query_embeddings(dataset):
    engine = Engine()
    found = collect_detections(engine, dataset, load, cbgm=True)
    np.testing.assert_array_equal(found.query_embeddings, [[2, 5], [0, 6], [2, 7]])
    assert found.context.counts.tolist() == [2, 2, 2]
    np.testing.assert_array_equal(found.context.boxes[::2, 0], [5, 6, 7])
    assert ("embed", 2) not in engine.asked


def test_ground_truth_boxes_in_the_protocols_order(dataset):
    engine = Engine()
    np.testing.assert_array_equal(embed_ground_truth(engine, dataset, load), [[0, 0], [0, 4], [2, 0]])
    assert engine.asked == [("embed", 0), ("embed", 2)]  # nobody in image 1


@pytest.mark.parametrize("cbgm", [False, True])
def test_a_query_outside_its_image_names_the_file(dataset, cbgm):
    dataset.queries[1].box = box(-3)
    with pytest.raises(DataError, match=r"box in 0\.jpg cannot be used: Box 0 lies outside"):
        collect_detections(Engine(), dataset, load, cbgm)


def test_a_ground_truth_box_outside_its_image_names_the_file(dataset):
    dataset.gallery[2].boxes = -dataset.gallery[2].boxes
    with pytest.raises(DataError, match=r"box in 2\.jpg cannot be used"):
        embed_ground_truth(Engine(), dataset, load)
