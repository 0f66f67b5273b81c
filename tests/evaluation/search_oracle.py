"""Search and detection metrics as slow, literal loops, and random small protocols to try them on."""

from dataclasses import dataclass, field
from itertools import permutations

import numpy as np
from sklearn.metrics import average_precision_score

from psarm.evaluation import DetectionSet, ImageDetections


@dataclass
class Frame:
    name: str
    camera: int
    boxes: np.ndarray
    identities: np.ndarray


@dataclass
class Query:
    name: str
    camera: int
    box: np.ndarray
    identity: int


@dataclass
class Dataset:
    gallery: list
    queries: list
    galleries: dict = field(default_factory=dict)
    located: dict = field(default_factory=dict)
    default_gallery: str | None = None
    cbgm: tuple = (30, 4)


@dataclass
class Case:
    dataset: Dataset
    images: list  # ImageDetections of each gallery frame
    query_embeddings: np.ndarray
    contexts: list  # ImageDetections of each query

    @property
    def detections(self):
        return DetectionSet.from_images(self.images)

    @property
    def context(self):
        return DetectionSet.from_images(self.contexts)


def random_case(seed, ties=False, frames=12, people=6, queries=8, size=5):
    """Frames with up to four people, detections near some of them and elsewhere, some frames and lists empty."""
    rng = np.random.default_rng(seed)

    def embeddings(n):
        # Multiples of 1/2: dot products are exact, and many are equal.
        return rng.integers(-1, 2, (n, size)) / 2 if ties else rng.normal(size=(n, size))

    gallery, images = [], []
    for index in range(frames):
        count = int(rng.integers(0, 5))
        corner = rng.uniform(0, 300, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(5, 120, (count, 2))], axis=1)
        identities = rng.permutation(people)[:count]
        identities[rng.random(count) < 0.2] = -1
        gallery.append(Frame(f"frame{index}.jpg", index % 3, boxes.astype(np.float32), identities))
        seen = boxes[rng.integers(0, count, rng.integers(0, 7))] if count else np.zeros((0, 4))
        seen = np.sort((seen + rng.normal(0, 6, seen.shape)).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        away = np.concatenate([rng.uniform(0, 200, (1, 2)), rng.uniform(210, 300, (1, 2))], axis=1)
        found = np.concatenate([seen, away])[rng.permutation(len(seen) + 1)]
        found = found[: rng.integers(0, len(found) + 1)]
        scores = rng.choice([0.005, 0.3, 0.5, 0.7, 0.9, 1.0], len(found), p=[0.05, 0.1, 0.1, 0.25, 0.25, 0.25])
        images.append(ImageDetections(found, scores, embeddings(len(found))))
    wanted, contexts = [], []
    for index in range(queries):
        frame = gallery[rng.integers(frames)]
        name = frame.name if rng.random() < 0.8 else f"elsewhere{index}.jpg"
        # Identity `people` is never in the gallery.
        box = np.array([10, 10, 60, 150], np.float32) + rng.integers(0, 20)
        wanted.append(Query(name, frame.camera, box, int(rng.integers(0, people + 1))))
        k = int(rng.integers(1, 6))
        contexts.append(ImageDetections(np.tile(box, (k, 1)), np.ones(k), embeddings(k)))
    query_embeddings = np.stack([context.embeddings[0] for context in contexts])
    return Case(Dataset(gallery, wanted), images, query_embeddings, contexts)


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    intersection = max(0.0, width) * max(0.0, height)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection
    return intersection / union


def falling(values):
    return sorted(range(len(values)), key=lambda i: -values[i])  # stable: the earlier first


def matching(edges):
    """Best one-to-one matching of rows with columns, by trying all."""
    rows, columns = edges.shape
    if rows > columns:
        return [(r, c) for c, r in matching(edges.T)]
    best = max(permutations(range(columns), rows), key=lambda chosen: sum(edges[r, c] for r, c in enumerate(chosen)))
    return list(enumerate(best))


def search_oracle(case, cbgm=None, cross_camera=False):
    """(AP, rank of the first true positive or -1) of every query."""
    results = []
    for q, query in enumerate(case.dataset.queries):
        gallery = {}
        for frame, found in zip(case.dataset.gallery, case.images, strict=True):
            if frame.name == query.name or (cross_camera and frame.camera == query.camera):
                continue
            keep = [i for i in range(len(found.scores)) if found.scores[i] >= 0.5]
            similarity = [float(np.dot(found.embeddings[i], case.query_embeddings[q])) for i in keep]
            gallery[frame.name] = (frame, [found.boxes[i] for i in keep], found.embeddings[keep], similarity)
        if cbgm:
            k1, k2 = cbgm
            flat = [(name, s) for name, entry in gallery.items() for s in entry[3]]
            for name in {flat[i][0] for i in falling([s for _, s in flat])[:k1]}:
                embeddings, similarity = gallery[name][2:]
                edges = case.contexts[q].embeddings[:k2] @ embeddings.T
                matched = matching(edges)
                for row, column in matched:
                    if row == 0:
                        similarity[column] = max(edges[r, c] for r, c in matched)
        truth, scores, holding, right = [], [], 0, 0
        for frame, boxes, _, similarity in gallery.values():
            labels = [0] * len(boxes)
            places = np.flatnonzero(frame.identities == query.identity)
            if len(places):
                holding += 1
                gt = frame.boxes[places[0]].astype(float)
                w, h = gt[2] - gt[0], gt[3] - gt[1]
                for i in falling(similarity):
                    if iou(boxes[i], gt) >= min(0.5, w * h / ((w + 10) * (h + 10))):
                        labels[i] = 1
                        right += 1
                        break
            truth += labels
            scores += similarity
        ap = average_precision_score(truth, scores) * right / holding if right else 0.0
        ranked = [truth[i] for i in falling(scores)]
        results.append((ap, ranked.index(1) if right else -1))
    return results


def detection_oracle(case):
    labels, scores, matched, total = [], [], 0, 0
    for frame, found in zip(case.dataset.gallery, case.images, strict=True):
        keep = found.scores >= 0.01
        boxes = found.boxes[keep]
        total += len(frame.boxes)
        table = np.array([[iou(gt.astype(float), box) for box in boxes] for gt in frame.boxes])
        for j in range(len(boxes)):
            label = 0
            for i in range(len(frame.boxes)):
                partners = table[i, j] == table[:, j].max() and i == np.argmax(table[:, j])
                if partners and j == np.argmax(table[i]) and table[i, j] >= 0.5:
                    label = 1
            labels.append(label)
            matched += label
        scores += list(found.scores[keep])
    recall = matched / total
    return recall, (average_precision_score(labels, scores) * recall if matched else 0.0)
