"""Whom the rows and visits of a gallery show, by labels; and how good its visits are.

n rows of a gallery: people in frames. A row shows the labelled person of the same frame whose box it overlaps by an IoU
of at least 0.5, one row a person.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from psarm.benchmarks.reentry_footage import Footage
from psarm.data.convert.split import WrittenFrame
from psarm.data.types import UNLABELLED
from psarm.errors import DataError
from psarm.evaluation.detection import IOU_THRESHOLD
from psarm.evaluation.pairs import paired_iou


class Row(NamedTuple):
    """A person in a frame, as a gallery has it."""

    video: int
    """Index among the footage's videos."""
    frame: int
    person: int
    visit: int
    """-1: none."""
    box: NDArray[np.float32]  # [4] xyxy


class Shown(NamedTuple):
    """A labelled person on a labelled visit."""

    identity: int
    visit: int


STRANGER = Shown(UNLABELLED, UNLABELLED)
"""A labelled person without an identity."""
NOBODY = Shown(-2, -2)
"""No labelled person."""
Key = tuple[int, int, int]
"""Video, frame and person of a row."""


@dataclass(frozen=True)
class VisitQuality:
    """How the visits of a gallery compare with the labelled ones, over the frames that were due."""

    labelled_boxes: int
    boxes_found: int
    """Labelled boxes that a row shows, those without an identity included."""
    rows: int
    labelled_visits: int
    visits_found: int
    """Labelled visits that at least one visit of the gallery stands for."""
    visits: int
    """Of the gallery."""
    visits_of_strangers: int
    """Visits of the gallery that stand for people without an identity."""
    visits_of_nobody: int
    """Visits of the gallery that stand for no labelled person."""
    visits_per_found: float
    """Visits of the gallery a labelled visit that was found: 1 is best."""
    identity_switches: int
    """How often a labelled visit goes on under another number than the last time it was found."""
    purity: float
    """Share of the rows with an identity that show the person their visit stands for."""


@dataclass(frozen=True, eq=False)
class Matches:
    """Whom the gallery shows."""

    rows: Mapping[Key, Shown]
    """Every row."""
    visits: Mapping[int, Shown]
    """Every visit of the gallery → whom most of its rows show."""
    quality: VisitQuality


def match_gallery(footage: Footage, rows: Sequence[Row], due: Iterable[WrittenFrame]) -> Matches:
    """Match the rows of a gallery of `footage` with its labels; `due` are the frames that were indexed.

    Raises `DataError` where a row is of a frame that was not due: then ids and labels do not fit together.
    """
    by_frame: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in rows:
        by_frame[row.video, row.frame].append(row)
    shown: dict[Key, Shown] = {}
    last: dict[Shown, int] = {}
    found, labelled, switches = 0, [], 0
    for frame in due:
        there = by_frame.pop((frame.source, footage.id_of(frame)), [])
        pairs = pair_boxes(frame, there)
        found += len(pairs)
        labelled += [Shown(person.identity, person.visit) for person in frame.people]
        shown |= {(row.video, row.frame, row.person): NOBODY for row in there}
        for person, place in pairs:
            row, who = there[place], Shown(frame.people[person].identity, frame.people[person].visit)
            shown[row.video, row.frame, row.person] = who
            if who != STRANGER:
                switches += last.get(who, row.visit) != row.visit
                last[who] = row.visit
    if by_frame:
        raise DataError(f"The gallery has people in {len(by_frame)} frames that were not due: {next(iter(by_frame))}.")
    visits = _majorities(rows, shown)
    return Matches(shown, visits, _quality(rows, shown, visits, labelled, found, switches))


def pair_boxes(frame: WrittenFrame, rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Pairs of a labelled person and a row of the frame, each once, such that the sum of their IoUs is largest."""
    if not frame.people or not rows:
        return []
    import scipy.optimize

    truth = np.array([person.box for person in frame.people], np.float32)
    boxes = np.stack([row.box for row in rows])
    k, m = len(truth), len(boxes)
    iou = paired_iou(np.repeat(truth, m, axis=0), np.tile(boxes, (k, 1))).reshape(k, m)
    iou[iou < IOU_THRESHOLD] = 0
    people, places = scipy.optimize.linear_sum_assignment(iou, maximize=True)
    return [(int(p), int(r)) for p, r in zip(people, places, strict=True) if iou[p, r] > 0]


def _majorities(rows: Sequence[Row], shown: Mapping[Key, Shown]) -> dict[int, Shown]:
    votes: dict[int, Counter[Shown]] = defaultdict(Counter)
    for row in rows:
        if row.visit >= 0:
            votes[row.visit][shown[row.video, row.frame, row.person]] += 1
    return {visit: counted.most_common(1)[0][0] for visit, counted in votes.items()}


def _quality(
    rows: Sequence[Row],
    shown: Mapping[Key, Shown],
    visits: Mapping[int, Shown],
    labelled: Sequence[Shown],
    found: int,
    switches: int,
) -> VisitQuality:
    stands_for = Counter(visits.values())
    strangers, nobody = stands_for.pop(STRANGER, 0), stands_for.pop(NOBODY, 0)
    known = [row for row in rows if shown[row.video, row.frame, row.person].identity >= 0 and row.visit >= 0]
    right = sum(shown[row.video, row.frame, row.person].identity == visits[row.visit].identity for row in known)
    return VisitQuality(
        labelled_boxes=len(labelled),
        boxes_found=found,
        rows=len(rows),
        labelled_visits=len(set(labelled) - {STRANGER}),
        visits_found=len(stands_for),
        visits=len(visits),
        visits_of_strangers=strangers,
        visits_of_nobody=nobody,
        visits_per_found=mean(stands_for.values()) if stands_for else 0.0,
        identity_switches=switches,
        purity=right / len(known) if known else 0.0,
    )
