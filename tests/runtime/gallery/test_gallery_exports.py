import errno
import json
import os

import gallery_filled as made
import numpy as np
import pyarrow.parquet as pq
import pytest
import toy_bundle as toy

from psarm.errors import GalleryError, UsageError
from psarm.runtime.gallery import export as exporting
from psarm.runtime.gallery.export import write_coco, write_mot, write_parquet
from psarm.runtime.gallery.gallery import Gallery
from psarm.runtime.gallery.records import Source, SourceBatch


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filled")
    names = made.fill(folder / "gallery", toy.make_toy_bundle(folder / "toy.psarm"), folder)
    with Gallery.open(folder / "gallery") as gallery:
        yield gallery, names


def test_parquet(filled, tmp_path):
    gallery, (door, hall, pictures) = filled
    assert write_parquet(gallery, tmp_path / "people.parquet") == 7
    rows = pq.read_table(tmp_path / "people.parquet").to_pylist()
    assert [(row["source"], row["frame"], row["person"]) for row in rows] == [
        *((door, 0, 0), (door, made.FRAME_US, 0), (door, made.FRAME_US, 1)),
        *((hall, 0, 0), (hall, 0, 1), (pictures, 0, 0), (pictures, 1, 0)),
    ]
    assert rows[0]["time"] == made.START and rows[3]["time"] is None
    assert (rows[0]["camera"], rows[0]["visit"] is None, rows[5]["visit"]) == ("door", False, None)
    assert [row["visit_name"] for row in rows] == ["0-0", "0-0", "0-1", "1-0", "1-1", None, "2-0"]
    np.testing.assert_array_equal(rows[2]["embedding"], made.VECTORS[1] * np.float32(0.8))
    np.testing.assert_allclose(rows[2]["box"], [100, 20, 140, 80])


@pytest.mark.parametrize("write", [write_parquet, write_coco, write_mot])
def test_a_place_that_cannot_be_written_is_not_the_gallery(filled, tmp_path, write):
    gallery, _ = filled
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=str(tmp_path / "file")):
        write(gallery, tmp_path / "file" / "out")


@pytest.mark.parametrize("write", [write_coco, write_mot])
def test_a_full_disk_is_not_the_gallerys(filled, tmp_path, monkeypatch, write):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(exporting, "_xywh", full)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / 'out'}'"):
        write(filled[0], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_coco(filled, tmp_path):
    gallery, (door, hall, pictures) = filled
    assert write_coco(gallery, tmp_path / "people.json") == 7
    found = json.loads((tmp_path / "people.json").read_text())
    assert found["categories"] == [{"id": 1, "name": "person", "supercategory": "person"}]
    frames = [(door, 0), (door, made.FRAME_US), (hall, 0), (pictures, 0), (pictures, 1)]
    assert [image["file_name"] for image in found["images"]] == [f"{name}#{frame}" for name, frame in frames]
    assert found["images"][0]["time"] == "2026-03-01T12:00:00+00:00" and found["images"][2]["time"] is None
    assert [image["id"] for image in found["images"]] == [1, 2, 3, 4, 5]
    sizes = [(image["width"], image["height"]) for image in found["images"]]
    assert sizes == [made.SIZE] * 2 + [(None, None)] * 3
    annotations = found["annotations"]
    assert [item["image_id"] for item in annotations] == [1, 2, 2, 3, 3, 4, 5]
    assert annotations[2]["bbox"] == [100, 20, 40, 60] and annotations[2]["area"] == 2400
    assert annotations[2]["score"] == pytest.approx(0.8)
    tracks = [item["track_id"] for item in annotations]
    assert tracks[0] == tracks[1] and tracks[5] is None and len(set(tracks)) == 6
    assert [item["visit"] for item in annotations] == ["0-0", "0-0", "0-1", "1-0", "1-1", None, "2-0"]


def test_mot(filled, tmp_path):
    gallery, names = filled
    files = write_mot(gallery, tmp_path / "mot")
    assert list(files) == names and sorted(path.name for path in (tmp_path / "mot").iterdir()) == sorted(
        path.name for path in files.values()
    )
    rows = [line.split(",") for name in names for line in files[name].read_text().splitlines()]
    # Two frames a second are taken of ten: the second frame taken is number 1 + 5.
    assert [(int(row[0]), int(row[1])) for row in rows] == [(1, 1), (6, 1), (6, 2), (1, 1), (1, 2), (1, -1), (2, 1)]
    assert rows[2][2:] == ["100.00", "20.00", "40.00", "60.00", "0.8000", "-1", "-1", "-1"]
    with pytest.raises(UsageError, match="holds files already"):
        write_mot(gallery, tmp_path / "mot")


def test_mot_of_a_camera_needs_a_rate(tmp_path):
    with Gallery.create(tmp_path / "gallery", "f" * 64, toy.DIM, "toy.psarm") as gallery:
        second = 1_700_000_000_000_000
        frames = [made.frame_people(second + n * 1_000_000, {0: (0, 0.9, (1, 2, 3, 4))}, made.START) for n in range(2)]
        with gallery.writer() as writer:
            camera = writer.add_source(Source("rtsp://host/door", "door", "live")).source
            writer.commit([SourceBatch(camera, tuple(frames))])
        with pytest.raises(UsageError, match=r"how many frames a second rtsp://host/door has; say it with --rate\.$"):
            write_mot(gallery, tmp_path / "mot")
        assert not (tmp_path / "mot").exists()
        (file,) = write_mot(gallery, tmp_path / "mot", 25).values()
        assert [line.split(",")[0] for line in file.read_text().splitlines()] == ["1", "26"]


def test_an_empty_gallery(tmp_path):
    with Gallery.create(tmp_path / "gallery", "f" * 64, toy.DIM, "toy.psarm") as gallery:
        assert write_parquet(gallery, tmp_path / "a.parquet") == 0
        assert pq.read_table(tmp_path / "a.parquet").column_names[0] == "source"
        assert write_coco(gallery, tmp_path / "a.json") == 0
        assert json.loads((tmp_path / "a.json").read_text())["images"] == []
        assert write_mot(gallery, tmp_path / "mot") == {}


def test_what_is_not_committed_is_left_out(tmp_path):
    with Gallery.create(tmp_path / "gallery", "f" * 64, toy.DIM, "toy.psarm") as gallery:
        with gallery.writer() as writer:
            source = writer.add_source(Source("a.mp4", "door", "video", rate=10.0)).source
            writer.commit([SourceBatch(source, (made.frame_people(5, {0: (0, 0.9, (1, 2, 3, 4))}, None),))])
        (row,) = gallery.store.people.search().to_list()
        gallery.store.people.add([{**row, "frame": 6}])
        assert gallery.info().people == 2
        assert write_parquet(gallery, tmp_path / "a.parquet") == write_coco(gallery, tmp_path / "a.json") == 1


def test_visits_alone_cannot_be_exported(tmp_path):
    with Gallery.create(tmp_path / "gallery", "f" * 64, toy.DIM, "toy.psarm", people=False) as gallery:
        for write in (write_parquet, write_coco, write_mot):
            with pytest.raises(GalleryError, match="keeps visits only"):
                write(gallery, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("write", [write_parquet, write_coco, write_mot])
def test_an_export_that_begins_again_is_one(tmp_path, monkeypatch, write):
    (name, *others) = made.fill(tmp_path / "gallery", toy.make_toy_bundle(tmp_path / "toy.psarm"), tmp_path)
    step, calls = "_committed" if write is write_parquet else "_frames", []
    read = getattr(exporting, step)

    def purged(store, info, *columns):
        calls.append(info.source.name)
        if len(calls) == 2:
            with Gallery.open(tmp_path / "gallery", tmp_path / "other.jsonl") as other:
                other.delete_source(name)
            raise RuntimeError("lance error: Not found: people.lance/data/1.lance")
        return read(store, info, *columns)

    monkeypatch.setattr(exporting, step, purged)
    with Gallery.open(tmp_path / "gallery") as gallery:
        found = write(gallery, tmp_path / "out")
    (line,) = map(json.loads, (tmp_path / "gallery" / "audit.jsonl").read_text().splitlines())
    assert line["people"] == 4 and calls[0] == name and set(calls[2:]) == set(others)
    if write is write_mot:
        assert list(found) == others and sorted((tmp_path / "out").iterdir()) == sorted(found.values())
    assert not list(tmp_path.glob(".out*"))
