"""Made-up readers through the toy engine into a gallery."""

import signal
from contextlib import contextmanager

import pytest
import toy_bundle as toy
from made_up_readers import STEP, MadeUp, scene
from small_videos import FileServer, server, write_video

from psarm.cli.termination import terminated_as_interrupted
from psarm.errors import GalleryError, StreamError
from psarm.runtime.gallery.gallery import Gallery
from psarm.runtime.gallery.writer import GalleryWriter
from psarm.runtime.indexing import detecting
from psarm.runtime.indexing.accounting import NOTES_KEPT, Notes
from psarm.runtime.indexing.detecting import detect_with
from psarm.runtime.indexing.indexer import CommitEvery, Indexer
from psarm.runtime.indexing.reading import Note
from psarm.runtime.indexing.sources import find_readers

EVERY_FRAME, SELDOM = CommitEvery(people=1), CommitEvery(600)


def index(gallery, engine, *readers, every=SELDOM, batch=2, **options):
    return Indexer(gallery, detect_with(engine, batch, requests=1), every, **options).run(readers)


def people(gallery):
    rows = gallery.store.people.to_arrow().to_pylist()
    keys = ("source", "frame", "person", "visit")
    return sorted(tuple(row[key] for key in keys) for row in rows)


def visits(gallery):
    rows = gallery.store.visits.to_arrow().to_pylist()
    keys = ("visit", "camera", "first_frame", "last_frame", "frames", "best_frame", "thumbnail")
    return sorted(tuple(row[key] for key in keys) for row in rows)


def test_every_frame_is_accounted_for(gallery, engine):
    [report] = index(gallery, engine, MadeUp("a", frames=10, damaged=(2, 8, 9)))
    assert (report.due, report.indexed, report.skipped, report.to_do) == (10, 7, {"damaged": 3}, 0)
    assert (report.people, report.visits, report.finished, report.error) == (11, 2, True, None)
    assert report.new == 7 and report.rate > 0
    [info] = gallery.sources()
    assert (info.progress.frames, info.progress.skipped, info.progress.people) == (7, 3, 11)
    assert info.progress.finished and info.progress.last_frame == 9 * STEP


def test_a_visit_joins_the_frames_of_a_person(gallery, engine):
    index(gallery, engine, MadeUp("a"))
    found = visits(gallery)
    assert [one[1:5] for one in found] == [
        ("camera of a", 0, 9 * STEP, 10),
        ("camera of a", 3 * STEP, 6 * STEP, 4),
    ]
    assert all(one[6].startswith(b"\xff\xd8") for one in found)


def test_people_have_the_size_of_their_frame(gallery, engine):
    index(gallery, engine, MadeUp("a"))
    height, width = scene(0).shape[:2]
    rows = gallery.store.people.to_arrow().to_pylist()
    assert width != height and {(row["width"], row["height"]) for row in rows} == {(width, height)}


def test_sources_share_the_engine_and_keep_their_order(gallery, engine):
    readers = [MadeUp(name, frames) for name, frames in (("a", 9), ("b", 4), ("c", 12))]
    reports = index(gallery, engine, *readers, batch=4)
    assert [(r.name, r.indexed, r.to_do, r.finished) for r in reports] == [
        ("a", 9, 0, True),
        ("b", 4, 0, True),
        ("c", 12, 0, True),
    ]
    frames = people(gallery)
    assert [sorted({f for s, f, _, _ in frames if s == source}) for source in range(3)] == [
        [n * STEP for n in range(count)] for count in (9, 4, 12)
    ]


def test_one_that_fails_does_not_stop_the_others(gallery, engine):
    readers = [MadeUp("a", breaks=4), MadeUp("b"), MadeUp("c", breaks="at once")]
    a, b, c = index(gallery, engine, *readers)
    assert (a.indexed, a.to_do, a.finished) == (4, 6, False) and a.error.startswith("The source a failed after")
    assert (b.indexed, b.to_do, b.finished, b.error) == (10, 0, True, None)
    assert (c.due, c.indexed, c.to_do, c.error) == (None, 0, None, "c is no video.")
    assert [info.source.name for info in gallery.sources()] == ["a", "b"]


def test_other_settings_fail_that_source_alone(gallery, engine):
    index(gallery, engine, MadeUp("a"))
    a, b = index(gallery, engine, MadeUp("a", settings={"fps": 5.0}), MadeUp("b"))
    assert "delete-source" in a.error and b.finished


def test_settings_of_which_nothing_is_indexed_bind_nobody(gallery, engine):
    for number, fps in enumerate((1.0, 5.0)):
        indexer = Indexer(gallery, interrupt_after(detect_with(engine), 0, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            indexer.run([MadeUp("a", settings={"fps": fps}), MadeUp("b", settings={"fps": fps})][: 1 + number])
    a, b = index(gallery, engine, MadeUp("a"), MadeUp("b"))
    assert (a.error, b.error, a.indexed, b.indexed) == (None, None, 10, 10)
    infos = gallery.sources()
    assert [(info.source.name, info.progress.source, info.source.settings) for info in infos] == [
        ("a", 0, {"fps": 2.0}),
        ("b", 1, {"fps": 2.0}),
    ]
    assert "delete-source" in index(gallery, engine, MadeUp("a", settings={"fps": 5.0}))[0].error


def test_nothing_is_read_twice(gallery, engine):
    index(gallery, engine, MadeUp("a"))
    before = people(gallery), visits(gallery)
    again = MadeUp("a")
    [report] = index(gallery, engine, again)
    assert (report.indexed, report.new, report.finished, report.visits) == (10, 0, True, 2)
    assert again.given == [] and (people(gallery), visits(gallery)) == before


@pytest.mark.parametrize("stop", [2, 4, 6])
def test_gone_on_with_it_is_as_if_never_interrupted(tmp_path, engine, stop):
    def make(name):
        return Gallery.create(tmp_path / name, "0" * 64, toy.DIM, "toy.psarm")

    with make("whole") as whole, make("broken") as broken:
        index(whole, engine, MadeUp("a", damaged=(5,)))
        [first] = index(broken, engine, MadeUp("a", damaged=(5,), breaks=stop), every=EVERY_FRAME)
        assert 0 < first.indexed < 9 and not first.finished
        later = MadeUp("a", damaged=(5,))
        [report] = index(broken, engine, later)
        assert later.given[0] == stop * STEP
        assert (report.indexed, report.skipped, report.to_do) == (9, {"damaged": 1}, 0)
        assert people(broken) == people(whole) and visits(broken) == visits(whole)


def test_a_camera_that_is_silent_is_committed_all_the_same(gallery, engine):
    reader = MadeUp("a", frames=99, kind="live", pause_at=5)
    indexer = Indexer(gallery, _closing(detect_with(engine, 1, 1), reader, gallery), CommitEvery(0.1))
    [report] = indexer.run([reader])
    assert (report.indexed, report.due, report.to_do, report.finished) == (5, None, None, False)
    assert gallery.sources()[0].progress.frames == 5


def _closing(detect, reader, gallery):
    """Detection that closes the camera as soon as all of its frames are committed: it gives no more."""

    @contextmanager
    def watched(readers):
        with detect(readers) as events:

            def until_committed():
                for event in events:
                    yield event
                    if event is None and gallery.sources()[0].progress.frames == 5:
                        reader.close()

            yield until_committed()

    return watched


def interrupt_after(detect, count, error):
    @contextmanager
    def broken(readers):
        with detect(readers) as events:

            def some():
                for number, event in enumerate(events):
                    if number == count:
                        raise error
                    yield event

            yield some()

    return broken


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StreamError("no memory")])
def test_what_was_done_is_committed(gallery, engine, error):
    indexer = Indexer(gallery, interrupt_after(detect_with(engine), 4, error))
    with pytest.raises(type(error)):
        indexer.run([MadeUp("a")])
    assert indexer.reports[0].indexed == gallery.sources()[0].progress.frames == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", ["_check_alone", "_fold", "_advance"])
def test_a_signal_waits_for_the_commit(gallery, engine, monkeypatch, number, step):
    real, commits = getattr(GalleryWriter, step), []

    def interrupted(self, *arguments):
        commits.append(len(commits))
        if len(commits) == 4:
            signal.raise_signal(number)
        return real(self, *arguments)

    indexer = Indexer(gallery, detect_with(engine), EVERY_FRAME)
    monkeypatch.setattr(GalleryWriter, step, interrupted)
    with pytest.raises(KeyboardInterrupt), terminated_as_interrupted():
        indexer.run([MadeUp("a")])
    [report], [info] = indexer.reports, gallery.sources()
    assert report.indexed == report.new == info.progress.frames >= 4 and not report.finished
    assert (report.people, report.visits) == (info.progress.people, info.progress.next_visit)
    assert {frame for _, frame, _, _ in people(gallery)} == {number * STEP for number in range(report.indexed)}


def test_the_report_of_a_failed_run_is_what_is_committed(gallery, engine, monkeypatch):
    monkeypatch.setattr(GalleryWriter, "commit", failing_after(GalleryWriter.commit, 3))
    indexer = Indexer(gallery, detect_with(engine), EVERY_FRAME)
    with pytest.raises(GalleryError, match="disk full"):
        indexer.run([MadeUp("a")])
    assert indexer.reports[0].indexed == indexer.reports[0].people == gallery.sources()[0].progress.frames == 3


def failing_after(commit, count):
    calls = []

    def failing(self, batches):
        calls.append(batches)
        if len(calls) > count:
            raise GalleryError("disk full")
        commit(self, batches)

    return failing


def test_a_gallery_that_cannot_be_written_ends_it(gallery, engine, monkeypatch):
    calls = []

    def full(self, batches):
        calls.append(batches)
        raise GalleryError("disk full")

    monkeypatch.setattr(GalleryWriter, "commit", full)
    with pytest.raises(GalleryError, match="disk full"):
        index(gallery, engine, MadeUp("a"), every=EVERY_FRAME)
    assert len(calls) == 1


def test_pictures_are_a_visit_a_person(gallery, engine):
    [report] = index(gallery, engine, MadeUp("a", kind="pictures"))
    assert (report.people, report.visits) == (14, 14)


def test_a_thumbnail_only_where_a_visit_is_seen_better(gallery, engine, monkeypatch):
    made = []
    real = detecting.thumbnail
    monkeypatch.setattr(detecting, "thumbnail", lambda *arguments: made.append(arguments) or real(*arguments))
    index(gallery, engine, MadeUp("a"))
    assert len(made) == 2  # red and orange, alike in every frame


def test_reports_as_it_goes(gallery, engine):
    seen = []
    index(gallery, engine, MadeUp("a"), on_change=seen.append)
    assert [report.indexed for report in seen] == [*range(11), 10] and seen[-1].finished


def test_notes_are_counted_and_the_last_kept(gallery, engine):
    notes = Notes()
    for number in range(NOTES_KEPT + 5):
        notes.add(Note("a", "gone", f"gone {number}"))
        notes.add(Note("a", "back", f"back {number}"))
    notes.add(Note("b", "clock", "leap"))
    a, b = index(gallery, engine, MadeUp("a", frames=2), MadeUp("b", frames=2), notes=notes)
    assert a.gone == NOTES_KEPT + 5 and len(a.notes) == NOTES_KEPT and a.notes[-1] == f"back {NOTES_KEPT + 4}"
    assert (b.gone, b.notes) == (0, ("leap",))


def test_whether_anything_was_left_to_do(gallery, engine):
    started = []
    for reader in (MadeUp("a", frames=3, breaks=2), MadeUp("a", frames=3, damaged=(2,)), MadeUp("a", frames=3)):
        indexer = Indexer(gallery, detect_with(engine, requests=1), EVERY_FRAME)
        [report] = indexer.run([reader])
        started.append((indexer.started, report.new))
    assert started == [(True, 2), (True, 0), (False, 0)]


def test_interrupted_while_planning(gallery, engine, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    reader = MadeUp("b")
    monkeypatch.setattr(reader, "plan", interrupt)
    indexer = Indexer(gallery, detect_with(engine))
    with pytest.raises(KeyboardInterrupt):
        indexer.run([MadeUp("a"), reader])
    assert [(report.name, report.to_do) for report in indexer.reports] == [("a", 10)]


def test_a_video_whose_server_is_away_is_not_taken_for_a_camera(gallery, engine, tmp_path):
    web = FileServer(write_video(tmp_path / "a.mp4").read_bytes())
    with server(web.handle) as port:
        address = f"http://127.0.0.1:{port}/download"
        [before] = index(gallery, engine, *find_readers([address]))
    assert before.finished and before.error is None
    [report] = index(gallery, engine, *find_readers([address]))
    assert report.error == f"{address} cannot be read: Connection refused."
