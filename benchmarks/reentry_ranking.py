"""How well a gallery's answers rank the later visits of a person above everybody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from psarm.benchmarks.reentry_matching import Shown

FIRST = 10


@dataclass(frozen=True)
class Answer:
    """What one query came to."""

    ap: float
    """Average precision over the hits, times the share of what could have been found that is in the gallery."""
    top1: bool
    """The best hit is the person."""
    found: float
    """Share of the person's other labelled visits that are among the first 10 hits."""


@dataclass(frozen=True)
class Others:
    """What the labels have of a query's person beside the query's own visit, in the frames that were due."""

    visits: int
    boxes: int


@dataclass(frozen=True)
class SearchQuality:
    """Means over the queries."""

    queries: int
    mAP: float
    top1: float
    found_in_first_10: float


def remaining(hits: Sequence[Shown], query: Shown) -> list[int]:
    """Indices of the hits that are judged: all but those of the query's own visit."""
    return [index for index, hit in enumerate(hits) if hit != query]


def judge(hits: Sequence[Shown], query: Shown, others: Others, by_visit: bool) -> Answer:
    """Judge the hits of a query, best first.

    Args:
        hits: whom every hit shows.
        query: the person, and the visit that the query's picture is of.
        others: what there is of the person beside that visit.
        by_visit: whether the hits are visits; else people in frames.
    """
    judged = [hits[index] for index in remaining(hits, query)]
    right = [hit.identity == query.identity for hit in judged]
    precisions = [sum(right[: rank + 1]) / (rank + 1) for rank, is_right in enumerate(right) if is_right]
    relevant = [hit for hit, is_right in zip(judged, right, strict=True) if is_right]
    share = len(set(relevant)) / others.visits if by_visit else len(relevant) / others.boxes
    first = {hit for hit in judged[:FIRST] if hit.identity == query.identity}
    return Answer(
        ap=mean(precisions) * share if precisions else 0.0,
        top1=bool(right and right[0]),
        found=len(first) / others.visits,
    )


def summarise(answers: Sequence[Answer]) -> SearchQuality | None:
    """Means over the queries; None without any."""
    if not answers:
        return None
    return SearchQuality(
        queries=len(answers),
        mAP=mean(answer.ap for answer in answers),
        top1=mean(answer.top1 for answer in answers),
        found_in_first_10=mean(answer.found for answer in answers),
    )
