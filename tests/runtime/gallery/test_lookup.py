"""Indexes of columns change how soon rows are found, and nothing else."""

from datetime import timedelta

import numpy as np
import pytest
import writing_process as written
from writing_process import DIM, START, STEP, frame_people, source_of

from psarm.runtime.detections import Detections
from psarm.runtime.gallery import lookup
from psarm.runtime.gallery.gallery import Gallery
from psarm.runtime.gallery.records import SourceBatch, Where

FRAMES = 40


def filled(where, compact_every):
    """A gallery of two sources, compacted after some of its commits."""
    gallery = Gallery.create(where, "fingerprint", DIM, "/bundle")
    with gallery.writer() as writer:
        writer.compact_every = compact_every
        for source in range(2):
            writer.add_source(source_of(source))
        for start in range(0, FRAMES, 4):
            frames = range(start, start + 4)
            batches = [SourceBatch(source, tuple(frame_people(source, at) for at in frames)) for source in range(2)]
            writer.commit(batches)
    return gallery


def columns(table):
    return sorted(column for index in table.list_indices() for column in index.columns)


def answers(gallery):
    """Hits of searches by every filter, as plain values."""
    query = np.linspace(-1, 1, DIM, dtype=np.float32)
    query /= np.linalg.norm(query)
    around = Detections(np.tile(np.float32([0, 0, 5, 9]), (3, 1)), np.ones(3), np.eye(3, DIM))
    found = []
    for where in (
        Where(),
        Where(cameras=(source_of(1).camera,)),
        Where(start=START + timedelta(microseconds=7 * STEP), end=START + timedelta(microseconds=31 * STEP)),
        Where(min_score=0.7),
    ):
        for context in (None, around):
            found += [(hit.visit, hit.similarity) for hit in gallery.search(query, 50, where, context)]
            hits = gallery.search_frames(query, 50, where, context)
            found += [(hit.source, hit.frame, hit.person, hit.similarity) for hit in hits]
    return found


@pytest.mark.parametrize("compact_every", [2, 3, 7])
def test_with_and_without_the_same_is_found(tmp_path, monkeypatch, compact_every):
    plain = filled(tmp_path / "plain", 1000)
    monkeypatch.setattr(lookup, "SMALLEST", 1)
    indexed = filled(tmp_path / "indexed", compact_every)
    assert columns(plain.store.people) == []
    indexed.store.refresh()
    assert columns(indexed.store.people) == ["frame", "source", "time", "visit"]
    assert columns(indexed.store.visits) == ["source", "start", "visit"]
    assert answers(indexed) == answers(plain)
    for source in range(2):  # a merge by an indexed id doubles no visit
        written.check_visits(indexed, source, [frame_people(source, number) for number in range(FRAMES)])


def test_after_a_purge_they_are_there_again(tmp_path, monkeypatch):
    monkeypatch.setattr(lookup, "SMALLEST", 1)
    gallery = filled(tmp_path / "gallery", 3)
    moment = START + timedelta(microseconds=11 * STEP)
    gallery.purge(moment)
    gallery.store.refresh()
    assert columns(gallery.store.people) == ["frame", "source", "time", "visit"]
    monkeypatch.setattr(lookup, "SMALLEST", 10**9)
    plain = filled(tmp_path / "plain", 1000)
    plain.purge(moment)
    assert answers(gallery) == answers(plain)
