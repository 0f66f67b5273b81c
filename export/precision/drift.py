"""How far a precision's answers are from fp32's: tensors, people, and the order of a small search.

n people of a frame, Q queries, M gallery people, D embedding dimensions. Boxes are xyxy in frame pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from psarm.errors import ExportError
from psarm.evaluation.pairs import paired_iou
from psarm.export.precision.answers import Answers
from psarm.runtime.detections import Detections

MATCH_IOU = 0.5
"""Boxes that overlap by this much are the same person's."""
MAPS = ("features", "objectness", "deltas")
MOST_DECIBELS = 200.0
"""Said of tensors that are equal to the last bit."""

Matrix = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class PeopleDrift:
    """Two precisions' people of the same frames; None where there is nobody to compare."""

    expected: int
    """People that fp32 finds."""
    found: int
    matched: int
    """Those of either that are the same person, one to one."""
    box_mean: float | None
    """Pixels of the frame, over all sides of matched boxes."""
    box_max: float | None
    score_mean: float | None
    score_max: float | None
    cosine_mean: float | None
    """Similarity of a matched person's two embeddings."""
    cosine_min: float | None

    @property
    def matched_share(self) -> float:
        """Of all people that either finds; 1 where neither finds anybody."""
        everybody = self.expected + self.found - self.matched
        return self.matched / everybody if everybody else 1.0


@dataclass(frozen=True)
class RankDrift:
    """Everybody that fp32 finds, searched for among the matched people of the other frames."""

    queries: int
    other_first: int
    """Queries with another person at the first rank."""
    swapped: float | None
    """Share of the pairs of gallery people that change their order."""


@dataclass(frozen=True)
class Drift:
    """A precision against fp32."""

    snr: dict[str, float | None]
    """Decibels: features, objectness, deltas of the maps, scores of matched proposals, embeddings of the same boxes."""
    people: PeopleDrift
    ranks: RankDrift
    frames: int
    """Frames that people and ranks are of."""
    tensor_frames: int
    """Those that `snr` is of."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        values["people"]["matched_share"] = self.people.matched_share
        return values


def compare(precision: str, expected: Answers, actual: Answers) -> Drift:
    """The drift of `actual`; raises `ExportError` where it holds what is no number."""
    for name, values in _named_values(actual):
        if not np.isfinite(values).all():
            raise ExportError(
                f"The {precision} graphs leave its range: {name} holds values that are no numbers where fp32 has "
                f"some; export without {precision}."
            )
    snr = {
        name: decibels((a[name], b[name]) for a, b in zip(expected.tensors, actual.tensors, strict=True) if name in b)
        for name in MAPS
    }
    snr["scores"] = decibels(_matched_scores(a, b) for a, b in zip(expected.tensors, actual.tensors, strict=True))
    snr["embeddings"] = decibels(zip(expected.embeddings, actual.embeddings, strict=True))
    rows = [match_people(a.boxes, b.boxes) for a, b in zip(expected.people, actual.people, strict=True)]
    people = people_drift(expected.people, actual.people, rows)
    return Drift(snr, people, _rank_drift(expected, actual, rows), len(expected.people), len(expected.tensors))


def _named_values(answers: Answers) -> Iterator[tuple[str, NDArray[Any]]]:
    """All that a precision says, with its name for people."""
    for tensors in answers.tensors:
        yield from tensors.items()
    for vectors in answers.embeddings:
        yield "embeddings", vectors
    for found in answers.people:  # whose boxes are finite, or they would not be `Detections`
        yield "people's scores", found.scores
        yield "people's embeddings", found.embeddings


def decibels(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> float | None:
    """Signal to noise of (expected, actual) tensors together; None where they hold nothing.

    Raises `ValueError` where the noise is no number.
    """
    signal = noise = 0.0
    for expected, actual in pairs:
        exact = expected.astype(np.float64)
        signal += float(np.square(exact).sum())
        noise += float(np.square(exact - actual).sum())
    if not math.isfinite(noise):
        raise ValueError(f"The noise is {noise}; needed tensors of finite numbers.")
    if signal == 0:
        return None
    return MOST_DECIBELS if noise == 0 else min(MOST_DECIBELS, float(10 * np.log10(signal / noise)))


def match_people(expected: NDArray[Any], actual: NDArray[Any]) -> tuple[Rows, Rows]:
    """Rows of boxes [n,4] and [m,4] that are the same person, one to one, with the most overlap altogether."""
    rows = np.repeat(np.arange(len(expected)), len(actual))
    columns = np.tile(np.arange(len(actual)), len(expected))
    overlap = paired_iou(expected[rows], actual[columns]).reshape(len(expected), len(actual))
    first, second = linear_sum_assignment(np.where(overlap >= MATCH_IOU, overlap, 0.0), maximize=True)
    same = overlap[first, second] >= MATCH_IOU
    return first[same], second[same]


def people_drift(
    expected: Sequence[Detections], actual: Sequence[Detections], rows: Sequence[tuple[Rows, Rows]]
) -> PeopleDrift:
    """Matched `rows` of the people of every frame, and how many there are."""
    boxes, scores, cosines = [], [], []
    for wanted, found, (first, second) in zip(expected, actual, rows, strict=True):
        boxes.append(np.abs(wanted.boxes[first].astype(np.float64) - found.boxes[second]).ravel())
        scores.append(np.abs(wanted.scores[first].astype(np.float64) - found.scores[second]))
        cosines.append((_unit(wanted.embeddings[first]) * _unit(found.embeddings[second])).sum(axis=1))
    box, score, cosine = (np.concatenate(parts) for parts in (boxes, scores, cosines))
    some = len(score) > 0
    return PeopleDrift(
        expected=sum(map(len, expected)),
        found=sum(map(len, actual)),
        matched=len(score),
        box_mean=float(box.mean()) if some else None,
        box_max=float(box.max()) if some else None,
        score_mean=float(score.mean()) if some else None,
        score_max=float(score.max()) if some else None,
        cosine_mean=float(cosine.mean()) if some else None,
        cosine_min=float(cosine.min()) if some else None,
    )


def rank_drift(expected: Matrix, actual: Matrix, elsewhere: NDArray[np.bool_]) -> RankDrift:
    """Similarities [Q,M] of both, and which gallery people [Q,M] lie in another frame than the query."""
    queries = other_first = 0
    pairs = swapped = 0.0
    for before, after, others in zip(expected, actual, elsewhere, strict=True):
        a, b = before[others], after[others]
        if len(a) < 2:
            continue
        queries += 1
        other_first += int(a.argmax() != b.argmax())
        upper = np.triu_indices(len(a), 1)
        orders = [np.sign(one[:, None] - one)[upper] for one in (a, b)]
        pairs += len(upper[0])
        swapped += float((orders[0] != orders[1]).sum())
    return RankDrift(queries, other_first, swapped / pairs if pairs else None)


def _rank_drift(expected: Answers, actual: Answers, rows: Sequence[tuple[Rows, Rows]]) -> RankDrift:
    similarities = []
    for answers, side in ((expected, 0), (actual, 1)):
        gallery = [found.embeddings[pair[side]] for found, pair in zip(answers.people, rows, strict=True)]
        queries = np.concatenate(answers.embeddings).astype(np.float64)
        similarities.append(queries @ np.concatenate(gallery).astype(np.float64).T)
    frames = np.arange(len(rows))
    of_query = np.repeat(frames, [len(part) for part in expected.embeddings])
    of_person = np.repeat(frames, [len(first) for first, _ in rows])
    return rank_drift(similarities[0], similarities[1], of_query[:, None] != of_person)


def _matched_scores(
    expected: Mapping[str, NDArray[Any]], actual: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scores of the proposals that both detect graphs have, of the first image."""
    boxes, scores = [], []
    for one in (expected, actual):
        count = int(one["counts"][0])
        boxes.append(one["boxes"][0, :count])
        scores.append(one["scores"][0, :count])
    first, second = match_people(*boxes)
    return scores[0][first], scores[1][second]


def _unit(vectors: NDArray[Any]) -> Matrix:
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: Matrix = np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0)
    return unit
