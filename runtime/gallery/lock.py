"""One process writes to a gallery at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psarm.errors import GalleryError

LOCK_FILE = ".writer.lock"


@contextmanager
def writer_lock(directory: Path) -> Iterator[None]:
    """Hold the lock of a gallery's directory; the system lets it go when the process dies, however it does.

    Raises:
        GalleryError: another process (or another writer of this one) holds it, or the directory cannot be written.
    """
    path = directory / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise GalleryError(f"{directory} cannot be written ({error.strerror}); it can be searched.") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise GalleryError(
                f"{directory} is being written by {_holder(descriptor)}; one process writes at a time, so wait until "
                "it is done."
            ) from error
        except OSError as error:
            raise GalleryError(f"{path} cannot be locked ({error.strerror}); use a file system with locks.") from error
        # Not the arguments: addresses of cameras hold passwords.
        _write(descriptor, f"{os.getpid()} {Path(sys.argv[0]).name}\n")
        try:
            yield
        finally:
            _write(descriptor, "")
    finally:
        os.close(descriptor)


def _write(descriptor: int, text: str) -> None:
    """Replace the file's content, which is for people: what counts is the lock, also on a full disk."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, os.fsencode(text), 0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def _holder(descriptor: int) -> str:
    pid, _, program = os.pread(descriptor, 4096, 0).decode(errors="replace").strip().partition(" ")
    return f"process {pid} ({program})" if pid else "another process"
