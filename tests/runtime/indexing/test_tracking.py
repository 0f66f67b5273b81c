"""Visits of made-up walkers, whom we know."""

import numpy as np
import pytest

from psarm.runtime.detections import Detections
from psarm.runtime.gallery.records import IndexedPeople
from psarm.runtime.indexing.tracking import LOST_SECONDS, MICROSECONDS, VisitTracker

DIM = 16


class Walkers:
    """People who walk straight on, each with an embedding of their own, seen `fps` times a second."""

    def __init__(self, count=5, fps=2.0, seconds=12.0, seed=0, missed=0.1):
        rng = np.random.default_rng(seed)
        self.frames = []  # (id, who, Detections)
        start, speed = rng.uniform(0, 600, (count, 2)), rng.uniform(-45, 45, (count, 2))
        face = rng.standard_normal((count, DIM))
        for step in range(int(fps * seconds)):
            seconds_in = step / fps
            who = np.flatnonzero(rng.random(count) >= missed)
            who = rng.permutation(who)
            corner = start[who] + speed[who] * seconds_in + rng.normal(0, 1, (len(who), 2))
            boxes = np.concatenate([corner, corner + np.array([40, 100])], 1).astype(np.float32)
            scores = rng.uniform(0.5, 1, len(who)).astype(np.float32)
            seen = face[who] + rng.normal(0, 0.3, (len(who), DIM))
            seen *= scores[:, None] / np.linalg.norm(seen, axis=1, keepdims=True)
            detections = Detections(boxes, scores, seen.astype(np.float32))
            self.frames.append((int(seconds_in * MICROSECONDS), who, detections))

    def track(self, tracker, frames=slice(None)):
        return [tracker.update(frame, people) for frame, _, people in self.frames[frames]]


@pytest.mark.parametrize("fps", [2, 5, 10])
def test_a_walker_is_one_visit(fps):
    walkers = Walkers(fps=fps)
    tracker = VisitTracker()
    visits = walkers.track(tracker)
    whose = np.concatenate([who for _, who, _ in walkers.frames]).tolist()
    pairs = set(zip(whose, np.concatenate(visits).tolist(), strict=True))
    assert sorted(w for w, _ in pairs) == [0, 1, 2, 3, 4]
    assert sorted(v for _, v in pairs) == [0, 1, 2, 3, 4] and tracker.next_visit == 5


def indexed(frame, people, visits):
    return IndexedPeople(frame, None, people.boxes, people.scores, people.embeddings, visits)


@pytest.mark.parametrize("stop", [1, 7, 12, 23])
def test_a_run_that_goes_on_gives_the_visits_of_one_that_was_not_interrupted(stop):
    walkers = Walkers(count=12, missed=0.3, seed=stop)
    whole = walkers.track(VisitTracker())
    before = VisitTracker()
    walkers.track(before, slice(stop))
    after = VisitTracker(before.next_visit)
    known = [indexed(f, p, v) for (f, _, p), v in zip(walkers.frames[:stop], whole[:stop], strict=True) if len(v)]
    after.warm_up(known)
    assert after.next_visit == before.next_visit and after.alive == before.alive
    for got, wanted in zip(walkers.track(after, slice(stop, None)), whole[stop:], strict=True):
        assert got.tolist() == wanted.tolist()


def test_only_the_last_minute_is_needed():
    walkers = Walkers(count=4, seconds=80, missed=0.1)
    whole = walkers.track(VisitTracker())
    after = VisitTracker(max(map(max, whole[:140])) + 1)
    after.warm_up([indexed(f, p, v) for (f, _, p), v in zip(walkers.frames[20:140], whole[20:140], strict=True)])
    for got, wanted in zip(walkers.track(after, slice(140, None)), whole[140:], strict=True):
        assert got.tolist() == wanted.tolist()


def person(x=0.0, score=0.9, face=0):
    embedding = np.zeros((1, DIM), np.float32)
    embedding[0, face] = score
    return Detections(np.array([[x, 0, x + 40, 100]], np.float32), np.array([score], np.float32), embedding)


def test_who_is_seen_once_has_a_visit_too():
    assert VisitTracker(7).update(0, person(score=0.5)).tolist() == [7]


def test_a_visit_ends_when_nobody_goes_on_with_it():
    tracker, gap = VisitTracker(), int(LOST_SECONDS * MICROSECONDS)
    assert tracker.update(0, person()).tolist() == [0]
    assert tracker.update(gap, person()).tolist() == [0]
    assert tracker.update(2 * gap, Detections.empty(DIM)).tolist() == []
    assert tracker.alive == {0}
    assert tracker.update(2 * gap + 1, person()).tolist() == [1]
    assert tracker.alive == {1}


def test_the_one_who_looks_alike_goes_on():
    tracker = VisitTracker()
    tracker.update(0, person(face=0))
    two = [person(x=5, face=1), person(x=25, face=0)]
    both = Detections(*(np.concatenate([getattr(p, k) for p in two]) for k in ("boxes", "scores", "embeddings")))
    assert tracker.update(500_000, both).tolist() == [1, 0]


def test_far_away_is_somebody_else_however_alike():
    tracker = VisitTracker()
    tracker.update(0, person())
    assert tracker.update(500_000, person(x=400)).tolist() == [1]


def test_wall_clock_microseconds():
    now = 1_795_000_000_000_000
    tracker = VisitTracker()
    assert [tracker.update(now + 33_333 * n, person(x=n)).tolist() for n in range(3)] == [[0], [0], [0]]


def test_nobody_at_all():
    tracker = VisitTracker()
    tracker.warm_up([])
    assert tracker.update(0, Detections.empty(DIM)).tolist() == [] and tracker.next_visit == 0
