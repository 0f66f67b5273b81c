"""Files that a command writes at its end: looked at before its work begins."""

from __future__ import annotations

from pathlib import Path

from psarm.errors import UsageError
from psarm.files import refuse_unwritable

PAGE, JPEG = (b"<!doctype html", b"<html"), (b"\xff\xd8\xff",)
"""How such files begin, in lower case."""


def check_page(option: str, target: Path | None) -> None:
    """Raise `UsageError` where a page cannot be written, or would replace what is none; None: not asked for."""
    _check_kind(option, target, PAGE, "a page")


def check_jpeg(option: str, target: Path | None) -> None:
    """Raise `UsageError` where a JPEG cannot be written, or would replace what is none; None: not asked for."""
    _check_kind(option, target, JPEG, "a JPEG")


def _check_kind(option: str, target: Path | None, beginnings: tuple[bytes, ...], kind: str) -> None:
    if target is None:
        return
    refuse_unwritable(target, option)
    if target.exists() and not _begins(target, beginnings):
        raise UsageError(f"{target} would be overwritten by {option} and is not {kind}; give another name.")


def _begins(file: Path, beginnings: tuple[bytes, ...]) -> bool:
    """Whether `file` begins so, or is empty: nothing is lost then."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        head = opened.read(256)
    return not head or head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(beginnings)
