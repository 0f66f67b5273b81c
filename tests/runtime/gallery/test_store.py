import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import writing_process as written
from lancedb.db import LanceDBConnection
from writing_process import DIM, START, STEP, frame_people, source_of

from psarm.errors import GalleryError, UsageError
from psarm.runtime.gallery.gallery import Gallery
from psarm.runtime.gallery.ledger import check_same
from psarm.runtime.gallery.records import Source, SourceBatch
from psarm.runtime.gallery.repair import TRACK_MEMORY


@pytest.fixture
def where(tmp_path):
    Gallery.create(tmp_path / "gallery", "fingerprint", DIM, "/bundle").close()
    return tmp_path / "gallery"


def frames(source, start, stop):
    return tuple(frame_people(source, number) for number in range(start, stop))


def test_a_new_gallery_is_empty_and_says_what_it_is(where):
    with Gallery.open(where) as gallery:
        info = gallery.info()
        facts = gallery.facts
    assert (facts.fingerprint, facts.embedding_dim, facts.bundle) == ("fingerprint", DIM, "/bundle")
    assert facts.thumbnails and facts.people
    assert facts.created.tzinfo is not None and abs(datetime.now(UTC) - facts.created) < timedelta(minutes=5)
    assert (info.people, info.visits, info.sources, info.cameras, info.start, info.end) == (0, 0, 0, (), None, None)
    assert info.indexed == () and info.bytes > 0
    assert [path.name for path in where.parent.iterdir()] == ["gallery"]


def test_what_was_written_is_there(where):
    written.write(where, 3)
    assert written.check(where) == 3 * written.FRAMES * written.SOURCES
    with Gallery.open(where) as gallery:
        info, sources = gallery.info(), gallery.sources()
    assert info.sources == 3 and info.cameras == ("camera 0", "camera 1", "camera 2")
    assert info.people == sum(source.progress.people for source in sources)
    last = max(people.time for source in range(3) for people in frames(source, 0, 12) if len(people.scores))
    first = min(people.time for source in range(3) for people in frames(source, 0, 12) if len(people.scores))
    assert (info.start, info.end) == (first, last)
    assert sources[1].source == source_of(1)
    written.write(where, 7)  # goes on, over a compaction
    assert written.check(where) == 10 * written.FRAMES * written.SOURCES


def test_a_gallery_whose_segments_had_a_state_goes_on(where):
    """It was a column, which nobody set."""
    written.write(where, 3)
    with Gallery.open(where) as gallery:
        rows = gallery.store.segments.to_arrow()
        rows = rows.append_column("state", pa.array(["{}"] * len(rows)))
        gallery.store.database.create_table("segments", rows, mode="overwrite")
    written.write(where, 7)  # over a compaction
    assert written.check(where) == 10 * written.FRAMES * written.SOURCES
    with Gallery.open(where) as gallery:
        assert "state" in gallery.store.segments.schema.names
        gallery.delete_source(source_of(2).name)
        assert gallery.info().sources == 2


def test_adding_a_source_again_goes_on_or_says_what_differs(where):
    with Gallery.open(where) as gallery, gallery.writer() as writer:
        new = writer.add_source(source_of(0))
        assert (new.source, new.last_frame, new.next_visit, new.finished) == (0, -1, 0, False)
        writer.commit([SourceBatch(0, frames(0, 0, 12), {"late": 2}, 12 * STEP, finished=True)])
        for again in (writer, None):
            if again is None:
                writer.close()
                writer = gallery.writer()
            done = writer.add_source(source_of(0))
            assert (done.source, done.last_frame, done.frames, done.skipped) == (0, 12 * STEP, 12, 2)
            assert done.finished and done.reasons == {"late": 2}
            assert done.next_visit == 1 + max(people.visits.max(initial=-1) for people in frames(0, 0, 12))
        for what, value in (("camera", "x"), ("signature", "x"), ("kind", "live")):
            named = {"signature": "content"}.get(what, what)
            with pytest.raises(GalleryError, match=f"another {named} .*delete-source"):
                writer.add_source(replace(source_of(0), **{what: value}))
        with _largest_file(100), pytest.raises(GalleryError, match="cannot be written"):
            writer.add_source(source_of(3))
        assert writer.add_source(source_of(1)).source == writer.add_source(source_of(1)).source == 1
        with pytest.raises(UsageError, match="without a time zone"):
            writer.add_source(replace(source_of(2), start=datetime(2026, 1, 1)))
        writer.close()
        assert len(gallery.sources()) == 2 and gallery.sources()[1].progress.last_frame == -1


@pytest.mark.parametrize(
    ("known", "new", "told"),
    [
        ({"fps": 2.0, "start": "2026"}, {"fps": 5.0, "start": "2026"}, "--fps 2, now --fps 5;"),
        ({"fps": 29.97}, {"keyframes": True}, "--fps 29.97, now --keyframes;"),
        ({"every": 1}, {"every": 1, "start": "2026"}, "no --start, now --start 2026;"),
        ({"every": 1, "start": "2026"}, {"fps": 2.5}, "--every 1 --start 2026, now --fps 2.5;"),
    ],
)
def test_settings_that_differ_are_told_as_options(known, new, told):
    with pytest.raises(GalleryError, match=f"is in /g with {re.escape(told)} give the same, .*delete-source"):
        check_same("/g", replace(source_of(0), settings=known), replace(source_of(0), settings=new))
    check_same("/g", replace(source_of(0), settings=known), replace(source_of(0), settings=dict(known)))


def test_recent_people_come_back_as_they_were(where):
    with Gallery.open(where) as gallery, gallery.writer() as writer:
        writer.add_source(source_of(0))
        writer.commit([SourceBatch(0, frames(0, 0, 30))])
        found = writer.recent_people(0, 11 * STEP)
        assert writer.recent_people(0, 30 * STEP) == []
    expected = [people for people in frames(0, 11, 30) if len(people.scores)]
    assert [people.frame for people in found] == [people.frame for people in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.time == other.time
        for name in ("boxes", "scores", "embeddings", "visits"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_batch_that_cannot_be_is_refused_and_nothing_of_it_written(where):
    people = frame_people(0, 1)
    with Gallery.open(where) as gallery, gallery.writer() as writer:
        writer.add_source(source_of(0))
        writer.commit([SourceBatch(0, frames(0, 0, 2))])
        for batch, message in (
            (SourceBatch(4), "not added"),
            (SourceBatch(0, (people,)), "rise"),
            (SourceBatch(0, (frame_people(0, 5), frame_people(0, 4))), "rise"),
            (SourceBatch(0, last_frame=0), "done already"),
            (SourceBatch(0, (replace(frame_people(0, 3), boxes=np.zeros((9, 4), np.float32)),)), "shapes"),
            (SourceBatch(0, (replace(frame_people(0, 3), time=datetime(2026, 1, 1)),)), "time zone"),
        ):
            with pytest.raises(UsageError, match=message):
                writer.commit([batch])
        with pytest.raises(UsageError, match="one batch a source"):
            writer.commit([SourceBatch(0), SourceBatch(0)])
        writer.commit([])
        writer.commit([SourceBatch(0, (), {"corrupt": 3}, 9 * STEP)])  # nothing but skipped
        assert writer.add_source(source_of(0)).skipped == 3
        assert gallery.info().people == sum(len(people.scores) for people in frames(0, 0, 2))


def test_without_people_only_those_stay_that_the_tracker_needs(tmp_path):
    seconds = [0, 10, TRACK_MEMORY - 1, TRACK_MEMORY + 5]
    with (
        Gallery.create(tmp_path / "g", "f", DIM, "/b", thumbnails=False, people=False) as gallery,
        gallery.writer() as writer,
    ):
        writer.add_source(source_of(0))
        person = next(people for people in frames(0, 0, 99) if (people.visits >= 0).any())
        shown = [replace(person, frame=round(at * 1e6), time=START + timedelta(seconds=at)) for at in seconds]
        writer.commit([SourceBatch(0, tuple(shown[:3]))])
        assert len(writer.recent_people(0, 0)) == 3
        writer.commit([SourceBatch(0, tuple(shown[3:]))])
        assert [people.frame for people in writer.recent_people(0, 0)] == [people.frame for people in shown[1:]]
        writer.commit([SourceBatch(0, finished=True)])
        assert writer.recent_people(0, 0) == []
        visits = gallery.store.visits.search().to_list()
        assert {(row["frames"], row["thumbnail"]) for row in visits} == {(4, None)}
        with pytest.raises(GalleryError, match="keeps visits only"):
            gallery.search(np.zeros(DIM, np.float32), context=[])


def test_galleries_that_cannot_be_opened_say_why(where, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    for name, message in (("missing", "does not exist"), ("file", "is a file"), ("other", "no gallery")):
        with pytest.raises(GalleryError, match=message):
            Gallery.open(tmp_path / name)
    assert not (tmp_path / "missing").exists()
    for name in ("gallery", "file", "other"):
        with pytest.raises(GalleryError, match="there already"):
            Gallery.create(tmp_path / name, "f", DIM, "/b")
    with Gallery.open(where) as gallery, pytest.raises(GalleryError, match=r"/bundle .*cannot be compared.*other"):
        gallery.check("other")

    newer = tmp_path / "newer"
    shutil.copytree(where, newer)
    with Gallery.open(newer) as gallery:
        facts = json.dumps({"schema": 99})
        gallery.store.database.open_table("facts").update(values={"json": facts})
    with pytest.raises(GalleryError, match=r"schema 99, and this psarm reads 1; upgrade"):
        Gallery.open(newer)


def test_an_empty_directory_that_is_there_is_used(tmp_path):
    there = tmp_path / "mounted"
    there.mkdir()
    before = there.stat().st_ino
    Gallery.create(there, "f", DIM, "/b").close()
    assert there.stat().st_ino == before  # a mount point cannot be replaced
    Gallery.create(tmp_path / "new", "f", DIM, "/b").close()
    Gallery.create(tmp_path / "a" / "b", "f", DIM, "/b").close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "mounted", "new"]
    assert (tmp_path / "new").stat().st_mode == there.stat().st_mode
    with Gallery.open(there) as gallery:
        assert gallery.info().people == 0


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
@pytest.mark.parametrize("failing", ["visits", "facts", "fsync"])
def test_a_gallery_that_cannot_be_made_leaves_nothing(tmp_path, monkeypatch, there, failing):
    where, create_table = tmp_path / "g", LanceDBConnection.create_table
    if there:
        where.mkdir()

    def failing_table(database, name, *arguments, **options):
        if name == failing:
            raise RuntimeError("lance error: LanceError(IO): No space left on device")
        return create_table(database, name, *arguments, **options)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(LanceDBConnection, "create_table", failing_table)
    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GalleryError, match=rf"{where} cannot be (made|written): .*No space"):
        Gallery.create(where, "f", DIM, "/b")
    assert list(tmp_path.rglob("*")) == ([where] if there else [])


KILLED = """
import os, signal, sys
from pathlib import Path
from psarm.runtime.gallery.gallery import Gallery

def killed(path, target):
    os.kill(os.getpid(), signal.SIGKILL) if path.name == "visits.lance" else rename(path, target)

rename, Path.rename = Path.rename, killed
Gallery.create(sys.argv[1], "f", 8, "/b")
"""


def test_a_gallery_half_made_says_what_to_do(tmp_path):
    where = tmp_path / "g"
    where.mkdir()
    assert subprocess.run([sys.executable, "-c", KILLED, where], check=False).returncode == -signal.SIGKILL
    with pytest.raises(GalleryError, match=r"killed while it did; .*remove all that is in this directory"):
        Gallery.open(where)
    for path in where.iterdir():
        shutil.rmtree(path)
    Gallery.create(where, "f", DIM, "/b").close()
    (where / ".g.x.tmp" / "g").mkdir(parents=True)  # killed when it was made: what is damaged later is not thrown away
    shutil.rmtree(where / "facts.lance")
    with pytest.raises(GalleryError, match="or a damaged one"):
        Gallery.open(where)


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_of_two_that_make_a_gallery_one_does(tmp_path, monkeypatch, there):
    where, create_table = tmp_path / "g", LanceDBConnection.create_table
    if there:
        where.mkdir()

    def meanwhile(database, name, *arguments, **options):
        if name == "facts":  # the other one has put its first table in place
            (where / "sources.lance" / "data").mkdir(parents=True)
        return create_table(database, name, *arguments, **options)

    monkeypatch.setattr(LanceDBConnection, "create_table", meanwhile)
    with pytest.raises(GalleryError, match=rf"{where} cannot be made: .*not empty"):
        Gallery.create(where, "f", DIM, "/b")
    assert [path.name for path in where.iterdir()] == ["sources.lance"] and list(tmp_path.iterdir()) == [where]


def test_a_reader_sees_nobody_of_a_source_it_does_not_know(where):
    with Gallery.open(where) as gallery, Gallery.open(where) as other, other.writer() as writer:
        store = gallery.store
        refreshed = store.visits.checkout_latest

        def meanwhile():
            writer.add_source(source_of(0))
            writer.commit([SourceBatch(0, frames(0, 0, 12))])
            refreshed()

        store.visits.checkout_latest = meanwhile
        store.refresh()
        assert store.visits.count_rows() > 0 and store.sources.count_rows() == 1


def test_reads_of_what_goes_meanwhile_begin_again(where):
    with Gallery.open(where) as gallery:
        calls = []

        def read(store):
            calls.append(store)
            if len(calls) < 5:
                raise RuntimeError("lance error: Not found: people.lance/data/1.lance")
            return "read"

        assert gallery.store.read(read) == "read" and len(calls) == 5
        with pytest.raises(RuntimeError, match="other"):
            gallery.store.read(lambda store: (_ for _ in ()).throw(RuntimeError("other")))
        gone = RuntimeError("lance error: Not found: _versions")
        refreshed, failures = gallery.store.people.checkout_latest, [gone, gone]

        def gone_twice():
            if failures:
                raise failures.pop()
            refreshed()

        gallery.store.people.checkout_latest = gone_twice
        assert gallery.sources() == []


@pytest.mark.parametrize("broken", ["visits.lance", "people.lance/_versions", "facts.lance"])
def test_a_damaged_gallery_is_said(where, broken):
    shutil.rmtree(where / broken)
    with pytest.raises(GalleryError, match="damaged"):
        Gallery.open(where)


def test_damaged_data_is_said_without_lances_source_lines(where):
    written.write(where, 1)
    for path in (where / "visits.lance" / "data").iterdir():
        os.truncate(path, 10)
    with Gallery.open(where) as gallery, pytest.raises(GalleryError, match="cannot be read") as caught:
        gallery.info()
    assert ".rs" not in str(caught.value) and "lance error" not in str(caught.value)


def test_a_full_disk_leaves_the_last_commit(where):
    written.write(where, 2)
    with Gallery.open(where) as gallery, gallery.writer() as writer:
        for number in range(3):
            writer.add_source(source_of(number))
        with _largest_file(500), pytest.raises(GalleryError, match=r"cannot be written: .*File too large"):
            writer.commit([SourceBatch(0, frames(0, 8, 40))])
        with pytest.raises(GalleryError, match="open another writer"):
            writer.commit([SourceBatch(0, frames(0, 8, 40))])
    assert written.check(where) == 2 * written.FRAMES * written.SOURCES


def test_a_gallery_that_cannot_be_written_is_read(tmp_path):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to other users
        Path(folder).chmod(0o755)
        where = Path(folder, "gallery")
        Gallery.create(where, "fingerprint", DIM, "/bundle").close()
        written.write(where, 1)
        log = Path(folder, "log.jsonl")
        log.touch()
        log.chmod(0o666)
        query = np.eye(DIM, dtype=np.float32)[0]
        with _only_reading(where):
            with Gallery.open(where) as gallery:
                assert gallery.info().sources == 3
                with pytest.raises(GalleryError, match=r"cannot be written \(Permission denied\)"):
                    gallery.writer()
                with pytest.raises(GalleryError, match=r"audit\.jsonl.*Permission denied.*--audit-log FILE"):
                    gallery.search(query)
            with Gallery.open(where, audit_log=log) as gallery:
                assert len(gallery.search(query, top_k=2)) == 2
        assert len(log.read_text().splitlines()) == 1


def test_the_same_code_writes_to_object_storage(tmp_path):
    with Gallery.create("memory://gallery", "f", DIM, "/b", audit_log=tmp_path / "log.jsonl") as gallery:
        with gallery.writer() as writer:
            writer.compact_every = 2
            writer.add_source(source_of(0))
            for start in range(0, 12, 4):
                writer.commit([SourceBatch(0, frames(0, start, start + 4))])
        info = gallery.info()
        assert info.bytes is None and info.people == gallery.sources()[0].progress.people > 0
        removed = gallery.delete_source(source_of(0).name)
        assert removed.people == info.people and gallery.info().people == 0


def test_a_source_of_pictures_has_no_times(where):
    with Gallery.open(where) as gallery, gallery.writer() as writer:
        number = writer.add_source(Source("/pictures", "stairs", "pictures")).source
        shown = tuple(replace(frame_people(0, at), frame=at, time=None) for at in range(20))
        writer.commit([SourceBatch(number, shown)])
        info = gallery.info()
    assert (info.start, info.end) == (None, None) and info.visits > 0


@contextmanager
def _largest_file(size):
    """As on a full disk, no file gets larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def _only_reading(where):
    """The gallery cannot be written: for root only another user's rights make it so."""
    folders = [where, *(path for path in where.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        for path in folders:
            path.chmod(0o755)
