"""Filters as SQL."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from psarm.errors import UsageError
from psarm.runtime.gallery.filters import NamedSource, both, is_in, people_predicate, visits_predicate
from psarm.runtime.gallery.records import Where

SOURCES = {
    0: NamedSource("/a.mp4", "door", "video"),
    1: NamedSource("/b'; DROP TABLE people; --.mp4", "door", "video"),
    2: NamedSource("rtsp://hall", "hall", "live"),
}
TIME = datetime(2026, 3, 1, 12, 0, 0, 1, UTC)


@pytest.mark.parametrize(
    ("where", "sql"),
    [
        (Where(), None),
        (Where(cameras=("door",)), "(source IN (0, 1))"),
        (Where(cameras=("hall", "door")), "(source IN (0, 1, 2))"),
        (Where(sources=("/b'; DROP TABLE people; --.mp4",)), "(source IN (1))"),
        (Where(cameras=("hall",), sources=("/a.mp4",)), "(false)"),
        (Where(min_score=0.5), "(score >= 0.5)"),
        (Where(start=TIME), "((time >= timestamp '2026-03-01T12:00:00.000001+00:00'))"),
    ],
)
def test_names_become_numbers_and_times_become_utc(where: Where, sql: str | None) -> None:
    assert people_predicate(where, SOURCES) == sql


def test_a_visit_is_there_from_its_start_to_its_end() -> None:
    east = TIME.astimezone(timezone(timedelta(hours=2)))
    sql = visits_predicate(Where(start=east, end=east + timedelta(1), cameras=("hall",)), SOURCES)
    assert sql == (
        "(source IN (2)) AND ((\"end\" >= timestamp '2026-03-01T12:00:00.000001+00:00') AND "
        "(start < timestamp '2026-03-02T12:00:00.000001+00:00'))"
    )


def test_nothing_is_in_nothing() -> None:
    assert is_in("visit", []) == "false"
    assert both(None, None) is None


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (Where(cameras=("door", "yard")), "no camera 'yard'; it has: door, hall"),
        (Where(sources=("/c.mp4",)), r"no source '/c.mp4'; it has: /a.mp4, /b'.*, rtsp://hall"),
        (Where(cameras=()), "at least one, or None"),
        (Where(start=datetime(2026, 3, 1)), "time zone"),
        (Where(start=TIME, end=TIME), "end after it starts"),
        (Where(start=datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2)))), "years 1 to 9999 of UTC, got 0001-01-01"),
        (Where(end=datetime.max.replace(tzinfo=timezone(-timedelta(hours=2)))), "years 1 to 9999 of UTC, got 9999-12"),
        (Where(min_score=float("nan")), "from 0 to 1, got nan"),
    ],
)
def test_what_cannot_work_is_refused(where: Where, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        people_predicate(where, SOURCES)


def test_an_empty_gallery_has_no_camera() -> None:
    with pytest.raises(UsageError, match="it has: none yet"):
        people_predicate(Where(cameras=("door",)), {})
