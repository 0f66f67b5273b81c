"""Writing so that a reader sees the old content or the new one, and nothing else is left behind."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from psarm import files
from psarm.errors import UsageError
from psarm.files import (
    atomic_directory,
    atomic_path,
    is_taken,
    refuse_unwritable,
    sha256,
    write_json,
    write_text,
    write_together,
)

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
FAILURES = [ValueError("no"), KeyboardInterrupt(), SystemExit(3), NO_SPACE]


def listing(folder):
    """Every file under `folder`, hidden ones too, with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.fixture
def no_space_to_sync(monkeypatch):
    """Some file systems tell only on fsync that the disk is full."""

    def full(descriptor):
        raise NO_SPACE

    monkeypatch.setattr(os, "fsync", full)


@pytest.mark.parametrize("writing", [atomic_path, atomic_directory])
def test_errors_of_the_system_name_the_target(tmp_path, writing):
    def fail(error, name=None):
        with pytest.raises(type(error)) as caught, writing(tmp_path / "out") as temporary:
            if name:
                error.filename = str(temporary / name)
            raise error
        return caught.value.filename

    assert fail(OSError(errno.EFBIG, "File too large")) == str(tmp_path / "out")
    assert fail(OSError(errno.EIO, "Input/output error"), "x/y.bin") == str(tmp_path / "out" / "x" / "y.bin")
    assert fail(OSError(errno.EIO, "Input/output error", "/elsewhere")) == "/elsewhere"
    assert fail(OSError("no number")) is None


@pytest.mark.parametrize("writing", [atomic_path, atomic_directory])
def test_a_folder_that_takes_no_files_names_the_target(tmp_path, writing, monkeypatch):
    def refused(**options):
        raise PermissionError(errno.EACCES, "Permission denied", "/x/.out.tmp")

    monkeypatch.setattr(files.tempfile, "mkstemp", refused)
    monkeypatch.setattr(files.tempfile, "mkdtemp", refused)
    with pytest.raises(PermissionError) as caught, writing(tmp_path / "out"):
        pytest.fail("nothing can be written")
    assert caught.value.filename == str(tmp_path / "out")


# atomic_path


def test_path_is_written_only_at_the_end(tmp_path):
    target = tmp_path / "a" / "b.txt"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent  # the same file system, or renaming would copy
        temporary.write_text("new")
        assert not target.exists()
    assert listing(tmp_path) == {"a": None, "a/b.txt": b"new"}
    assert target.stat().st_mode & 0o777 == 0o666 & ~files._umask()


def test_path_replaces_old_content(tmp_path):
    target = tmp_path / "b.txt"
    target.write_text("old")
    with atomic_path(str(target)) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert listing(tmp_path) == {"b.txt": b"new"}


@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_path_keeps_old_content_on_any_exception(error, tmp_path):
    target = tmp_path / "b.txt"
    target.write_text("old")
    with pytest.raises(type(error)) as caught, atomic_path(target) as temporary:
        temporary.write_text("ne")
        raise error
    assert caught.value is error
    assert listing(tmp_path) == {"b.txt": b"old"}


@pytest.mark.usefixtures("no_space_to_sync")
def test_path_keeps_old_content_when_the_disk_is_full(tmp_path):
    target = tmp_path / "b.txt"
    target.write_text("old")
    with pytest.raises(OSError, match="No space left"):
        write_text(target, "new")
    assert listing(tmp_path) == {"b.txt": b"old"}
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "c.txt", "new")
    assert listing(tmp_path) == {"b.txt": b"old"}


def test_path_that_is_a_folder_is_left_alone(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "folder", "new")
    assert listing(tmp_path) == {"folder": None}


def test_path_whose_temporary_file_was_not_kept(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "b.txt") as temporary:
        temporary.unlink()
    assert listing(tmp_path) == {}


# atomic_directory


def test_directory_appears_only_at_the_end(tmp_path):
    target = tmp_path / "a" / "bundle"
    with atomic_directory(target) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "x").write_text("new")
        assert not target.exists()
    assert listing(tmp_path) == {"a": None, "a/bundle": None, "a/bundle/sub": None, "a/bundle/sub/x": b"new"}
    assert target.stat().st_mode & 0o777 == 0o777 & ~files._umask()


@pytest.fixture
def old_bundle(tmp_path):
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "y").write_text("old")
    return target


OLD = {"bundle": None, "bundle/y": b"old"}


def test_directory_replaces_the_old_one_whole(old_bundle, tmp_path):
    with atomic_directory(str(old_bundle)) as temporary:
        (temporary / "x").write_text("new")
        assert listing(old_bundle) == {"y": b"old"}
    assert listing(tmp_path) == {"bundle": None, "bundle/x": b"new"}


@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_directory_keeps_old_content_on_any_exception(error, old_bundle, tmp_path):
    with pytest.raises(type(error)) as caught, atomic_directory(old_bundle) as temporary:
        (temporary / "x").write_text("ne")
        raise error
    assert caught.value is error
    assert listing(tmp_path) == OLD


@pytest.mark.usefixtures("no_space_to_sync")
def test_directory_keeps_old_content_when_the_disk_is_full(old_bundle, tmp_path):
    with pytest.raises(OSError, match="No space left"), atomic_directory(old_bundle) as temporary:
        (temporary / "x").write_text("new")
    assert listing(tmp_path) == OLD


def test_directory_keeps_old_content_when_the_new_one_cannot_be_put_in_its_place(old_bundle, tmp_path, monkeypatch):
    """The old one is moved aside first; it comes back."""
    replace = Path.replace

    def refuse_new(self, target):
        if Path(target) == old_bundle and self.name.endswith(".tmp"):
            raise OSError(errno.EIO, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse_new)
    with pytest.raises(OSError, match="Input/output error"), atomic_directory(old_bundle) as temporary:
        (temporary / "x").write_text("new")
    assert listing(tmp_path) == OLD


# The small ones


def test_write_json(tmp_path):
    value = {"name": "Zoë", "boxes": [1, 2.5], "none": None}
    write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert "Zoë" in text
    assert text.endswith("}\n")


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "x.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"x": object()})
    for number in (float("nan"), float("inf")):  # Python would write them, and no other reader knows them
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_json(tmp_path / "x.json", [number])
    assert listing(tmp_path) == {"x.json": b"1\n"}


def test_sha256(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(content)
    assert sha256(tmp_path / "x") == sha256(str(tmp_path / "x")) == hashlib.sha256(content).hexdigest()


def test_a_directory_is_taken_where_it_holds_something(tmp_path):
    assert not is_taken(tmp_path / "new")
    assert not is_taken(tmp_path)
    (tmp_path / "file").touch()
    assert is_taken(tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        is_taken(tmp_path / "file")


def fail_on(monkeypatch, method, name, error):
    """Let a method of `Path` fail for the temporary file of `name`."""
    real = getattr(Path, method)

    def failing(path, *arguments):
        if path.name.startswith(f".{name}."):
            raise error
        return real(path, *arguments)

    monkeypatch.setattr(Path, method, failing)


def test_files_written_together(tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "obsolete").touch()
    contents = {tmp_path / "new": b"1", tmp_path / "old": memoryview(b"2")}
    write_together(contents, [tmp_path / "obsolete", tmp_path / "missing"])
    assert listing(tmp_path) == {"new": b"1", "old": b"2"}
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o666 & ~files._umask()


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_files_written_together_all_stay_where_the_last_fails(tmp_path, monkeypatch, error):
    (tmp_path / "one").write_bytes(b"old")
    (tmp_path / "obsolete").touch()
    fail_on(monkeypatch, "write_bytes", "two", error)
    with pytest.raises(type(error)):
        write_together({tmp_path / "one": b"1", tmp_path / "two": b"2"}, [tmp_path / "obsolete"])
    assert listing(tmp_path) == {"one": b"old", "obsolete": b""}


@pytest.mark.usefixtures("no_space_to_sync")
def test_files_written_together_stay_where_only_the_sync_tells(tmp_path):
    (tmp_path / "one").write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"):
        write_together({tmp_path / "one": b"1", tmp_path / "two": b"2"})
    assert listing(tmp_path) == {"one": b"old"}


def test_files_written_together_name_the_one_that_fails(tmp_path, monkeypatch):
    fail_on(monkeypatch, "write_bytes", "one", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError) as caught:
        write_together({tmp_path / "one": b"1", tmp_path / "two": b"2"})
    assert caught.value.filename == str(tmp_path / "one")


def test_files_written_together_name_what_is_in_the_way(tmp_path):
    (tmp_path / "two").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_together({tmp_path / "one": b"1", tmp_path / "two": b"2"})
    assert caught.value.filename == str(tmp_path / "two")
    assert listing(tmp_path) == {"one": b"1", "two": None}


@pytest.mark.parametrize("inside", [False, True])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path, inside):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"^--out .*new cannot be written: .*file is not a directory; give another"):
        refuse_unwritable(tmp_path / "file" / "deep" / "new", "--out", inside)
    nobody_writes = Path("/proc")  # not even root
    with pytest.raises(UsageError, match=r"^/proc/new cannot be written: /proc does not allow it \(.*\); give another"):
        refuse_unwritable(nobody_writes / "new", inside=inside)
    refuse_unwritable(tmp_path / "deep" / "new", "--out", inside)
    refuse_unwritable(tmp_path, "--out", inside)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_files_are_put_into_a_directory_that_may_be_there_in_a_place_that_allows_nothing_else():
    refuse_unwritable(Path("/proc"), inside=False)
    with pytest.raises(UsageError, match="cannot be written: /proc does not allow it"):
        refuse_unwritable(Path("/proc"), inside=True)
