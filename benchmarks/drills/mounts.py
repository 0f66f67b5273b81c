"""Small and read-only file systems; only root can mount them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psarm.errors import PsarmError


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[None]:
    """An empty file system in memory at `directory`; raises `PsarmError` where it cannot be mounted."""
    directory.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory))
    try:
        yield
    finally:
        _unmount(directory)


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """`directory` may be read only, also by root; raises `PsarmError` where it cannot be mounted."""
    _mount("--bind", str(directory), str(directory))
    try:
        _mount("-o", "remount,bind,ro", str(directory))
        yield
    finally:
        _unmount(directory)


def _mount(*words: str) -> None:
    result = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if result.returncode:
        raise PsarmError(f"mount {' '.join(words)} failed: {result.stderr.strip()}; this drill is run as root.")


def _unmount(directory: Path) -> None:
    subprocess.run(["umount", "--lazy", str(directory)], check=True)
