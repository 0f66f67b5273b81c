"""A line of JSON for every search, export and erasure: who did what with a gallery, without pictures and embeddings."""

from __future__ import annotations

import json
import os
import pwd
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psarm.errors import GalleryError, UsageError
from psarm.runtime.gallery.records import Where
from psarm.runtime.gallery.search import SearchRequest

AUDIT_FILE = "audit.jsonl"

BEGINNING = b'{"time"'
"""Of every line."""

Counts = dict[str, int | None]
"""What is known only after it: how many hits, people, visits; None: it failed."""


class AuditLog:
    """The lines on a gallery. What cannot be written down is not done."""

    def __init__(self, gallery: str, directory: Path | None, path: Path | None) -> None:
        """`directory`: of the gallery, None on object storage; `path`: the file, None for the gallery's own.

        Raises `UsageError` where `path` is a file of something else.
        """
        if path is not None:
            _check_is_log(path)
        self._gallery = gallery
        self.path = path or (directory / AUDIT_FILE if directory else None)

    def query(self, what: str, request: SearchRequest, names: Sequence[str]) -> AbstractContextManager[Counts]:
        """Write a line after the body, which makes the query and counts its `hits`.

        Raises:
            GalleryError: the line cannot be written; the body does not run where that is known before it. So do
                `export` and `erasure`.
        """
        facts = {
            "query": list(names),
            "filters": _filters(request.where),
            "cbgm": request.context is not None,
            "top_k": request.top_k,
        }
        return self._line(what, facts, ("hits",))

    def export(self, layout: str, target: Path) -> AbstractContextManager[Counts]:
        """Write a line after the body, which writes the file and counts the `people` in it."""
        return self._line(f"export_{layout}", {"out": str(target.absolute()), "filters": {}}, ("people",))

    def erasure(self, what: str, filters: Mapping[str, Any]) -> AbstractContextManager[Counts]:
        """Write a line before the body, which erases what the filters say, and counts the `visits` and `people`.

        A line after it has the counts, and the same `erasure`. What is erased does not come back, so that the log says
        so whatever happens then.
        """
        facts = {"filters": dict(filters), "erasure": secrets.token_hex(8)}
        return self._line(what, facts, ("visits", "people"), first=True)

    @contextmanager
    def _line(
        self, what: str, facts: Mapping[str, Any], counted: Sequence[str], first: bool = False
    ) -> Iterator[Counts]:
        """Write a line after the body, also where it fails; with `first`, one before it too, without counts."""
        descriptor = self._open()
        counts: Counts = dict.fromkeys(counted)
        try:
            if first:
                self._write(descriptor, {**self._head(what), **facts})
            try:
                yield counts
            finally:
                self._write(descriptor, {**self._head(what), **facts, **counts})
        finally:
            os.close(descriptor)

    def _head(self, what: str) -> dict[str, Any]:
        return {"time": datetime.now(UTC).isoformat(), "user": _user(), "gallery": self._gallery, "what": what}

    def _open(self) -> int:
        if self.path is None:
            raise GalleryError(f"{self._gallery} is on object storage and keeps no audit log; add --audit-log FILE.")
        try:
            return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise GalleryError(
                f"The audit log {self.path} cannot be written ({error.strerror}), and searches, exports and erasures "
                "are written down; add --audit-log FILE."
            ) from error

    def _write(self, descriptor: int, entry: dict[str, Any]) -> None:
        data = (json.dumps(entry, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
        try:
            written = os.write(descriptor, data)  # one call: lines of several processes do not mix
            if written != len(data):
                _take_back(descriptor, written)
            os.fsync(descriptor)
        except OSError as error:
            raise GalleryError(f"The audit log {self.path} cannot be written ({error.strerror}).") from error
        if written != len(data):
            raise GalleryError(f"The audit log {self.path} cannot be written: its disk is full.")


def _check_is_log(path: Path) -> None:
    """Raise `UsageError` for a file that has something in it and does not begin as a log does."""
    try:
        if not path.is_file():
            return
        with path.open("rb") as file:
            beginning = file.read(len(BEGINNING))
    except PermissionError:  # a user may be allowed to add lines and not to read them
        return
    if beginning and beginning != BEGINNING:
        raise UsageError(f"{path} is no audit log, and no line is added to it; give --audit-log a new file or a log.")


def _take_back(descriptor: int, written: int) -> None:
    """Cut off the part of a line that was just written: the next line begins on a new one."""
    end = os.lseek(descriptor, 0, os.SEEK_CUR)
    if os.fstat(descriptor).st_size == end:  # not where another process has written behind it
        os.ftruncate(descriptor, end - written)


def _filters(where: Where) -> dict[str, Any]:
    """Those that are set."""
    values = {name: getattr(where, name) for name in ("cameras", "sources", "start", "end", "min_score")}
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in values.items()
        if value is not None
    }


def _user() -> str:
    """Name of the process's user (the system's, not what its environment says), or the number where it has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
