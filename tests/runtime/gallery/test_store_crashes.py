import os
import time
from pathlib import Path

import pytest
import writing_process as written
from writing_process import DIM, FRAMES, SOURCES, STEP, frame_people, source_of

from psarm.errors import GalleryError
from psarm.runtime.gallery import maintenance
from psarm.runtime.gallery import visits as visits_module
from psarm.runtime.gallery.gallery import Gallery
from psarm.runtime.gallery.lock import LOCK_FILE
from psarm.runtime.gallery.records import SourceBatch


class Killed(BaseException):
    """In the place of kill -9."""


@pytest.fixture
def where(tmp_path):
    Gallery.create(tmp_path / "gallery", "fingerprint", DIM, "/bundle").close()
    written.write(tmp_path / "gallery", 3)
    return tmp_path / "gallery"


def test_a_program_of_any_name_writes(where, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/bin/\udcff", "rtsp://user:s3cret@host"])
    with Gallery.open(where) as gallery, gallery.writer():
        assert (where / LOCK_FILE).read_bytes() == b"%d \xff\n" % os.getpid()
        with pytest.raises(GalleryError, match=rf"process {os.getpid()} \(.\)"):
            gallery.writer()
    assert (where / LOCK_FILE).read_bytes() == b""


def test_kill_9_at_random_moments_loses_nothing_committed(tmp_path):
    frames = written.drill(tmp_path / "gallery", rounds=2, seed=int(time.time()), longest=0.4)
    assert len(frames) == 2


def test_one_process_writes_while_others_read(where):
    with written.another_writer(where) as process, Gallery.open(where) as gallery:
        with pytest.raises(GalleryError, match=rf"is being written by process {process.pid} \(.*one process writes"):
            gallery.writer()
        seen = [_read(gallery) for _ in range(12)]
        while seen[-1] == seen[0]:
            assert process.poll() is None
            seen.append(_read(gallery))
    assert seen == sorted(seen)
    assert written.check(where) >= seen[-1]


def _read(gallery):
    """Whatever a reader sees as committed is whole; frames."""
    total = 0
    infos = gallery.sources()
    for progress in (info.progress for info in infos):
        count = progress.last_frame // STEP + 1
        frames = [frame_people(progress.source, number) for number in range(count)]
        gallery.store.read(lambda store, p=progress, f=frames: written.check_people(gallery, p.source, f, True))
        total += count
    return total


def test_two_writers_of_one_process_are_two(where):
    with Gallery.open(where) as gallery, gallery.writer():
        with pytest.raises(GalleryError, match="is being written by process"):
            gallery.writer()
        with pytest.raises(GalleryError, match="is being written by process"):
            gallery.compact()
    with Gallery.open(where) as gallery, gallery.writer():
        pass


def _kill_before(monkeypatch, step):
    """Make the process die before a step of a commit."""

    def killed(*args, **kwargs):
        raise Killed

    def doomed(store):
        owner, name = {"people": (store.people, "add"), "segments": (store.segments, "add")}[step]
        monkeypatch.setattr(owner, name, killed)

    if step in ("people", "segments"):
        return doomed
    monkeypatch.setattr(visits_module, "write_visits", killed)
    return lambda store: None


@pytest.mark.parametrize(("step", "kept"), [("people", 3), ("segments", 3), ("visits", 4)])
def test_a_crash_between_any_two_steps_of_a_commit_is_repaired(where, monkeypatch, step, kept):
    gallery = Gallery.open(where)
    doomed = gallery.writer()
    nexts = 3 * FRAMES
    batches = []
    for number in range(SOURCES):
        doomed.add_source(source_of(number))
        frames = tuple(frame_people(number, at) for at in range(nexts, nexts + FRAMES))
        batches.append(SourceBatch(number, frames, {"corrupt": 1}))
    with monkeypatch.context() as patch:
        _kill_before(patch, step)(gallery.store)
        with pytest.raises(Killed):
            doomed.commit(batches)
        doomed.close()
    # A reader's gallery is as good before the repair.
    with Gallery.open(where) as reading:
        assert _read(reading) == kept * FRAMES * SOURCES
    assert written.check(where) == kept * FRAMES * SOURCES
    written.write(where, 2)
    assert written.check(where) == (kept + 2) * FRAMES * SOURCES


@pytest.mark.parametrize(("step", "kept"), [("segments", 3), ("visits", 4)])
@pytest.mark.parametrize("writing", ["writer", "compact"])
def test_any_writer_repairs_all_sources(where, monkeypatch, step, kept, writing):
    with Gallery.open(where) as gallery, monkeypatch.context() as patch, gallery.writer() as doomed:
        batches = []
        for number in range(SOURCES):
            doomed.add_source(source_of(number))
            frames = tuple(frame_people(number, at) for at in range(3 * FRAMES, 4 * FRAMES))
            batches.append(SourceBatch(number, frames, finished=True))
        _kill_before(patch, step)(gallery.store)
        with pytest.raises(Killed):
            doomed.commit(batches)
    with Gallery.open(where) as gallery:
        if writing == "writer":
            gallery.writer().close()
        else:
            gallery.compact()
    with Gallery.open(where) as reading:
        for number in range(SOURCES):
            people = [frame_people(number, at) for at in range(kept * FRAMES)]
            written.check_people(reading, number, people)
            written.check_visits(reading, number, people)


def test_known_sources_are_added_without_reading(where, monkeypatch):
    with Gallery.open(where) as gallery:
        progress = [info.progress for info in gallery.sources()]
        with gallery.writer() as writer, monkeypatch.context() as patch:
            for table in (gallery.store.segments, gallery.store.people, gallery.store.visits):
                patch.setattr(table, "search", _raise)
                patch.setattr(table, "count_rows", _raise)
            found = [writer.add_source(source_of(number)) for number in range(SOURCES)]
    assert [vars(one) for one in found] == [vars(one) for one in progress]


def test_what_is_committed_is_on_the_disk_before_what_builds_on_it(where, monkeypatch):
    on_disk = []
    sync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: (on_disk.append(Path(f"/proc/self/fd/{file}").readlink()), sync(file))
    )
    before = {path for path in where.rglob("*") if path.is_file()}
    with Gallery.open(where) as gallery, gallery.writer() as writer:
        writer.add_source(source_of(0))
        writer.commit([SourceBatch(0, tuple(frame_people(0, at) for at in range(20, 40)))])
    new = {path for path in where.rglob("*") if path.is_file() and path.suffix != ".lock"} - before
    assert new <= set(on_disk)
    assert {path.parent for path in new} <= set(on_disk)
    tables = [path.relative_to(where).parts[0] for path in on_disk if path in new]
    people, segments, visits = (
        [at for at, name in enumerate(tables) if name == f"{table}.lance"] for table in ("people", "segments", "visits")
    )
    assert max(people) < min(segments) and max(segments) < min(visits)


def test_after_a_failed_compaction_another_writer_goes_on(where, monkeypatch):
    batch = SourceBatch(0, (frame_people(0, 30),))
    with Gallery.open(where) as gallery:
        with gallery.writer() as writer, monkeypatch.context() as patch:
            writer.compact_every = 1
            writer.add_source(source_of(0))
            patch.setattr(maintenance, "compact", lambda store: (_ for _ in ()).throw(OSError("No space left")))
            with pytest.raises(GalleryError, match="No space left"):
                writer.commit([batch])
            with pytest.raises(GalleryError, match="earlier commit failed; open another writer"):
                writer.commit([SourceBatch(0)])
        with gallery.writer() as writer:
            assert writer.add_source(source_of(0)).last_frame == batch.frames[0].frame


def test_a_closed_writer_writes_nothing(where):
    with Gallery.open(where) as gallery:
        writer = gallery.writer()
        number = writer.add_source(source_of(0)).source
        writer.close()
        for step in (
            lambda: writer.commit([SourceBatch(number)]),
            lambda: writer.add_source(source_of(9)),
            writer.compact,
        ):
            with pytest.raises(GalleryError, match="writer is closed; open another"):
                step()
        writer.close()


def test_a_crash_before_people_are_forgotten_changes_nothing(tmp_path, monkeypatch):
    where = tmp_path / "visits only"
    with Gallery.create(where, "fingerprint", DIM, "/bundle", people=False) as gallery:
        doomed = gallery.writer()
        doomed.add_source(source_of(0))
        monkeypatch.setattr(gallery.store.people, "count_rows", _raise)
        with pytest.raises(Killed):
            doomed.commit([SourceBatch(0, tuple(frame_people(0, at) for at in range(8)), finished=True)])
        doomed.close()
    with Gallery.open(where) as gallery, gallery.writer() as writer:
        before = gallery.store.visits.search().to_list()
        assert writer.add_source(source_of(0)).frames == 8
        assert gallery.store.visits.search().to_list() == before
        writer.commit([SourceBatch(0, finished=True)])
        assert gallery.info().people == 0


@pytest.mark.parametrize("table", ["sources", "people", "visits", "segments"])
def test_a_crash_while_compacting_changes_nothing(where, monkeypatch, table):
    with Gallery.open(where) as gallery:
        monkeypatch.setattr(getattr(gallery.store, table), "optimize", _raise)
        with pytest.raises(Killed):
            gallery.compact()
    assert written.check(where) == 3 * FRAMES * SOURCES


@pytest.mark.parametrize("deletions", range(4))
def test_a_source_half_deleted_is_deleted_or_indexed_again(where, monkeypatch, deletions):
    source = source_of(1)
    for again in ("deleted", "indexed"):
        with Gallery.open(where) as gallery, monkeypatch.context() as patch:
            patch.setattr(maintenance, "_delete", _dying(maintenance._delete, deletions))
            with pytest.raises(Killed):
                gallery.delete_source(source.name)
        if again == "deleted":
            with Gallery.open(where) as gallery:
                gallery.delete_source(source.name)
                assert [info.source.name for info in gallery.sources()] == [source_of(0).name, source_of(2).name]
                assert (
                    gallery.store.people.count_rows("source = 1") == gallery.store.visits.count_rows("source = 1") == 0
                )
        with Gallery.open(where) as gallery, gallery.writer() as writer:
            number = writer.add_source(source).source
            if deletions or again == "deleted":
                assert writer.add_source(source).last_frame == -1
                frames = tuple(frame_people(number, at) for at in range(12))
                writer.commit([SourceBatch(number, frames)])
            people = [frame_people(number, at) for at in range(12)]
            written.check_people(gallery, number, people)
            written.check_visits(gallery, number, people)


def _dying(function, calls):
    """`function`, so many times."""
    left = [calls]

    def call(*args):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return function(*args)

    return call


def _raise(*args, **kwargs):
    raise Killed


def test_a_fold_again_of_what_is_folded_changes_nothing(where):
    def visits():
        with Gallery.open(where) as gallery:
            return gallery.store.visits.search().to_arrow().sort_by("visit")

    before = visits()
    with Gallery.open(where) as gallery, gallery.writer() as writer:
        for number in range(SOURCES):
            writer.add_source(source_of(number))
    assert visits() == before
