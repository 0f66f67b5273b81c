"""What is committed outlasts a power cut: Lance writes files and leaves it to the system when they reach the disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_OVERWRITTEN = "latest_version_hint.json"
"""The one file of a table that is written again under its name."""


def files_of(folder: Path) -> set[Path]:
    """The files below a table's or a gallery's directory, but for those that are written again."""
    return {Path(at, name) for at, _, names in os.walk(folder) for name in names if name != _OVERWRITTEN}


def bring_to_disk(files: Iterable[Path], root: Path) -> None:
    """Wait until new files below `root`, and the directories with their names, are on the disk; raises `OSError`."""
    folders: set[Path] = set()
    for file in files:
        _sync(file)
        folders.update(parent for parent in file.parents if parent == root or root in parent.parents)
    for folder in sorted(folders, reverse=True):  # a file's name after the file, a directory's after its content
        if (folder / _OVERWRITTEN).exists():
            _sync(folder / _OVERWRITTEN)
        _sync(folder)


def _sync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # removed with an old version
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
