"""The scale benchmark of galleries, at a few hundred rows."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from psarm.benchmarks import gallery_steps
from psarm.benchmarks.crop_search import Crops
from psarm.benchmarks.gallery_costs import month_costs
from psarm.benchmarks.gallery_markdown import costs_table, growth_table
from psarm.benchmarks.gallery_rows import ALIKE, SPREAD, STRETCH, Crowd, Footage, Scenery
from psarm.benchmarks.gallery_scale import Settings, Size, Way, recall_of
from psarm.benchmarks.gallery_spread import spread_of
from psarm.benchmarks.gallery_steps import STEPS, fill, in_fresh_process, spans
from psarm.benchmarks.gallery_tables import duration, print_report
from psarm.errors import DataError, PsarmError, UsageError

Scale = Callable[..., Any]
SMALL = Scenery(rows=600, cameras=2, embedding_dim=32, thumbnail_bytes=20)


def test_visits_and_scores_are_those_promised() -> None:
    stretch = Footage(Scenery(rows=100_000, embedding_dim=32)).stretch(0, 1, 0)

    lengths = np.unique(stretch.visits, return_counts=True)[1]
    assert lengths.max() == 40
    assert np.mean(lengths < 5) < 0.1  # only where the stretch ends
    assert len(stretch.scores) / STRETCH == pytest.approx(4, abs=0.3)
    assert stretch.scores.min() >= 0.5
    assert stretch.scores.max() <= 1
    np.testing.assert_allclose(np.linalg.norm(stretch.embeddings, axis=1), stretch.scores, rtol=1e-5)
    assert (np.diff(stretch.frames) >= 0).all()
    for visit in np.unique(stretch.visits)[:20]:
        scores = stretch.scores[stretch.visits == visit]
        best = [score >= scores[: place + 1].max() for place, score in enumerate(scores)]
        assert stretch.better[stretch.visits == visit].tolist() == best


def test_embeddings_spread_as_measured() -> None:
    crowd = Crowd(Scenery(rows=100_000))
    rng = np.random.default_rng(5)
    people = np.repeat(np.arange(400), 2)
    visits = crowd.visits_of(rng, people)
    rows = crowd.embeddings(rng, np.repeat(visits, 3, axis=0))  # [2400,D]
    crops = Crops(rows, np.repeat(people, 3), np.repeat(np.arange(800), 3), np.ones(2400, np.bool_))

    expected, found = SPREAD.similarities(), spread_of(crops).similarities()

    assert found == {name: pytest.approx(value, abs=0.03) for name, value in expected.items()}
    similarity = rows[::6] @ rows[3::6].T
    assert np.diag(similarity).mean() == pytest.approx(expected["person"], abs=0.03)
    assert 0 < ALIKE < 0.5


def test_without_nested_groups_there_is_no_spread() -> None:
    crops = Crops(np.eye(3), np.arange(3), np.arange(3), np.ones(3, np.bool_))

    with pytest.raises(DataError, match="two people"):
        spread_of(crops)


def test_a_stretch_does_not_depend_on_what_was_drawn_before() -> None:
    scenery = Scenery(rows=40_000, embedding_dim=32)
    footage = Footage(scenery)
    whole = list(footage.people(1, 0, 0, scenery.frames))
    parts = [*Footage(scenery).people(1, 0, 100, scenery.frames)]

    assert scenery.frames < STRETCH
    for expected, part in zip(whole[100:], parts, strict=True):
        assert part.frame == expected.frame
        np.testing.assert_array_equal(part.embeddings, expected.embeddings)
        np.testing.assert_array_equal(part.visits, expected.visits)


@pytest.mark.parametrize(
    ("frames", "done", "tail"), [(1, 0, True), (104, 0, True), (1730, 610, True), (1730, 0, False)]
)
def test_commits_follow_one_another(frames: int, done: int, tail: bool) -> None:
    found = list(spans(frames, done, tail))

    assert [begin for begin, _ in found] == [done, *(end for _, end in found[:-1])]
    assert found[-1][1] == frames
    assert all(begin // STRETCH == (end - 1) // STRETCH for begin, end in found)


@pytest.fixture
def scale(tmp_path: Path) -> Scale:
    """Measures in this process; importing lancedb anew takes seconds."""
    pytest.importorskip("lancedb")

    def size(settings: Settings = Settings(queries=2, cold=1), scenery: Scenery = SMALL, **steps: Any) -> Size:  # noqa: B008
        chosen = STEPS | steps
        return Size(tmp_path / "size", scenery, settings, lambda step, **arguments: chosen[step](**arguments))

    return size


def test_every_figure_is_there_and_nothing_is_measured_twice(scale: Scale, capsys: pytest.CaptureFixture[str]) -> None:
    found = scale().measure()

    assert 400 < found["people"] < 800
    assert found["filling"]["rows"] == found["people"]
    assert 0 < found["visits"] < found["people"]
    assert found["filling"]["live_commit_ms"] is not None
    assert len(found["searches"]) == 8
    plain = [one for one in found["searches"] if one["approximate"]]
    assert [one["recall"] for one in plain] == [1.0] * 2  # so few rows get no index
    report = {"sizes": [found], "costs": month_costs([found])}
    print_report(report)
    assert f"{found['people']:,}" in capsys.readouterr().out
    head, _, *rows = growth_table(report).splitlines()
    assert head == f"| people | {found['people']:,} |" and len(rows) == 9 + 8
    assert "| index: disk | – |" in rows and "| index: building | – |" in rows
    assert "| index: hits found of people, of visits | –, – |" in rows
    assert rows[-2].startswith("| visits, through the index |") and rows[-2].endswith(" ms) |")
    head, _, *rows = costs_table(report).splitlines()
    assert head == (
        "| cameras, kept | busy, people and visits | busy, visits only | calm, people and visits | calm, visits only |"
    )
    assert len(rows) == 4 + 6 and rows[-1].startswith("| frames, exact, CBGM | ≈ ") and rows[-1].endswith("| – |")

    def never(**arguments: Any) -> Any:
        raise AssertionError(arguments)

    again = scale(**dict.fromkeys(STEPS, never)).measure()
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(found))
    with pytest.raises(UsageError, match="other settings"):
        scale(scenery=Scenery(rows=601))


def test_a_filling_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery_module = pytest.importorskip("lancedb") and pytest.importorskip("psarm.runtime.gallery.gallery")
    scenery = Scenery(rows=300, cameras=1, embedding_dim=32, thumbnail_bytes=20)
    all_spans = gallery_steps.spans
    monkeypatch.setattr(gallery_steps, "spans", lambda *one: list(all_spans(*one))[:1])
    fill(str(tmp_path), asdict(scenery))
    monkeypatch.undo()
    fill(str(tmp_path), asdict(scenery))

    footage = Footage(scenery)
    with gallery_module.Gallery.open(tmp_path / "gallery") as gallery:
        sources = gallery.sources()
        info = gallery.info()
    assert all(one.progress.finished and one.progress.frames == scenery.frames for one in sources)
    assert info.people == sum(len(footage.stretch(day, 0, 0).scores) for day in range(3))
    notes = [json.loads(line) for line in (tmp_path / "filling.jsonl").read_text().splitlines()]
    assert sum(note["rows"] for note in notes) == info.people


def test_another_kind_of_index_is_measured_anew(tmp_path: Path) -> None:
    asked: list[str] = []

    def step(name: str, **arguments: Any) -> Any:
        asked.append(name)
        if name == "fill":
            Path(arguments["folder"], "filling.jsonl").write_text(
                '{"rows": 9, "commits": 1, "drawing_s": 1, "committing_s": 1, "live_ms": [], "disk_bytes": 1, '
                '"peak_memory_bytes": null}\n'
            )
        return {
            "index": {"kind": arguments.get("kind"), "tables": []},
            "search": {
                "import_ms": 1,
                "open_ms": 1,
                "first_ms": 1,
                "warm_ms": [1],
                "found": [],
                "peak_memory_bytes": 1,
            },
            "count": {"people": 9, "visits": 1, "bytes": {}, "info_ms": 1},
        }.get(name, {})

    Size(tmp_path / "size", SMALL, Settings(cold=0), step).measure()
    asked.clear()
    Size(tmp_path / "size", SMALL, Settings(cold=0, index="IVF_PQ"), step).measure()

    assert asked == ["index", *["search"] * 2]


def test_recall_counts_the_hits_of_queries_both_did() -> None:
    exact = {Way("visits"): {"found": [[[1], [2]], [[3], [4]]]}}

    assert recall_of(Way("visits", True), {"found": [[[2], [1]], [[3], [9]], [[7]]]}, exact) == {
        "recall": 0.75,
        "recall_queries": 2,
    }


def test_a_full_disk_is_refused_before_anything_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psarm.benchmarks.gallery_scale.shutil.disk_usage", lambda path: SimpleNamespace(free=10**9))

    with pytest.raises(PsarmError, match=r"needs 35\.0 GB more in .* and 1\.0 GB are free"):
        Size(tmp_path, Scenery(10_000_000), Settings()).measure()


def test_a_step_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(PsarmError, match=r"'count' failed in a process of its own: .* does not exist"):
        in_fresh_process("count", folder=str(tmp_path / "none"))


def _size(people: int, milliseconds: float) -> dict[str, Any]:
    search = {"level": "visits", "name": "exact", "approximate": False, "cbgm": False, "p50_ms": milliseconds}
    return {
        "people": people,
        "visits": people // 20,
        "data_bytes": {"people": 1000 * people, "visits": 200 * people},
        "filling": {"rows_per_second": 8000.0},
        "searches": [search, search | {"level": "frames"}, search | {"name": "approximate", "approximate": True}],
    }


def test_what_a_month_costs() -> None:
    costs = month_costs([_size(1_000_000, 110.0), _size(10_000, 11.0)])

    busy, visits_only = costs["cases"][:2]
    rows = 100 * 2 * 4 * 86400 * 30
    assert busy["rows"] == {"visits": rows // 20, "people": rows}
    assert busy["disk_bytes"] == 1200 * rows
    assert busy["ingest_headroom"] == 10
    visits, frames = busy["searches"]
    assert (visits["level"], frames["level"]) == ("visits", "frames")
    assert visits["extrapolated"]
    assert visits["p50_ms"] == pytest.approx(10 + 1e-4 * rows, abs=0.1)  # the line through both
    assert visits_only["rows"] == {"visits": rows // 20}
    assert visits_only["disk_bytes"] == 200 * rows
    assert [one["level"] for one in visits_only["searches"]] == ["visits"]


def test_what_was_measured_is_not_extrapolated() -> None:
    costs = month_costs([_size(10**10, 50.0)])

    assert [one["p50_ms"] for one in costs["cases"][0]["searches"]] == [50.0, 50.0]
    assert not any(one["extrapolated"] for one in costs["cases"][0]["searches"])


@pytest.mark.parametrize(
    ("milliseconds", "words"), [(3.21, "3.2 ms"), (1500, "1.50 s"), (180_000, "3.0 min"), (None, "–")]
)
def test_durations_in_words(milliseconds: float | None, words: str) -> None:
    assert duration(milliseconds) == words
