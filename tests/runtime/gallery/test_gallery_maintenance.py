from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
import writing_process as written
from writing_process import DIM, START, STEP, frame_people, source_of

from psarm.errors import GalleryError, UsageError
from psarm.runtime.gallery import maintenance
from psarm.runtime.gallery.gallery import Gallery
from psarm.runtime.gallery.records import SourceBatch

FRAMES = 40


def marked(source, number):
    """A frame whose thumbnails can be found in a file."""
    people = frame_people(source, number)
    names = tuple(f"jpeg <{source} {number} {person}>".encode() for person in range(len(people.scores)))
    return replace(people, thumbnails=names)


@pytest.fixture
def gallery(tmp_path):
    with Gallery.create(tmp_path / "gallery", "fingerprint", DIM, "/bundle") as gallery:
        with gallery.writer() as writer:
            for source in range(2):
                writer.add_source(source_of(source))
            for start in range(0, FRAMES, 5):
                frames = range(start, start + 5)
                writer.commit([SourceBatch(source, tuple(marked(source, at) for at in frames)) for source in range(2)])
        yield gallery


def people_of(source, start=0, stop=FRAMES):
    return [frame_people(source, number) for number in range(start, stop)]


def count(frames):
    return sum(len(people.scores) for people in frames)


def on_disk(gallery):
    return b"".join(path.read_bytes() for path in gallery.store.directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("first", [3, 10, 27])
def test_a_purge_leaves_exactly_who_was_seen_later(gallery, first):
    before = gallery.info()
    removed = gallery.purge(START + timedelta(microseconds=first * STEP))
    info = gallery.info()
    assert removed.people == before.people - info.people == sum(count(people_of(s, 0, first)) for s in range(2))
    assert removed.visits == before.visits - info.visits > 0 or first == 3
    assert info.start >= START + timedelta(microseconds=first * STEP)
    for source in range(2):
        left = people_of(source, first)
        rows = gallery.store.people.search().where(f"source = {source}").to_arrow()
        assert sorted(rows["frame"].to_pylist()) == [people.frame for people in left for _ in people.scores]
        written.check_visits(gallery, source, left)  # those that go on are of the later people alone
    assert gallery.sources()[0].progress.frames == FRAMES  # is not indexed again
    assert gallery.purge(START + timedelta(microseconds=first * STEP)).people == 0


def test_what_is_purged_is_gone_from_the_disk(gallery):
    last = 6  # few rows of a large file: no compaction would rewrite it
    rows = gallery.store.visits.search().where(f"best_frame < {last * STEP}").to_list()
    before = on_disk(gallery)
    assert rows and all(row["thumbnail"] in before for row in rows)
    gallery.compact()
    gallery.purge(START + timedelta(microseconds=last * STEP))
    after = on_disk(gallery)
    assert not any(row["thumbnail"] in after for row in rows)
    for table in (gallery.store.people, gallery.store.visits, gallery.store.segments, gallery.store.sources):
        assert len(table.list_versions()) == 1
        assert not maintenance._has_deleted_rows(table)


def test_people_of_unknown_time_go_by_when_their_source_was_added(gallery):
    with gallery.writer() as writer:
        number = writer.add_source(replace(source_of(7), kind="pictures", start=None)).source
        frames = tuple(replace(frame_people(7, at), frame=at, time=None) for at in range(9))
        writer.commit([SourceBatch(number, frames)])
    before = gallery.info()
    gallery.purge(START)  # years before anything was added
    assert gallery.info().people == before.people
    removed = gallery.purge(datetime.now(UTC) + timedelta(minutes=1))
    assert removed.people == before.people and removed.visits == before.visits
    assert (gallery.info().people, gallery.info().visits, gallery.info().sources) == (0, 0, 3)


def test_a_time_without_zone_is_refused(gallery):
    with pytest.raises(UsageError, match="time zone"):
        gallery.purge(datetime(2026, 1, 1))
    with pytest.raises(UsageError, match="years 1 to 9999 of UTC"):
        gallery.purge(datetime.min.replace(tzinfo=timezone(timedelta(hours=2))))


def test_a_crash_in_a_purge_is_mended_by_another(gallery, monkeypatch):
    moment = START + timedelta(microseconds=12 * STEP)
    with monkeypatch.context() as patch:
        patch.setattr(maintenance, "_begin_later", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            gallery.purge(moment)
    with gallery.writer() as writer:  # which repairs
        for source in range(2):
            writer.add_source(source_of(source))
    gallery.purge(moment)
    for source in range(2):
        written.check_visits(gallery, source, people_of(source, 12))


def test_the_writer_purges_and_goes_on(gallery):
    moment = START + timedelta(microseconds=(FRAMES - 2) * STEP)
    with gallery.writer() as writer:
        for source in range(2):
            writer.add_source(source_of(source))
        assert writer.purge(moment).people == sum(count(people_of(source, 0, FRAMES - 2)) for source in range(2))
        more = range(FRAMES, FRAMES + 5)
        writer.commit([SourceBatch(0, tuple(marked(0, at) for at in more))])
        writer.compact()
        writer.purge(moment)
        writer.commit([SourceBatch(0, (marked(0, FRAMES + 5),))])
    written.check_visits(gallery, 0, people_of(0, FRAMES - 2, FRAMES + 6))
    written.check_visits(gallery, 1, people_of(1, FRAMES - 2))
    assert gallery.sources()[0].progress.frames == FRAMES + 6


def test_people_that_a_crash_left_uncommitted_are_in_no_purged_visit(gallery):
    (row,) = gallery.store.people.search().where("source = 0 AND visit IS NOT NULL").limit(1).to_list()
    gallery.store.people.add([{**row, "frame": FRAMES * STEP, "visit": written.visit_id(0, (FRAMES - 1) // 10 * 4)}])
    gallery.purge(START + timedelta(microseconds=(FRAMES - 5) * STEP))
    written.check_visits(gallery, 0, people_of(0, FRAMES - 5))


def test_a_source_is_deleted_with_all_that_is_of_it(gallery):
    removed = gallery.delete_source(source_of(1).name)
    assert removed.people == count(people_of(1))
    assert [info.source.name for info in gallery.sources()] == [source_of(0).name]
    assert b"jpeg <1 " not in on_disk(gallery) and b"camera 1" not in on_disk(gallery)
    written.check_people(gallery, 0, people_of(0))
    written.check_visits(gallery, 0, people_of(0))
    with pytest.raises(GalleryError, match=r"no source /videos/1\.mp4; psarm gallery sources lists"):
        gallery.delete_source(source_of(1).name)


def test_a_deleted_sources_number_is_not_given_again(gallery):
    for _ in range(2):
        gallery.delete_source(source_of(1).name)
        gallery.compact()
        with gallery.writer() as writer:
            number = writer.add_source(source_of(1)).source
            writer.commit([SourceBatch(number, (frame_people(1, 0),))])
    assert number == 3 and [info.progress.source for info in gallery.sources()] == [0, 3]


@pytest.mark.parametrize("erased", range(2))
def test_a_broken_off_deletion_is_finished_by_the_same_call(gallery, monkeypatch, erased):
    calls = []

    def doomed(store):
        calls.append(store)
        if len(calls) > erased:
            raise GalleryError("killed")
        erase(store)

    erase = maintenance.erase
    with monkeypatch.context() as patch:
        patch.setattr(maintenance, "erase", doomed)
        with pytest.raises(GalleryError, match="killed"):
            gallery.delete_source(source_of(1).name)
    if not erased:
        assert b"jpeg <1 " in on_disk(gallery)
        gallery.delete_source(source_of(1).name)
    assert b"jpeg <1 " not in on_disk(gallery) and len(gallery.sources()) == 1

    (row,) = gallery.store.visits.search().limit(1).to_list()
    with monkeypatch.context() as patch:
        patch.setattr(maintenance, "erase", lambda store: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            gallery.delete_visits([row["visit"]])
    assert row["thumbnail"] in on_disk(gallery)
    with pytest.raises(UsageError, match="has no visit"):
        gallery.delete_visits([row["visit"]])
    assert row["thumbnail"] not in on_disk(gallery)


def test_a_writer_purges_only_where_somebody_is_to_go(gallery, monkeypatch):
    moment = START + timedelta(microseconds=12 * STEP)
    with gallery.writer() as writer:
        writer.purge(START)  # nobody was seen before
        assert len(gallery.store.visits.list_versions()) > 1
        with monkeypatch.context() as patch:
            patch.setattr(maintenance, "_begin_later", lambda *args: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                writer.purge(moment)
    with gallery.writer() as writer:
        writer.purge(moment)  # finishes the one before
        written.check_visits(gallery, 0, people_of(0, 12))
        assert not maintenance.is_purge_due(gallery.store, moment)


def test_visits_are_erased_with_their_people_and_not_indexed_again(gallery):
    last = max(row["visit"] for row in gallery.store.visits.search().where("source = 0").to_list())
    ids = [0, last]
    rows = gallery.store.visits.search().where(f"visit IN (0, {last})").to_list()
    expected = gallery.visits_to_be_deleted(ids)
    before = gallery.info()
    removed = gallery.delete_visits(ids)
    info = gallery.info()
    assert (removed.people, removed.visits) == (expected.people, expected.visits) == (sum(r["frames"] for r in rows), 2)
    assert (before.people - info.people, before.visits - info.visits) == (removed.people, 2)
    assert not any(row["thumbnail"] in on_disk(gallery) for row in rows)
    with gallery.writer() as writer:  # which folds the last segment again, where a visit lacks it
        assert writer.add_source(source_of(0)).last_frame == (FRAMES - 1) * STEP
    assert gallery.info().visits == info.visits
    with pytest.raises(UsageError, match=r"has no visit 0-0; psarm search"):
        gallery.delete_visits([1, 0])
    assert gallery.info().visits == info.visits


def test_compaction_keeps_all_and_sums_segments_up(gallery):
    progress = [vars(info.progress) for info in gallery.sources()]
    people = gallery.store.people.search().to_arrow().sort_by([("source", "ascending"), ("frame", "ascending")])
    gallery.compact()
    assert [vars(info.progress) for info in gallery.sources()] == progress
    assert gallery.store.segments.count_rows() == 4
    after = gallery.store.people.search().to_arrow().sort_by([("source", "ascending"), ("frame", "ascending")])
    assert after == people
    assert gallery.store.people.stats()["fragment_stats"]["num_fragments"] == 1
    gallery.compact()
    assert [vars(info.progress) for info in gallery.sources()] == progress


def test_a_reader_whose_files_a_purge_removes_begins_again(gallery):
    reader = Gallery.open(gallery.where)
    calls = []

    def read(store):
        if not calls:
            gallery.purge(START + timedelta(microseconds=30 * STEP))
        calls.append(store.people.search().to_arrow().num_rows)
        return calls[-1]

    assert reader.store.read(read) == calls[-1] == sum(count(people_of(source, 30)) for source in range(2))


def crowded(gallery):
    """A file of 600 people of source 0 who come last, indexed; their frame."""
    from lancedb.index import IvfFlat

    crowd = replace(
        frame_people(0, FRAMES),
        time=START + timedelta(microseconds=FRAMES * STEP),
        boxes=np.zeros((600, 4), np.float32),
        scores=np.ones(600, np.float32),
        embeddings=np.random.default_rng(0).normal(size=(600, DIM)).astype(np.float32),
        visits=np.full(600, -1),
        thumbnails=(),
        size=None,
    )
    with gallery.writer() as writer:
        writer.add_source(source_of(0))
        writer.commit([SourceBatch(0, (crowd,))])
    gallery.store.people.create_index("embedding", config=IvfFlat(distance_type="dot", num_partitions=2))
    assert gallery.info().indexed == ("people",)
    return crowd


def test_an_index_that_goes_with_the_rewritten_rows_is_named(gallery):
    crowded(gallery)
    assert gallery.purge(START + timedelta(microseconds=2 * STEP)).index_dropped == ("people",)
    assert gallery.info().indexed == ()


def test_an_index_goes_with_a_file_that_is_deleted_as_a_whole(gallery):
    gallery.compact()  # one file; the crowd's is the other
    crowd = crowded(gallery)
    needle = crowd.embeddings[17].tobytes()
    assert on_disk(gallery).count(needle) >= 2  # the row and the index, which keeps it as it is
    assert gallery.purge(crowd.time).index_dropped == ("people",)
    assert gallery.info().people == 600 and gallery.info().indexed == ()
    gone = frame_people(0, next(at for at in range(FRAMES) if len(frame_people(0, at).scores))).embeddings[0].tobytes()
    assert gone not in on_disk(gallery) and not list(gallery.store.directory.rglob("*.idx"))


def test_an_index_of_people_that_are_not_kept_goes(tmp_path):
    with Gallery.create(tmp_path / "visits only", "fingerprint", DIM, "/bundle", people=False) as gallery:
        crowd = crowded(gallery)
        with gallery.writer() as writer:
            writer.add_source(source_of(0))
            writer.commit([SourceBatch(0, finished=True)])  # forgets them
        assert gallery.info().people == 0
        assert gallery.purge(START).index_dropped == ("people",)
        assert not list(gallery.store.directory.rglob("*.idx"))
        assert crowd.embeddings[17].tobytes() not in on_disk(gallery)
