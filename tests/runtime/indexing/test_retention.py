"""Purges while indexing goes on."""

from datetime import UTC, datetime, timedelta

import pytest
from made_up_readers import START, STEP, MadeUp

from psarm.errors import GalleryError, UsageError
from psarm.runtime.gallery import maintenance
from psarm.runtime.indexing import retention
from psarm.runtime.indexing.detecting import detect_with
from psarm.runtime.indexing.indexer import CommitEvery, Indexer
from psarm.runtime.indexing.retention import Retention


class Until(Retention):
    """Keeps who was seen from frame `first` on, and purges once again, when `at` frames are indexed."""

    def __init__(self, first, at):
        super().__init__(timedelta(days=1), self.note)
        self.moment = START + timedelta(microseconds=first * STEP - STEP // 2)
        self.at, self.notes, self.calls, self.indexed = at, [], 0, 0

    def note(self, moment, removed):
        self.notes.append(removed)

    @property
    def due(self):
        return self.indexed >= self.at and self.calls == 1

    def purge(self, writer):
        self.calls += 1
        self._keep = datetime.now(UTC) - self.moment
        super().purge(writer)

    def _begin_of(self, moment):
        return self.moment


def index(gallery, engine, reader, kept):
    def on_change(report):
        kept.indexed = report.indexed

    detect = detect_with(engine, 1, requests=1)
    return Indexer(gallery, detect, CommitEvery(people=1), on_change, retention=kept).run([reader])


def test_a_visit_goes_on_under_its_number(gallery, engine):
    kept = Until(first=5, at=7)
    reader = MadeUp("a", kind="live")
    [report] = index(gallery, engine, reader, kept)
    assert (report.indexed, report.people, report.visits) == (10, 14, 2) and reader.given[-1] == 9 * STEP
    assert (kept.calls, [removed.people for removed in kept.notes]) == (3, [7])
    rows = gallery.store.people.to_arrow().to_pylist()
    assert sorted((row["visit"], row["frame"] // STEP) for row in rows) == [(0, n) for n in range(5, 10)] + [
        (1, 5),
        (1, 6),
    ]
    red, orange = sorted(gallery.store.visits.to_arrow().to_pylist(), key=lambda row: row["visit"])
    assert (red["first_frame"] // STEP, red["last_frame"] // STEP, red["frames"]) == (5, 9, 5)
    assert (orange["first_frame"] // STEP, orange["frames"]) == (5, 2)
    assert gallery.sources()[0].progress.frames == 10


def test_a_visit_that_was_purged_whole_gets_a_picture_anew(gallery, engine):
    index(gallery, engine, MadeUp("a"), Until(first=7, at=7))
    (red,) = gallery.store.visits.to_arrow().to_pylist()
    assert (red["visit"], red["first_frame"] // STEP, red["frames"]) == (0, 7, 3)
    assert red["thumbnail"].startswith(b"\xff\xd8")


def test_at_the_start_and_at_the_end(gallery, engine):
    index(gallery, engine, MadeUp("a"), Until(first=0, at=99))
    kept = Until(first=99, at=99)
    assert index(gallery, engine, MadeUp("a"), kept)[0].new == 0  # nothing left to do: at the start all the same
    assert (kept.calls, kept.notes[0].people, gallery.info().people) == (1, 14, 0)
    kept = Until(first=99, at=99)
    index(gallery, engine, MadeUp("b"), kept)
    assert (kept.calls, kept.notes[0].visits, gallery.info().visits) == (2, 2, 0)


def test_one_that_breaks_off_loses_nothing(gallery, engine, monkeypatch):
    kept = Until(first=5, at=6)
    reader = MadeUp("a")
    with monkeypatch.context() as patch:
        real = maintenance.erase
        patch.setattr(maintenance, "erase", lambda store: real(store) if kept.calls == 1 else _full())
        with pytest.raises(GalleryError, match="disk full"):
            index(gallery, engine, reader, kept)
    done = gallery.sources()[0].progress.frames
    assert done >= 6
    [report] = index(gallery, engine, MadeUp("a"), Until(first=5, at=99))
    assert (report.indexed, report.people, report.visits) == (10, 14, 2)
    assert gallery.info().people == 7


def _full():
    raise GalleryError("disk full")


def test_every_hour(monkeypatch):
    clock = [5.0]
    monkeypatch.setattr(retention.time, "monotonic", lambda: clock[0])
    kept = Retention(timedelta(days=30))

    class Writer:
        def purge(self, older_than):
            return maintenance.Removed(0, 0)

    assert kept.due
    kept.purge(Writer())
    assert not kept.due
    clock[0] += 3600
    assert kept.due
    with pytest.raises(UsageError, match="at least 1h"):
        Retention(timedelta(minutes=59))


@pytest.mark.parametrize(
    ("keep", "unit"), [(timedelta(days=2), timedelta(days=1)), (timedelta(hours=5), timedelta(hours=1))]
)
def test_whole_days_or_hours_are_purged(monkeypatch, keep, unit):
    moments = []

    class Writer:
        def purge(self, older_than):
            moments.append(older_than)
            return maintenance.Removed(0, 0)

    before = datetime.now(UTC)
    Retention(keep).purge(Writer())
    ((moment,), begin) = moments, datetime(2026, 1, 1, tzinfo=UTC)
    assert (moment - begin) % unit == timedelta(0) and before - keep - unit < moment <= datetime.now(UTC) - keep
