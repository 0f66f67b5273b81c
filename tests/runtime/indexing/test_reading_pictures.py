"""Pictures, folders and lists; and what is no source."""

import pickle
from datetime import UTC, datetime

import cv2
import numpy as np
import pytest

from psarm.errors import ImageError, UsageError
from psarm.runtime.indexing.pictures import UNREADABLE
from psarm.runtime.indexing.reading import Skip
from psarm.runtime.indexing.sampling import Sampling
from psarm.runtime.indexing.sources import find_readers


@pytest.fixture
def folder(tmp_path):
    """Nine pictures of rising brightness, of which 4.png is broken, and a text beside them."""
    for number in range(9):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((5, 7, 3), number * 20, np.uint8))
    (tmp_path / "4.png").write_bytes(b"no picture")
    (tmp_path / "notes.md").write_text("no picture")
    return tmp_path


def reader(path, sampling=None):
    [found] = find_readers([str(path)], sampling=sampling)
    return found


def summary(entries):
    return [(one.frame, one.reason) if isinstance(one, Skip) else (one.frame, one.image[0, 0, 0]) for one in entries]


def test_a_folder(folder):
    expected = [(number, UNREADABLE if number == 4 else number * 20) for number in range(9)]
    source = reader(folder).plan()
    assert (source.name, source.camera, source.kind, source.planned) == (str(folder), folder.name, "pictures", 9)
    for sampling, every in [(None, 1), (Sampling(every=4), 4), (Sampling(fps=2), 1), (Sampling(keyframes=True), 1)]:
        due = expected[::every]
        assert reader(folder, sampling).plan().planned == len(due)
        assert summary(reader(folder, sampling).read()) == due
        for after in range(9):
            assert summary(reader(folder, sampling).read(after)) == [one for one in due if one[0] > after]
        parts = pickle.loads(pickle.dumps(reader(folder, sampling).chunks(2)))
        assert summary(entry for part in parts for entry in part.read()) == due
        assert [len(list(part.read())) for part in parts][:-1] == [2] * (len(parts) - 1)
    assert all(one.time is None for one in reader(folder).read() if not isinstance(one, Skip))


def test_a_list_and_a_single_picture(folder, tmp_path_factory):
    lists = tmp_path_factory.mktemp("lists")
    (lists / "some.txt").write_text(f"\ufeff{folder}/7.png\n\n  {folder}/gone\0.png\n../{folder.name}/2.png\n", "utf-8")
    assert summary(reader(lists / "some.txt").read()) == [(0, 140), (1, UNREADABLE), (2, 40)]
    assert summary(reader(folder / "3.png").read()) == [(0, 60)]
    (lists / "empty.txt").write_text("\n")
    with pytest.raises(ImageError, match=r"empty\.txt is empty"):
        reader(lists / "empty.txt").plan()


def test_the_signature_is_of_names_and_sizes(folder):
    before = reader(folder).plan().signature
    assert reader(folder).plan().signature == before
    (folder / "8.png").write_bytes(b"another")
    changed = reader(folder).plan().signature
    (folder / "8.png").rename(folder / "9.png")
    assert len({before, changed, reader(folder).plan().signature}) == 3


def test_what_continues_a_list(folder, tmp_path_factory):
    before = reader(folder).plan().signature
    for name, continues in (("91.png", True), ("92.PNG", True), ("sub/a.png", True), ("71.png", False)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"another")
        grown = reader(folder)
        assert grown.continues(before) is continues and grown.continues(grown.plan().signature)
        assert not continues or grown.plan().signature != before
    (folder / "71.png").unlink()
    (folder / "8.png").write_bytes(b"changed")
    assert not reader(folder).continues(before)
    listed = tmp_path_factory.mktemp("lists") / "some.txt"
    listed.write_text(f"{folder}/7.png\n{folder}/2.png\n")
    before = reader(listed).plan().signature
    for text, continues in (("7 2 1 3", True), ("7 2", True), ("7", False), ("2 7 1", False), ("7 1 2", False)):
        listed.write_text("".join(f"{folder}/{number}.png\n" for number in text.split()))
        assert reader(listed).continues(before) is continues
    assert not reader(folder).continues("") and not reader(folder).continues("f" * 64)


@pytest.mark.parametrize("what", ["unmounted", "removed", "list removed"])
def test_what_goes_away_is_not_skipped(folder, tmp_path_factory, what):
    listed = tmp_path_factory.mktemp("lists") / "some.txt"
    listed.write_text("".join(f"{folder}/{number}.png\n" for number in range(9)))
    one = reader(listed if what == "list removed" else folder)
    entries = one.read()
    next(entries)
    for file in [*folder.iterdir(), listed]:
        file.unlink()
    if what == "removed":
        folder.rmdir()
    with pytest.raises(ImageError, match="went away while it was read"):
        next(entries)


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a.txt"])
def test_what_cannot_be_looked_at_fails_alone(tmp_path, name):
    (tmp_path / name).symlink_to(tmp_path / name)
    one = reader(tmp_path / name)
    with pytest.raises(ImageError, match=name):
        one.plan()


def test_close_ends_reading(folder):
    one = reader(folder)
    entries = one.read()
    next(entries)
    one.close()
    assert list(entries) == []


def test_what_is_no_source(folder):
    (folder / "empty").mkdir()
    with pytest.raises(ImageError, match="holds no picture"):
        reader(folder / "empty").plan()
    with pytest.raises(UsageError, match="no file or folder"):
        reader(folder / "gone")
    with pytest.raises(UsageError, match="empty"):
        find_readers([])
    with pytest.raises(UsageError, match="Two sources are named"):
        find_readers([str(folder)] * 2)
    with pytest.raises(UsageError, match="2 cameras are given for 3 sources"):
        find_readers([str(folder / f"{number}.png") for number in range(3)], cameras=["a", "b"])
    with pytest.raises(UsageError, match="2 starts"):
        find_readers([str(folder)], starts=[datetime.now(UTC)] * 2)
    for source in (str(folder), "rtsp://host/live", "3"):
        with pytest.raises(UsageError, match="given no start"):
            find_readers([source], starts=[datetime.now(UTC)])
    for address in ("rtsp://[abc", "http://user:secret@[abc?secret"):
        with pytest.raises(UsageError, match=r"://\[abc is no address") as raised:
            find_readers([address])
        assert "secret" not in str(raised.value)
    (folder / "a\udcff.mp4").touch()
    with pytest.raises(UsageError, match=r"a\\udcff\.mp4 is not UTF-8"):
        find_readers([str(folder / "a\udcff.mp4")])


def test_cameras_are_one_for_all_or_one_each(folder):
    paths = [str(folder / f"{number}.png") for number in range(3)]
    cameras = [[one.source.camera for one in find_readers(paths, given)] for given in ([], ["a"], ["a", "b", "a"])]
    assert cameras == [["0", "1", "2"], ["a", "a", "a"], ["a", "b", "a"]]


@pytest.mark.parametrize("wrong", [{"fps": 2, "every": 2}, {"fps": 0}, {"every": 0}, {"every": 2, "keyframes": True}])
def test_samplings_that_cannot_work(wrong):
    with pytest.raises(UsageError):
        Sampling(**wrong)
