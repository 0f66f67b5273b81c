"""Indexes of a gallery's embeddings: what they find, and that nothing added later is lost."""

from typing import Any

import gallery_tables as gallery
import numpy as np
import pytest
from gallery_tables import random_rows, tables
from lancedb.index import IvfSq

from psarm.errors import UsageError
from psarm.runtime.gallery import ann
from psarm.runtime.gallery import nearest as nearest_module
from psarm.runtime.gallery.ann import build_index
from psarm.runtime.gallery.context import ORDER
from psarm.runtime.gallery.nearest import nearest
from psarm.runtime.gallery.records import Where
from psarm.runtime.gallery.search import Approximate, SearchRequest, search_frames, search_visits

EVERYTHING = Approximate(nprobes=1000, refine=1000)


def indexed(table: Any) -> list[str]:
    return [column for index in table.list_indices() for column in index.columns]


def test_a_small_table_stays_exact_and_says_so() -> None:
    made = tables(random_rows(seed=0, frames=9))
    reports = build_index(made)
    assert [report.table for report in reports] == ["people", "visits"]
    for report in reports:
        assert report.kind is None and report.recall is None
        assert report.reason == (
            f"the exact search of its {report.rows} rows needs none; one is built from 10,000 rows on"
        )
    query = random_rows(seed=0, frames=9).embeddings[0]
    exact, through = (search_visits(made, SearchRequest(query, approximate=way)) for way in (None, Approximate()))
    assert [hit.visit for hit in exact] == [hit.visit for hit in through]


@pytest.mark.parametrize("kind", ["IVF_PQ", "IVF_SQ", "IVF_HNSW_SQ"])
def test_an_index_that_is_looked_at_whole_finds_what_the_exact_search_finds(kind: Any) -> None:
    rows = random_rows(seed=1, frames=300)
    made = tables(rows)
    report, visits = build_index(made, kind, queries=5, approximate=EVERYTHING, smallest=300)
    assert (report.kind, report.rows, report.reason, report.queries) == (kind, len(rows.keys), "", 5)
    assert report.recall is not None and report.recall > 0.9
    assert indexed(made.people) == ["embedding"] and visits.kind is None and indexed(made.visits) == []
    query = rows.embeddings[5] / np.linalg.norm(rows.embeddings[5])
    for where in (Where(), Where(min_score=0.97)):
        exact = search_frames(made, SearchRequest(query, 5, where))
        through = search_frames(made, SearchRequest(query, 5, where, approximate=EVERYTHING))
        assert [hit.frame for hit in exact] == [hit.frame for hit in through]


@pytest.mark.parametrize("batch", [7, 4096])
@pytest.mark.parametrize("coarse", [False, True], ids=["random", "many equal"])
def test_recall_is_that_of_exact_searches_one_by_one(batch: int, coarse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ann, "ROWS_AT_ONCE", batch)
    made = tables(random_rows(seed=6, frames=240, coarse=coarse))
    made.people.delete("source = 1")  # so that row ids are no places
    monkeypatch.setattr(ann, "nearest", losing)
    for k in (1, 4, 1000):
        report, _ = build_index(made, "IVF_SQ", k, 30, smallest=100)
        assert report.recall == one_by_one(made.people, k, 30)
        assert 0 < report.recall < 1


def losing(*arguments: Any) -> Any:
    """As through an index that loses every third row."""
    *exactly, approximate = arguments
    rows = nearest(*exactly)
    return rows if approximate is None else rows.filter(np.arange(len(rows)) % 3 != 1)


def one_by_one(table: Any, k: int, queries: int) -> float:
    """Recall by an exact search a query."""
    places = np.random.default_rng(0).choice(table.count_rows(), queries, replace=False)
    found = wanted = 0
    for row in table.take_offsets(places.tolist()).to_arrow().to_pylist():
        query = np.array(row["embedding"], np.float32)
        query /= max(np.linalg.norm(query), 1e-12)
        exact, through = (
            [
                similarity
                for *key, similarity in zip(*(rows[name].to_pylist() for name in (*ORDER, "similarity")), strict=True)
                if key != [row[name] for name in ORDER]
            ][:k]
            for rows in (losing(table, query, k + 1, ORDER, ORDER, None, way) for way in (None, Approximate()))
        )
        wanted += len(exact)
        found += sum(similarity >= exact[-1] for similarity in through)
    return found / wanted


def test_an_exact_pass_reads_the_table_once_and_times_few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = []

    def watched(*arguments: Any) -> Any:
        exact.append(arguments[-1] is None)
        return nearest(*arguments)

    monkeypatch.setattr(ann, "nearest", watched)
    said: list[str] = []
    made = tables(random_rows(seed=7, frames=300))
    report, _ = build_index(made, "IVF_SQ", queries=20, smallest=300, on_step=said.append)
    assert sum(exact) == 5 and len(exact) == 5 + 1 + 20 and report.exact_ms is not None
    assert said == [
        f"Building the index of {report.rows} people",
        f"Measuring the index of {report.rows} people with 20 queries",
    ]


def in_partitions(rows: Any, partitions: int) -> Any:
    """Tables of `rows`, whose people have an index of so many partitions."""
    made = tables(rows)
    made.people.create_index("embedding", config=IvfSq(distance_type="dot", num_partitions=partitions))
    return made


def test_only_as_many_partitions_are_looked_at_as_asked_for() -> None:
    rows = random_rows(seed=2, frames=300)
    made = in_partitions(rows, 16)

    def found(query: Any, way: Approximate | None) -> list[tuple[str, int]]:
        return [(hit.source, hit.frame) for hit in search_frames(made, SearchRequest(query, 10, approximate=way))]

    queries = [embedding / np.linalg.norm(embedding) for embedding in rows.embeddings[:20]]
    exact = [found(query, None) for query in queries]
    assert [found(query, Approximate(16, 1000)) for query in queries] == exact
    assert [found(query, Approximate(1, 1000)) for query in queries] != exact


def test_a_narrow_filter_loses_no_hits_in_few_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_module, "FEW", 0)
    rows = random_rows(seed=2, frames=300)
    made = in_partitions(rows, 16)
    score = float(np.sort(rows.scores)[-5])
    request = SearchRequest(rows.embeddings[0], 5, Where(min_score=score), approximate=Approximate(1, 1))
    assert len(search_frames(made, request)) == 5


def test_rows_added_after_the_index_are_found_through_it() -> None:
    rows = random_rows(seed=3, frames=300)
    made = tables(rows)
    build_index(made, "IVF_PQ", queries=1, smallest=300)
    later = random_rows(seed=4, frames=3, most=1, sources=1)
    later.frames = [(0, frame + 10**9) for _, frame in later.frames]
    added = gallery.people_rows(later)
    made.people.add(added)
    query = added[0]["embedding"] / np.linalg.norm(added[0]["embedding"])
    hit, *_ = search_frames(made, SearchRequest(query, 1, approximate=Approximate(nprobes=1, refine=1)))
    assert (hit.frame, hit.person) == (added[0]["frame"], added[0]["person"])


def test_a_table_that_has_become_small_loses_its_index() -> None:
    made = tables(random_rows(seed=5, frames=300))
    build_index(made, "IVF_SQ", queries=1, smallest=300)
    build_index(made, "IVF_SQ", queries=1, smallest=10_000)
    assert indexed(made.people) == []


@pytest.mark.parametrize("options", [{"k": 0}, {"queries": 0}])
def test_options_that_cannot_work_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        build_index(tables(random_rows(seed=0, frames=3)), **options)
