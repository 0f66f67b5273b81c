"""False-match rates of a gallery against loops over its visits."""

import shutil
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gallery_tables as gallery
import numpy as np
import pytest

from psarm.errors import GalleryError, UsageError
from psarm.runtime.gallery import overlaps
from psarm.runtime.gallery.calibration import Calibration, calibrate, load_calibration, save_calibration
from psarm.runtime.gallery.gallery import Gallery
from psarm.runtime.gallery.overlaps import OVERLAP, overlapping_visits
from psarm.runtime.gallery.pairs import pair_similarities, random_pairs, read_visits, simultaneous_pairs, without
from psarm.runtime.gallery.schema import PEOPLE, VISITS, schemas, visit_id


def visits_table(seed: int, count: int, sources: int = 3, long: int = 6) -> tuple[Any, list[dict[str, Any]]]:
    """Visits of up to `long` frames, in no order."""
    import lancedb

    rng = np.random.default_rng(seed)
    scores, embeddings = gallery.weighted(rng, count, 8)
    rows = []
    for number in range(count):
        source, first = int(rng.integers(sources)), int(rng.integers(40))
        times = {"first_frame": first, "last_frame": first + int(rng.integers(long)), "start": None, "end": None}
        empty = {"frames": 1, "total": 1.0, "best_frame": first, "box": [0.0] * 4, "thumbnail": None, "camera": "door"}
        rows.append(
            {"visit": visit_id(source, number), "source": source, "score": scores[number]}
            | {"embedding": embeddings[number], **times, **empty}
        )
    database = lancedb.connect("memory://")
    table = database.create_table(VISITS, schema=schemas(8)[VISITS])
    if rows:
        table.add(rows)
    people = database.create_table(PEOPLE, schema=schemas(8)[PEOPLE])
    return SimpleNamespace(visits=table, people=people, database=database), rows


def together(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (
        one["source"] == other["source"]
        and one["first_frame"] <= other["last_frame"]
        and other["first_frame"] <= one["last_frame"]
    )


def similarity(one: dict[str, Any], other: dict[str, Any]) -> float:
    return float(one["embedding"] @ other["embedding"] / np.linalg.norm(one["embedding"]))


@pytest.mark.parametrize("count", [0, 1, 2, 60])
def test_pairs_are_those_that_a_loop_finds(count: int) -> None:
    tables, rows = visits_table(1, count)
    visits = read_visits(tables.visits)
    pairs = simultaneous_pairs(visits, 10_000, np.random.default_rng(0))
    found = np.sort(pair_similarities(tables.visits, visits, pairs))
    by_first = sorted(rows, key=lambda row: (row["source"], row["first_frame"]))
    wanted = [pair for pair in combinations(by_first, 2) if together(*pair)]
    assert len(found) == len(wanted)
    if wanted:
        either = {round(similarity(*pair), 5) for pair in wanted} | {round(similarity(b, a), 5) for a, b in wanted}
        assert {round(float(value), 5) for value in found} <= either
        assert len({tuple(sorted(pair)) for pair in pairs.tolist()}) == len(wanted)


def test_some_of_many_pairs_are_all_different() -> None:
    tables, _ = visits_table(2, 80)
    visits = read_visits(tables.visits)
    pairs = simultaneous_pairs(visits, 50, np.random.default_rng(0))
    assert len({tuple(pair) for pair in pairs.tolist()}) == 50
    for one, other in pairs:
        assert visits.sources[one] == visits.sources[other]
        assert visits.first[other] <= visits.last[one] and visits.first[one] <= visits.last[other]


@pytest.mark.parametrize(("count", "limit", "found"), [(0, 5, 0), (1, 5, 0), (4, 6, 6), (4, 5, 5), (100, 7, 7)])
def test_random_pairs_are_of_two_visits(count: int, limit: int, found: int) -> None:
    pairs = random_pairs(count, limit, np.random.default_rng(0))
    assert pairs.shape == (found, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert ((pairs >= 0) & (pairs < max(count, 1))).all()


def test_rates_are_shares_of_the_pairs() -> None:
    tables, rows = visits_table(3, 150)
    target = 0.05
    calibration = calibrate(tables, target)
    assert calibration.certain and calibration.visits == 150 and calibration.independent <= 75
    visits = read_visits(tables.visits)
    values = pair_similarities(tables.visits, visits, simultaneous_pairs(visits, 10_000, np.random.default_rng(0)))
    assert calibration.pairs == len(values) == sum(together(*pair) for pair in combinations(rows, 2))
    for level in np.linspace(-1, 1, 41):
        exact = (np.sum(values >= level) + 1) / (len(values) + 1)
        assert exact <= calibration.false_match_rate(level) <= exact * 1.05
        assert calibration.false_match_rate(level) <= calibration.bound(level) <= 1
    assert calibration.false_match_rate(calibration.threshold) <= target
    assert calibration.false_match_rate(np.nextafter(np.float32(calibration.threshold), np.float32(-1))) > target
    assert calibration.expected_false_hits(-1, 40) == 40


def test_the_bound_of_no_false_match_is_about_three_in_all() -> None:
    calibration = Calibration(10**9, 1000, True, 0.01, 0.5, 9, "", (0.9, 0.1), (1, 10**9))
    assert calibration.bound(0.95) == pytest.approx(3 / 1000, rel=0.15)


def test_many_pairs_are_kept_as_few_numbers() -> None:
    tables, _ = visits_table(4, 300, sources=1, long=40)
    calibration = calibrate(tables, target=0.2)
    assert calibration.pairs > 20_000
    assert len(calibration.ranks) < 800
    assert 0.19 < calibration.false_match_rate(calibration.threshold) <= 0.2


def test_too_few_at_the_same_time_are_compared_with_anybody_and_that_is_said() -> None:
    tables, _ = visits_table(5, 40, long=1)
    calibration = calibrate(tables)
    assert not calibration.certain
    assert calibration.pairs == 40 * 39 // 2


def test_a_gallery_that_is_too_small_is_refused() -> None:
    for count, pairs in ((0, 0), (1, 0), (20, 190)):
        tables, _ = visits_table(6, count, long=1)
        with pytest.raises(GalleryError, match=f"{count} visits make {pairs} pairs, .* at least 300"):
            calibrate(tables)


@pytest.mark.parametrize(("target", "pairs"), [(0, 1000), (1, 1000), (float("nan"), 1000), (0.01, 299)])
def test_options_that_cannot_work_are_refused(target: float, pairs: int) -> None:
    with pytest.raises(UsageError, match=r"must lie between 0 and 1|at least 300 pairs, got 299"):
        calibrate(visits_table(6, 0)[0], target, pairs)


def test_it_is_kept_and_replaced() -> None:
    tables, _ = visits_table(7, 40)
    assert load_calibration(tables.database) is None
    for target in (0.1, 0.2):
        calibration = calibrate(tables, target)
        save_calibration(tables.database, calibration)
        assert load_calibration(tables.database) == calibration


def test_a_damaged_one_is_said() -> None:
    tables, _ = visits_table(7, 0)
    tables.database.create_table("calibration", [{"json": '{"similarities": [], "ranks": []}'}])
    with pytest.raises(GalleryError, match="calibrate it again"):
        load_calibration(tables.database)


def test_one_that_cannot_be_opened_is_said_and_calibrating_again_mends_it(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "gallery", "f", 8, "/b") as made:
        calibration = Calibration(100, 50, True, 0.01, 0.5, 9, "", (0.9, 0.1), (1, 100))
        save_calibration(made.store.database, calibration)
        shutil.rmtree(tmp_path / "gallery" / "calibration.lance" / "_versions")
        with pytest.raises(GalleryError, match="calibrate it again"):
            made.search(np.eye(8, dtype=np.float32)[0])
        save_calibration(made.store.database, calibration)
        assert made.calibration() == calibration
        assert made.search(np.eye(8, dtype=np.float32)[0]) == []


def test_a_hit_below_the_threshold_is_probably_not_a_match() -> None:
    calibration = Calibration(100, 50, True, 0.01, 0.5, 9, "", (0.9, 0.1), (1, 100))

    def judged(similarity: float, rate: float | None) -> bool:
        hit: Any = SimpleNamespace(similarity=similarity, false_match_rate=rate)
        return calibration.probably_not_a_match(hit)

    assert judged(0.49, 0.1)
    assert not judged(0.5, 0.01)
    assert not judged(0.1, None)


def share_of_smaller(one: np.ndarray, other: np.ndarray) -> float:
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / smaller if smaller > 0 else 0.0


@pytest.mark.parametrize("batch", [3, 100_000])
def test_visits_that_overlap_in_a_frame_are_those_that_a_loop_finds(monkeypatch: Any, batch: int) -> None:
    monkeypatch.setattr(overlaps, "_BATCH", batch)
    rows = gallery.random_rows(11, frames=60, most=6)
    wanted = set()
    for people, visits in zip(rows.people, rows.visits, strict=True):
        for one, other in combinations(range(len(people)), 2):
            if None in (visits[one], visits[other]):
                continue
            if share_of_smaller(people.boxes[one], people.boxes[other]) >= OVERLAP:
                wanted.add(tuple(sorted((visits[one], visits[other]))))
    found = overlapping_visits(gallery.tables(rows).people)
    assert [tuple(pair) for pair in found.tolist()] == sorted(wanted)
    assert len(wanted) > 10


def test_visits_that_may_be_one_person_are_not_compared() -> None:
    tables, rows = visits_table(8, 30, sources=1, long=30)
    visits = read_visits(tables.visits)
    pairs = simultaneous_pairs(visits, 10_000, np.random.default_rng(0))
    gone = [tuple(sorted(visits.ids[pair].tolist())) for pair in pairs[::3]]
    left = without(pairs, visits, np.array(sorted(gone), np.int64))
    assert {tuple(sorted(visits.ids[pair].tolist())) for pair in left} == {
        tuple(sorted(visits.ids[pair].tolist())) for pair in pairs
    } - set(gone)
    assert len(without(pairs, visits, np.zeros((0, 2), np.int64))) == len(pairs)
    before = calibrate(tables, 0.2)
    box = {"box": [0.0, 0.0, 10.0, 20.0], "score": 0.5, "embedding": [0.0] * 8, "camera": "door", "time": None}
    pair = [{"source": 0, "frame": 0, "person": n, "visit": visit, **box} for n, visit in enumerate(gone[0])]
    tables.people.add(pair)
    assert calibrate(tables, 0.2).pairs == before.pairs - 1
    assert len(rows) == 30
