"""Files that a command writes at its end: looked at before its work begins."""

from __future__ import annotations

import os
from pathlib import Path

from psarm.errors import UsageError


def check_writable(option: str, target: Path | None) -> None:
    """Raise `UsageError` where `target` cannot be written; None: the option was not given.

    Folders that are missing are made when it is written, so that the nearest one that is there counts.
    """
    if target is None:
        return
    folder = next((parent for parent in target.absolute().parents if parent.exists()), Path("/"))
    if not folder.is_dir():
        raise UsageError(f"{option} {target} cannot be written: {folder} is not a directory; give another place.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {target} cannot be written: {folder} does not allow it; give another place.")
