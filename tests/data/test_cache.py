import os
import threading
from pathlib import Path

import numpy as np
import pytest
from cuhk_disk import LISTS, write_cuhk, write_protocol
from prw_files import write_matrix, write_prw

from psarm.data import cuhk_sysu, prw
from psarm.data.cache import cached_arrays
from psarm.data.cuhk_sysu import read_cuhk_sysu
from psarm.data.prw import annotation_path, read_prw
from psarm.files import cache_folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PSARM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path):
    (tmp_path / "data/notes").mkdir(parents=True)
    for name in ("a.txt", "notes/b.txt"):
        (tmp_path / "data" / name).write_text("text")
    return tmp_path / "data"


class Reader:
    """Counts how often the source is read."""

    def __init__(self, root: Path, version: int = 1) -> None:
        self.root, self.version, self.reads = root, version, 0

    def __call__(self):
        sources = [Path("a.txt"), Path("notes"), Path("missing.txt")]
        return cached_arrays("test", self.version, self.root, sources, self.read)

    def read(self):
        self.reads += 1
        return {"numbers": np.arange(5), "names": np.array(["x", "yz"]), "none": np.zeros((0, 4), np.float32)}


def same(arrays):
    expected = Reader(Path()).read()
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected[name], strict=True)
    return True


def test_the_second_time_comes_from_the_cache(folder, source):
    reader = Reader(source)
    assert same(reader()) and same(reader()) and reader.reads == 1
    [file] = folder.iterdir()
    assert file.name.startswith("test-") and file.suffix == ".npz"
    assert Reader(source, version=2)() and Reader(source, version=2)() and len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "a.txt").write_text("longer text"),
        lambda root: (root / "notes/b.txt").write_text("longer text"),
        lambda root: os.utime(root / "notes/b.txt", ns=(0, 10**18)),
        lambda root: (root / "notes/c.txt").write_text(""),
        lambda root: (root / "notes/b.txt").unlink(),
        lambda root: (root / "notes/b.txt").rename(root / "notes/c.txt"),
        lambda root: (root / "missing.txt").write_text(""),
        lambda root: (root / "a.txt").unlink(),
    ],
)
def test_every_change_of_a_source_is_seen(folder, source, change):
    reader = Reader(source)
    reader()
    change(source)
    assert same(reader()) and reader.reads == 2
    reader()
    assert reader.reads == 2 and len(list(folder.iterdir())) == 1


def test_a_change_that_keeps_size_and_modification_time_is_seen(folder, source):
    reader = Reader(source)
    reader()
    file = source / "notes/b.txt"
    before = file.stat()

    def restore(path):
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns

    file.write_text("TEXT")
    while file.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of the file system may tick slowly
        restore(file)
    restore(file)
    reader()
    assert reader.reads == 2
    (source / "new").write_text("Text")
    restore(source / "new")
    (source / "new").rename(file)
    reader(), reader()
    assert reader.reads == 3


def test_other_files_and_other_names_of_the_folder_change_nothing(folder, source, tmp_path, monkeypatch):
    reader = Reader(source)
    reader()
    (source / "other.txt").write_text("x")
    (source / "notes/deep").mkdir()
    (tmp_path / "link").symlink_to(source)
    monkeypatch.chdir(tmp_path)
    for root in (source, tmp_path / "link", Path("data")):
        reader.root = root
        reader()
    assert reader.reads == 1
    (tmp_path / "copy").mkdir()
    other = Reader(tmp_path / "copy")
    other()
    assert other.reads == 1 and len(list(folder.iterdir())) == 2


def test_what_cannot_be_read_is_not_cached(folder, source):
    def fail():
        raise ValueError

    with pytest.raises(ValueError):
        cached_arrays("test", 1, source, [Path("a.txt")], fail)
    assert not folder.exists()


def test_a_damaged_cache_is_written_anew(folder, source):
    reader = Reader(source)
    reader()
    [file] = folder.iterdir()
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    cuts = [whole[:length] for length in range(0, len(whole), 97)]
    flips = []
    for _ in range(300):
        flipped = bytearray(whole)
        flipped[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        flips.append(bytes(flipped))
    for content in [*cuts, *flips, b"text", np.lib.format.magic(1, 0)]:
        file.write_bytes(content)
        assert same(reader())
    assert reader.reads > len(cuts) + 200
    file.write_bytes(b"")
    before = reader.reads
    reader(), reader()
    assert reader.reads == before + 1


def test_a_folder_that_cannot_be_written_is_said_and_no_error(source, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PSARM_CACHE", str(tmp_path / "file"))
    reader = Reader(source)
    assert same(reader()) and same(reader()) and reader.reads == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 2 and message.startswith("The annotations cannot be cached in ")
    assert (tmp_path / "file").read_text() == ""


def test_where_the_cache_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("PSARM_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == Path("/one")
    monkeypatch.setenv("PSARM_CACHE", "")
    assert cache_folder() == Path("/two/psarm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache" / "psarm"

    def homeless():
        raise RuntimeError

    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder() is None


def test_without_a_folder_everything_is_read_anew(source, monkeypatch):
    monkeypatch.setattr("psarm.data.cache.cache_folder", lambda: None)
    reader = Reader(source)
    assert same(reader()) and same(reader()) and reader.reads == 2


def test_many_at_the_same_time(folder, source):
    failures = []

    def work():
        for i in range(20):
            if i % 5 == 0:
                for file in folder.glob("*.npz"):
                    file.unlink(missing_ok=True)
            try:
                same(Reader(source)())
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and [file.suffix for file in folder.iterdir()] == [".npz"]


def equal(one, two):
    for name in ("train", "gallery"):
        for a, b in zip(getattr(one, name), getattr(two, name), strict=True):
            assert (a.name, a.path, a.camera) == (b.name, b.path, b.camera)
            np.testing.assert_array_equal(a.boxes, b.boxes, strict=True)
            np.testing.assert_array_equal(a.identities, b.identities, strict=True)
    for a, b in zip(one.queries, two.queries, strict=True):
        assert (a.name, a.path, a.camera, a.identity) == (b.name, b.path, b.camera, b.identity)
        np.testing.assert_array_equal(a.box, b.box, strict=True)
    assert one.galleries.keys() == two.galleries.keys()
    for name, lists in one.galleries.items():
        for a, b in zip(lists, two.galleries[name], strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
    assert one.located.keys() == two.located.keys()
    for name, people in one.located.items():
        for a, b in zip(people, two.located[name], strict=True):
            np.testing.assert_array_equal(a.items, b.items, strict=True)
            np.testing.assert_array_equal(a.boxes, b.boxes, strict=True)
    return True


def test_prw_from_the_cache(folder, tmp_path, monkeypatch):
    root = write_prw(tmp_path / "PRW")
    first = read_prw(root)
    with monkeypatch.context() as patch:
        patch.setattr(prw, "read_annotation", None)
        patch.setattr(prw, "load_mat", None)
        assert equal(read_prw(root), first)
    write_matrix(root, "c1s1_000151", [[5, 1, 2, 30, 40]])
    assert read_prw(root).train[0].identities.tolist() == [5]
    file = annotation_path(root, "c1s1_000151.jpg")
    before = file.stat()
    write_matrix(root, "other", [[6, 1, 2, 30, 40]])
    annotation_path(root, "other.jpg").rename(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size and read_prw(root).train[0].identities.tolist() == [6]


def test_cuhk_sysu_from_the_cache(folder, tmp_path, monkeypatch):
    root = write_cuhk(tmp_path / "CUHK-SYSU")
    first = read_cuhk_sysu(root)
    with monkeypatch.context() as patch:
        patch.setattr(cuhk_sysu, "read_images", None)
        patch.setattr(cuhk_sysu, "read_protocol", None)
        assert equal(read_cuhk_sysu(root), first)
    write_protocol(root, 4000)
    assert "4000" in read_cuhk_sysu(root).galleries
    (root / LISTS / "TestG4000.mat").unlink()
    assert "4000" not in read_cuhk_sysu(root).galleries


@pytest.mark.parametrize("write", [write_prw, write_cuhk])
def test_an_image_that_went_missing_is_seen_although_annotations_are_cached(folder, tmp_path, write):
    root = write(tmp_path / "data")
    read = read_prw if write is write_prw else read_cuhk_sysu
    image = read(root).gallery[0].path
    image.unlink()
    with pytest.raises(Exception, match=f"{image} is .* missing"):
        read(root)
