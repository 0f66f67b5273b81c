"""Files that a command writes at its end: looked at before its work begins."""

from __future__ import annotations

import os
from pathlib import Path

from psarm.errors import UsageError

PAGE, JPEG = (b"<!doctype html", b"<html"), (b"\xff\xd8\xff",)
"""How such files begin, in lower case."""


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


def check_page(option: str, target: Path | None) -> None:
    """`check_writable` for a page; also raises `UsageError` where it would take the place of what is no page."""
    _check_kind(option, target, PAGE, "a page")


def check_jpeg(option: str, target: Path | None) -> None:
    """`check_writable` for a JPEG; also raises `UsageError` where it would take the place of what is none."""
    _check_kind(option, target, JPEG, "a JPEG")


def _check_kind(option: str, target: Path | None, beginnings: tuple[bytes, ...], kind: str) -> None:
    check_writable(option, target)
    if target is not None and target.exists() and not _begins(target, beginnings):
        raise UsageError(f"{target} would be overwritten by {option} and is not {kind}; give another name.")


def _begins(file: Path, beginnings: tuple[bytes, ...]) -> bool:
    """Whether `file` begins so, or is empty: nothing is lost then."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        head = opened.read(256)
    return not head or head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(beginnings)
