"""Writing files so that a reader sees the old content or the new one, never a half."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from psarm.errors import UsageError


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success sync it to disk and rename it to `target`.

    On any exception the temporary file is removed and `target` keeps its old content. An OSError names `target` where
    it names no file or the temporary one.
    """
    target = Path(target)
    temporary = _temporary_beside(target)
    try:
        yield temporary
        _finish(temporary)
        temporary.replace(target)
        _sync(target.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        _name_target(error, temporary, target)
        raise


def write_together(contents: Mapping[Path, bytes | memoryview], obsolete: Iterable[Path] = ()) -> None:
    """Write several files, all of which keep their old content where one of them cannot be written.

    Every content is on the disk under a temporary name before the `obsolete` files are removed and the new ones get
    their names, in the order given; Ctrl-C and SIGTERM wait for that. An OSError names the file it is about, as with
    `atomic_path`.
    """
    temporaries: dict[Path, Path] = {}
    target = None
    try:
        for target, content in contents.items():
            temporaries[target] = _temporary_beside(target)
            temporaries[target].write_bytes(content)
            _finish(temporaries[target])
        with uninterrupted():
            for path in obsolete:
                path.unlink(missing_ok=True)
            for target, temporary in temporaries.items():
                temporary.replace(target)
                _sync(target.parent)
    except BaseException as error:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
        if target in temporaries:
            _name_target(error, temporaries[target], target)
        raise


@contextmanager
def atomic_directory(target: str | Path) -> Iterator[Path]:
    """Yield an empty temporary directory beside `target`; on success rename it to `target`, replacing it.

    On any exception the temporary directory is removed and `target` keeps its old content. An OSError names a file as
    it would lie in `target`, or `target` where it names none.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    except OSError as error:
        error.filename = str(target)
        raise
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                _sync(path)
        temporary.chmod(0o777 & ~_umask())
        _put_in_place(temporary, target)
        _sync(target.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _name_target(error, temporary, target)
        raise


def cache_folder() -> Path | None:
    """Where caches lie; None where this user has no home folder and says no other."""
    if folder := os.environ.get("PSARM_CACHE"):
        return Path(folder)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "psarm"
    try:
        return Path.home() / ".cache" / "psarm"
    except RuntimeError:
        return None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM, where Python handles them, come after the body (only the main thread gets them)."""
    came: list[int] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def is_taken(directory: Path) -> bool:
    """Whether a directory to be written is there already and holds something; raises `UsageError` for a file."""
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file; give a directory that does not exist yet.")
    return directory.exists() and any(directory.iterdir())


def refuse_unwritable(target: Path, option: str = "", inside: bool = False) -> None:
    """Raise `UsageError` where a file or directory `target` could not be written, before the work for it begins.

    Folders that are missing are made when it is written, so that the nearest one that is there is tried; nothing is
    left in it. `option` is what the user gave it as; `inside`: files are put into `target`, which may be there already.
    """
    path = target.absolute()
    folder = next((one for one in ([path, *path.parents] if inside else path.parents) if one.exists()), Path("/"))
    refused = f"{option} {target}".strip() + " cannot be written"
    if not folder.is_dir():
        raise UsageError(f"{refused}: {folder} is not a directory; give another place.")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{refused}: {folder} does not allow it ({error.strerror}); give another place.") from error


def _put_in_place(directory: Path, target: Path) -> None:
    """Rename `directory` to `target`; what was there is moved aside first and comes back if that fails."""
    if not target.exists():
        directory.replace(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    old = target.replace(aside / target.name)
    try:
        directory.replace(target)
    except BaseException:
        old.replace(target)
        aside.rmdir()
        raise
    shutil.rmtree(aside)


def write_text(target: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `target` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: str | Path, value: Any) -> None:
    """Write `value` as indented JSON to `target` atomically; ValueError for NaN and infinity, which JSON has not."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temporary_beside(target: Path) -> Path:
    """An empty file to be written in the place of `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(handle)
    except OSError as error:
        error.filename = str(target)
        raise
    return Path(name)


def _finish(temporary: Path) -> None:
    """Sync a temporary file to disk, with the permissions that a new file gets."""
    _sync(temporary)
    temporary.chmod(0o666 & ~_umask())


def _name_target(error: BaseException, temporary: Path, target: Path) -> None:
    """Let an error of the system name what the user asked for: `target` means something, the temporary path nothing."""
    if not isinstance(error, OSError) or error.errno is None:
        return
    if error.filename is None:
        error.filename = str(target)
    elif isinstance(error.filename, str) and Path(error.filename).is_relative_to(temporary):
        error.filename = str(target / Path(error.filename).relative_to(temporary))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
