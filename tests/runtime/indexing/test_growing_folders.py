"""A folder that a camera drops pictures into, indexed again and again."""

import cv2
import pytest
import toy_bundle as toy

from psarm.runtime.gallery.gallery import Gallery
from psarm.runtime.gallery.writer import GalleryWriter
from psarm.runtime.indexing.again import FramesAgain
from psarm.runtime.indexing.detecting import detect_with
from psarm.runtime.indexing.indexer import Indexer
from psarm.runtime.indexing.sampling import Sampling
from psarm.runtime.indexing.sources import find_readers

RED = (255, 0, 0)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "shots").mkdir()
    return tmp_path / "shots"


def drop(folder, *numbers):
    for number in numbers:
        cv2.imwrite(str(folder / f"{number:03d}.png"), toy.draw_scene(dict.fromkeys(range(number % 3 + 1), RED)))


def index(gallery, engine, folder, every=1):
    readers = find_readers([str(folder)], sampling=Sampling(every=every))
    return Indexer(gallery, detect_with(engine, 1, requests=1)).run(readers)[0]


def frames(gallery):
    return sorted((row["frame"], row["person"], row["visit"]) for row in gallery.store.people.to_arrow().to_pylist())


@pytest.mark.parametrize("every", [1, 2])
def test_new_pictures_are_added(gallery, engine, folder, tmp_path, every):
    drop(folder, 0, 1, 2)
    assert index(gallery, engine, folder, every).finished
    drop(folder, 3, 4, 7)
    (info,) = gallery.sources()
    assert FramesAgain().read(info.source, 0).shape  # of a folder that has grown since
    report = index(gallery, engine, folder, every)
    due = 6 // every
    assert (report.due, report.indexed, report.to_do, report.finished, report.error) == (due, due, 0, True, None)
    assert report.new == due - (3 + every - 1) // every
    assert index(gallery, engine, folder, every).new == 0
    with Gallery.create(tmp_path / "whole", "0" * 64, toy.DIM, "toy.psarm") as whole:
        index(whole, engine, folder, every)
        assert frames(gallery) == frames(whole)
        assert gallery.sources()[0].source == whole.sources()[0].source


@pytest.mark.parametrize("change", ["before", "changed", "removed"])
def test_what_was_indexed_must_be_the_same(gallery, engine, folder, change):
    drop(folder, 1, 2, 3)
    index(gallery, engine, folder)
    drop(folder, *((0,) if change == "before" else (4,)))
    if change == "changed":
        (folder / "002.png").write_bytes(b"changed")
    elif change == "removed":
        (folder / "001.png").unlink()
    report = index(gallery, engine, folder)
    assert "another content" in report.error and "delete-source" in report.error and "\n" not in report.error
    assert gallery.sources()[0].progress.frames == 3


def test_a_crash_between_the_steps_loses_no_picture(gallery, engine, folder, monkeypatch):
    drop(folder, 0, 1)
    index(gallery, engine, folder)
    drop(folder, 2)
    for method in ("commit", "_grow"):
        with monkeypatch.context() as patch:
            real = getattr(GalleryWriter, method)
            patch.setattr(GalleryWriter, method, lambda *args, real=real: (real(*args), 1 / 0))
            with pytest.raises(ZeroDivisionError):
                index(gallery, engine, folder)
    assert not gallery.sources()[0].progress.finished
    assert (index(gallery, engine, folder).indexed, len(frames(gallery))) == (3, 6)
