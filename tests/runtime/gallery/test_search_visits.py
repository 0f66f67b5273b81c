"""Visits found in the tables against loops over everybody in memory."""

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import gallery_tables as gallery
import numpy as np
import pytest
from gallery_tables import NOON, SECOND, Rows, random_rows, tables

from psarm.evaluation import rerank
from psarm.runtime import Detections
from psarm.runtime.gallery.records import VisitHit, Where
from psarm.runtime.gallery.search import SearchRequest, search_frames, search_visits

Key = tuple[str, int, int | None]


def unit(rng: np.random.Generator, coarse: bool = False) -> np.ndarray:
    values = rng.choice([-0.5, 0.5], 8) if coarse else rng.normal(size=8)
    return values.astype(np.float32) if coarse else (values / np.linalg.norm(values)).astype(np.float32)


def key(hit: VisitHit) -> Key:
    return hit.source, hit.first_frame, hit.visit


def first_frames(rows: Rows) -> dict[int, int]:
    first: dict[int, int] = {}
    for (_, frame, _), visit in zip(rows.keys, rows.visit_ids, strict=True):
        if visit is not None:
            first.setdefault(visit, frame)
    return first


def grouped(rows: Rows, similarities: np.ndarray, top_k: int) -> list[tuple[Key, float]]:
    """The best row of each visit, and every row without one; -inf is no hit."""
    hits: list[tuple[Key, float]] = []
    seen = set()
    first = first_frames(rows)
    for row in np.argsort(-similarities, kind="stable"):
        (source, frame, _), visit = rows.keys[row], rows.visit_ids[row]
        if similarities[row] == -np.inf or visit in seen:
            continue
        if visit is not None:
            seen.add(visit)
        hits.append(((gallery.name(source), frame if visit is None else first[visit], visit), similarities[row]))
    return hits[:top_k]


@pytest.mark.parametrize("coarse", [False, True], ids=["random", "many equal"])
@pytest.mark.parametrize("people", [1, 3, 7])
@pytest.mark.parametrize("min_score", [None, 0.74])
def test_with_context_the_best_row_after_cbgm_stands_for_its_visit(
    coarse: bool, people: int, min_score: float | None
) -> None:
    rows = random_rows(seed=people, frames=90, coarse=coarse)
    made = tables(rows)
    rng = np.random.default_rng(2)
    mask = np.ones(len(rows.keys), bool) if min_score is None else rows.scores >= np.float32(min_score)
    for top_k, k1, k2 in [(1, 1, 2), (3, 30, 4), (9, 5, 8), (1000, 10, 3)]:
        query = unit(rng, coarse)
        embeddings = np.stack([query, *[unit(rng, coarse) for _ in range(people - 1)]])
        boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (people, 1))
        context = Detections(boxes, np.ones(people, np.float32), embeddings)
        similarities = np.where(mask, rows.embeddings @ query, -np.inf).astype(np.float32)
        similarities = rerank(similarities, rows.offsets, rows.embeddings, embeddings, k1, k2)
        similarities[~mask] = -np.inf
        wanted = grouped(rows, similarities, top_k)
        hits = search_visits(made, SearchRequest(query, top_k, Where(min_score=min_score), context, k1, k2))
        assert [key(hit) for hit in hits] == [item for item, _ in wanted]
        np.testing.assert_allclose([hit.similarity for hit in hits], [value for _, value in wanted], atol=1e-6)
        assert {hit.false_match_rate for hit in hits} <= {None}


def test_few_long_visits_do_not_hide_the_others() -> None:
    rows = random_rows(seed=1, frames=150, most=4, sources=1)
    near = rows.embeddings[0] / np.linalg.norm(rows.embeddings[0])
    rows.visits = [[0] * len(people) for people in rows.people]
    rows.visits[-1] = [1] * len(rows.people[-1])
    rows.visits[0] = [2] * len(rows.people[0])
    context = Detections(np.array([[0, 0, 1, 1]], np.float32), np.ones(1, np.float32), near[None])
    hits = search_visits(tables(rows), SearchRequest(near, 3, context=context, k1=1, k2=1))
    wanted = grouped(rows, rows.embeddings @ near, 3)
    assert len(wanted) == 3
    assert [key(hit) for hit in hits] == [item for item, _ in wanted]


def oracle(rows: Rows, query: np.ndarray, allowed: Callable[[dict[str, Any]], bool]) -> list[tuple[Key, float]]:
    """Every visit by its representative, and every person in none."""
    people = gallery.people_rows(rows)
    stays = [{**row, "first": row["frame"], "start": row["time"], "end": row["time"]} for row in people]
    stays = [row for row in stays if row["visit"] is None]
    stays += [{**row, "first": row["first_frame"]} for row in gallery.visit_rows(people)]
    found = []
    for row in filter(allowed, stays):
        similarity = float(np.float32(row["embedding"].astype(np.float64) @ query.astype(np.float64)))
        number = -1 if row["visit"] is None else row["visit"]
        item = (gallery.name(row["source"]), row["first"], row["visit"])
        found.append(((-similarity, row["source"], row["first"], number), item, similarity))
    return [(item, similarity) for _, item, similarity in sorted(found, key=lambda hit: hit[0])]


LATER = NOON + timedelta(hours=1, seconds=4)


@pytest.mark.parametrize(
    ("where", "allowed"),
    [
        (Where(), lambda row: True),
        (Where(cameras=("door's 1",)), lambda row: row["source"] == 2),
        (Where(sources=(gallery.name(0),), min_score=0.8), lambda row: row["source"] == 0 and row["score"] >= 0.8),
        (Where(start=LATER), lambda row: row["end"] is not None and row["end"] >= LATER),
        (Where(end=LATER), lambda row: row["start"] is not None and row["start"] < LATER),
        (
            Where(start=LATER, end=LATER + timedelta(microseconds=1)),
            lambda row: row["start"] is not None and row["start"] <= LATER <= row["end"],
        ),
    ],
)
def test_a_visit_is_found_by_its_representative_and_who_is_in_none_on_their_own(
    where: Where, allowed: Callable[[dict[str, Any]], bool]
) -> None:
    rows = random_rows(seed=4, frames=45)
    made = tables(rows)
    for top_k in (1, 6, 500):
        query = unit(np.random.default_rng(top_k))
        wanted = oracle(rows, query, allowed)[:top_k]
        hits = search_visits(made, SearchRequest(query, top_k, where))
        assert [key(hit) for hit in hits] == [item for item, _ in wanted]
        np.testing.assert_allclose([hit.similarity for hit in hits], [value for _, value in wanted], atol=1e-6)


def test_a_gallery_that_keeps_visits_only_finds_nobody_on_their_own() -> None:
    rows = random_rows(seed=4, frames=45)
    query = unit(np.random.default_rng(0))
    hits = search_visits(tables(rows, people=False), SearchRequest(query, 500))
    assert {hit.visit for hit in hits} == {visit for visit in rows.visit_ids if visit is not None}


def test_what_a_hit_says() -> None:
    rows = random_rows(seed=4, frames=45, sources=1)
    made = tables(rows)
    query = unit(np.random.default_rng(0))
    calibration: Any = SimpleNamespace(false_match_rate=lambda similarity: (1 - similarity) / 2)
    by_visit = {row["visit"]: row for row in gallery.visit_rows(gallery.people_rows(rows))}
    for hit in search_visits(made, SearchRequest(query, 500), calibration):
        assert hit.false_match_rate == (1 - hit.similarity) / 2
        assert (hit.start_s, hit.end_s) == (hit.first_frame / 1e6, hit.last_frame / 1e6)
        assert (hit.source, hit.camera) == (gallery.name(0), gallery.camera(0))
        assert hit.start == NOON + timedelta(microseconds=hit.first_frame)
        if hit.visit is None:
            assert (hit.frames, hit.best_frame, hit.last_frame) == (1, hit.first_frame, hit.first_frame)
            assert hit.thumbnail is None
        else:
            row = by_visit[hit.visit]
            for name in ("frames", "score", "best_frame", "thumbnail", "end", "last_frame"):
                assert getattr(hit, name) == row[name]
            np.testing.assert_array_equal(hit.box, row["box"])


def test_people_of_a_visit_that_is_not_written_yet_are_found() -> None:
    rows = random_rows(seed=4, frames=45)
    made = tables(rows)
    made.visits.delete("true")
    query = unit(np.random.default_rng(0))
    context = Detections(np.array([[0, 0, 1, 1]], np.float32), np.ones(1, np.float32), query[None])
    hits = search_visits(made, SearchRequest(query, 500, context=context))
    in_none = sum(visit is None for visit in rows.visit_ids)
    assert len(hits) == in_none + len({visit for visit in rows.visit_ids if visit is not None})
    assert all(hit.frames == 1 and hit.first_frame % SECOND == 0 for hit in hits)


@pytest.mark.parametrize("min_score", [None, 0.5], ids=["scanned", "read"])
def test_of_equals_the_earlier_by_source_and_first_frame_are_found(min_score: float | None) -> None:
    rows = random_rows(seed=6, frames=60)
    same = np.full(8, 0.25, np.float32)
    rows.people = [Detections(people.boxes, people.scores, np.tile(same, (len(people), 1))) for people in rows.people]
    made = tables(rows)
    made.visits.update(values={"embedding": same.tolist()})
    made.people.delete("visit IS NULL")
    wanted = sorted((row["source"], row["first_frame"], row["visit"]) for row in made.visits.to_arrow().to_pylist())
    assert [visit for *_, visit in wanted] != sorted(visit for *_, visit in wanted)
    for top_k in (1, 4, 9):
        hits = search_visits(made, SearchRequest(same, top_k, Where(min_score=min_score)))
        assert [key(hit) for hit in hits] == [(gallery.name(source), *rest) for source, *rest in wanted[:top_k]]


def test_people_of_a_source_that_is_not_known_yet_are_left_out() -> None:
    made = tables(random_rows(seed=4, frames=45))
    made.sources.delete("source = 1")
    query = unit(np.random.default_rng(0))
    context = Detections(np.array([[0, 0, 1, 1]], np.float32), np.ones(1, np.float32), query[None])
    for request in (SearchRequest(query, 500), SearchRequest(query, 500, context=context)):
        assert {hit.source for hit in search_visits(made, request)} == {gallery.name(0), gallery.name(2)}
        assert {hit.source for hit in search_frames(made, request)} == {gallery.name(0), gallery.name(2)}


def test_an_empty_gallery() -> None:
    query = unit(np.random.default_rng(0))
    context = Detections(np.array([[0, 0, 1, 1]], np.float32), np.ones(1, np.float32), query[None])
    assert search_visits(tables(Rows()), SearchRequest(query)) == []
    assert search_visits(tables(Rows()), SearchRequest(query, context=context)) == []
