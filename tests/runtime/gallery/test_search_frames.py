"""People of single frames, found in the tables and by `psarm.evaluation` and `psarm.runtime.rank` in memory."""

import gallery_tables as gallery
import numpy as np
import pytest
from gallery_tables import NOON, SECOND, Rows, random_rows, tables

from psarm.errors import GalleryError, UsageError
from psarm.evaluation import rerank
from psarm.runtime import Detections, rank
from psarm.runtime.gallery import nearest
from psarm.runtime.gallery.gallery import Gallery
from psarm.runtime.gallery.records import FrameHit, Where
from psarm.runtime.gallery.search import MOST, SearchRequest, search_frames, search_visits


def unit(rng: np.random.Generator, size: int = 8, coarse: bool = False) -> np.ndarray:
    if coarse:
        return (rng.choice([-1, 1], size) / np.float32(2)).astype(np.float32)
    values = rng.normal(size=size).astype(np.float32)
    return values / np.linalg.norm(values)


def context_of(rng: np.random.Generator, query: np.ndarray, count: int, coarse: bool = False) -> Detections:
    others = [unit(rng, len(query), coarse) for _ in range(count - 1)]
    boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (count, 1))
    return Detections(boxes, np.ones(count, np.float32), np.stack([query, *others]))


def found(hits: list[FrameHit]) -> list[tuple[str, int, int]]:
    return [(hit.source, hit.frame, hit.person) for hit in hits]


def expected(rows: Rows, order: np.ndarray) -> list[tuple[str, int, int]]:
    keys = rows.keys
    return [(gallery.name(keys[row][0]), keys[row][1], keys[row][2]) for row in order]


@pytest.mark.parametrize("coarse", [False, True], ids=["random", "many equal"])
@pytest.mark.parametrize("people", [None, 1, 3, 7], ids=["no context", "alone", "context of 3", "context of 7"])
def test_the_hits_are_those_of_rank(coarse: bool, people: int | None) -> None:
    rows = random_rows(seed=people or 0, frames=60, coarse=coarse)
    made = tables(rows)
    rng = np.random.default_rng(1)
    for top_k, k1, k2 in [(1, 1, 1), (7, 30, 4), (40, 10, 3), (1000, 5, 8)]:
        query = unit(rng, coarse=coarse)
        context = None if people is None else context_of(rng, query, people, coarse)
        hits = search_frames(made, SearchRequest(query, top_k, context=context, k1=k1, k2=k2))
        ranked = rank(query, rows.people, top_k, context, k1, k2)
        assert found(hits) == [
            (gallery.name(rows.frames[hit.frame][0]), rows.frames[hit.frame][1], hit.index) for hit in ranked
        ]
        np.testing.assert_allclose([hit.similarity for hit in hits], [hit.similarity for hit in ranked], atol=1e-6)
        np.testing.assert_array_equal([hit.box for hit in hits], [hit.box for hit in ranked])
        assert [hit.score for hit in hits] == [hit.score for hit in ranked]


WHERES = [
    Where(),
    Where(cameras=("door's 0",)),
    Where(sources=(gallery.name(1), gallery.name(2))),
    Where(cameras=("door's 0",), sources=(gallery.name(2),)),
    Where(min_score=0.7),
    Where(start=gallery.time(0, 3 * SECOND), end=gallery.time(1, 5 * SECOND), min_score=0.6),
    Where(end=NOON),
]


def allowed(rows: Rows, where: Where) -> np.ndarray:
    result = []
    for (source, frame, _), score in zip(rows.keys, rows.scores, strict=True):
        time = gallery.time(source, frame)
        timed = where.start is not None or where.end is not None
        result.append(
            (where.cameras is None or gallery.camera(source) in where.cameras)
            and (where.sources is None or gallery.name(source) in where.sources)
            and not (timed and time is None)
            and (where.start is None or time >= where.start)
            and (where.end is None or time < where.end)
            and (where.min_score is None or score >= np.float32(where.min_score))
        )
    return np.array(result)


@pytest.mark.parametrize("where", WHERES)
@pytest.mark.parametrize("with_context", [False, True])
def test_filters_hold_before_the_search_and_everybody_of_a_frame_is_matched(
    where: Where, with_context: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = random_rows(seed=3, frames=45)
    made = tables(rows)
    rng = np.random.default_rng(5)
    mask = allowed(rows, where)
    for top_k, few in ((2, nearest.FEW), (500, nearest.FEW), (2, -1), (500, -1)):
        monkeypatch.setattr(nearest, "FEW", few)
        query = unit(rng)
        context = context_of(rng, query, 4) if with_context else None
        similarities = np.where(mask, rows.embeddings @ query, -np.inf).astype(np.float32)
        if context is not None:
            similarities = rerank(similarities, rows.offsets, rows.embeddings, context.embeddings, 6, 4)
            similarities[~mask] = -np.inf
        order = np.argsort(-similarities, kind="stable")[: min(top_k, mask.sum())]
        hits = search_frames(made, SearchRequest(query, top_k, where, context, k1=6, k2=4))
        assert found(hits) == expected(rows, order)
        np.testing.assert_allclose([hit.similarity for hit in hits], similarities[order], atol=1e-6)


def test_of_equals_at_the_edge_the_earlier_are_found() -> None:
    rows = random_rows(seed=0, frames=90, most=4)
    same = np.full(8, 0.25, np.float32)
    rows.people = [Detections(people.boxes, people.scores, np.tile(same, (len(people), 1))) for people in rows.people]
    hits = search_frames(tables(rows), SearchRequest(same, 5))
    assert found(hits) == expected(rows, np.arange(5))


def test_a_score_that_equals_the_lowest_is_found() -> None:
    ones = np.ones((1, 8), np.float32)
    rows = Rows([(0, 0)], [Detections(np.zeros((1, 4), np.float32), np.array([0.7], np.float32), ones)], [[None]])
    assert len(search_frames(tables(rows), SearchRequest(ones[0], where=Where(min_score=0.7)))) == 1


def test_an_empty_gallery_and_one_of_one_person() -> None:
    query = np.eye(8, dtype=np.float32)[0]
    context = context_of(np.random.default_rng(0), query, 3)
    assert search_frames(tables(Rows()), SearchRequest(query)) == []
    assert search_frames(tables(Rows()), SearchRequest(query, context=context)) == []
    one = random_rows(seed=0, frames=1, most=1, sources=1)
    one.people = [Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32), query[None])]
    one.visits = [[None]]
    hits = search_frames(tables(one), SearchRequest(query, context=context))
    assert [(hit.similarity, hit.offset_s, hit.time, hit.visit) for hit in hits] == [(1.0, 0.0, NOON, None)]


def test_several_pictures_of_a_person_are_one_query() -> None:
    rows = random_rows(seed=7, frames=30)
    made = tables(rows)
    rng = np.random.default_rng(0)
    pictures = np.stack([unit(rng), unit(rng), unit(rng)])
    mean = pictures.mean(axis=0)
    mean /= np.linalg.norm(mean)
    for context in (None, context_of(rng, mean, 4)):
        together = search_frames(made, SearchRequest(pictures * np.float32([[1], [2], [3]]), context=context))
        alone = search_frames(made, SearchRequest(mean, context=context))
        assert found(together) == found(alone)
        np.testing.assert_allclose([hit.similarity for hit in together], [hit.similarity for hit in alone], atol=1e-6)


def test_only_video_has_seconds_into_a_file() -> None:
    rows = random_rows(seed=0, frames=9)
    hits = search_frames(tables(rows, kind="pictures"), SearchRequest(rows.embeddings[0]))
    assert {hit.offset_s for hit in hits} == {None}
    hits = search_frames(tables(rows), SearchRequest(rows.embeddings[0]))
    assert all(hit.offset_s == hit.frame / 1e6 for hit in hits)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (SearchRequest(np.ones(7, np.float32)), r"must be \[8\], or \[q,8\]"),
        (SearchRequest(np.ones((0, 8), np.float32)), r"got \[0, 8\]"),
        (SearchRequest(np.full(8, np.nan, np.float32)), "not numbers"),
        (SearchRequest(np.stack([np.ones(8, np.float32), -np.ones(8, np.float32)])), "cancel one another out"),
        (SearchRequest(np.ones(8, np.float32), top_k=0), "at least 1 and at most 100000000, got 0"),
        (SearchRequest(np.ones(8, np.float32), top_k=2**63), "at most 100000000, got 9223372036854775808"),
        (SearchRequest(np.ones(8, np.float32), k1=2**63), "at most 100000000"),
        (SearchRequest(np.zeros(8, np.float32)), "unit length, got one of length 0"),
        (SearchRequest(np.full(8, 1e38, np.float32)), r"unit length, got one of length 2\.8"),
        (SearchRequest(np.ones(8, np.float32), context=Detections.empty(4)), r"context must be \[k,8\]"),
    ],
)
def test_a_query_that_cannot_work_is_refused(request_: SearchRequest, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        search_frames(tables(Rows()), request_)


def test_as_many_as_may_be_asked_for_are_found() -> None:
    rows = random_rows(seed=0, frames=9)
    query = rows.embeddings[0]
    assert len(search_frames(tables(rows), SearchRequest(query, MOST))) == len(rows.keys)
    made, context = tables(rows), context_of(np.random.default_rng(0), query, 2)
    hits = search_visits(made, SearchRequest(query, MOST, context=context, k1=MOST))
    assert len(hits) == len(search_visits(made, SearchRequest(query, MOST)))


def test_a_gallery_that_keeps_visits_only_has_no_people_of_frames() -> None:
    made = Gallery.create("memory://visits", "f", 8, "/b", people=False)
    with pytest.raises(GalleryError, match="memory://visits keeps visits only, and no people of single frames"):
        made.search_frames(np.ones(8, np.float32))
