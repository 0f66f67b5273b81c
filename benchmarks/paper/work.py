"""The results so far of a run, one file each: what is there is not measured again.

A file is written whole or not at all, and holds the key of what it is a result of: a step's name, the content of the
checkpoint and of the data set, versions. A result whose key differs in anything lies in another file. One run at a time
has the folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.console import err
from psarm.errors import UsageError
from psarm.files import atomic_path, is_taken, write_json

Key = Mapping[str, Any]
Arrays = dict[str, NDArray[Any]]
MARK = "suite.json"
LOCK = "lock"
SCHEMA = 2
"""Raise it when the files come to mean something else."""
CONTENT = {"suite": "paper", "schema": SCHEMA}
_KEY = "key"


class WorkFolder:
    """`OUT/work`, made if need be, for one run at a time; counts what was `kept` of earlier runs and `measured` now."""

    def __init__(self, out: Path, fresh: bool = False) -> None:
        """Take the folder, until `close`; `fresh` removes what earlier runs left in `out`.

        Raises as `check` does, and `UsageError` where another run has the folder.
        """
        self.path = out / "work"
        self.check(out, fresh)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise UsageError(
                f"Another run of --suite paper is writing to {out}; wait for it, or give another --out."
            ) from None
        # .tmp: of a run that was killed as it wrote.
        ended = (".tmp", ".json", ".npz") if fresh else (".tmp",)
        for path in self.path.iterdir():
            if path.name != MARK and path.name.endswith(ended) and path.is_file():
                path.unlink()
        for name in ("report.html", "report.json") if fresh else ():
            (out / name).unlink(missing_ok=True)
        write_json(self.path / MARK, CONTENT)
        self.kept = self.measured = 0

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another run have the folder."""
        self._lock.close()

    @staticmethod
    def check(out: Path, fresh: bool = False) -> None:
        """Raise `UsageError` where `out` is a file, or holds something that this version's suite did not write.

        `fresh`: that another version wrote it is no fault, as it is going to be removed.
        """
        if not is_taken(out):
            return
        mark = _read_json(out / "work" / MARK)
        ours = _is_empty(out) if mark is None else mark.get("suite") == CONTENT["suite"]
        if not ours:
            raise UsageError(f"{out} holds something else than a report of --suite paper; give another --out.")
        if mark is not None and mark.get("schema") != SCHEMA and not fresh:
            raise UsageError(
                f"{out} holds results of another version of psarm (schema {mark.get('schema')}, needed {SCHEMA}); "
                "measure everything again with --fresh, or give another --out."
            )

    def has(self, key: Key) -> bool:
        """Whether there is a whole result under this key."""
        return self._stored_values(key) is not None or self._stored_arrays(key) is not None

    def values(self, key: Key, measure: Callable[[], Any]) -> Any:
        """The JSON values under a key, of an earlier run or else as `measure` gives them."""
        stored = self._stored_values(key)
        if stored is None:
            path = self._file(key, "json")
            self._announce(path)
            stored = {_KEY: _plain(key), "result": measure()}
            write_json(path, stored)
            self.measured += 1
        else:
            self.kept += 1
        return _plain(stored["result"])

    def arrays(self, key: Key, measure: Callable[[], Arrays]) -> Arrays:
        """The arrays under a key, of an earlier run or else as `measure` gives them."""
        stored = self._stored_arrays(key)
        if stored is None:
            path = self._file(key, "npz")
            self._announce(path)
            stored = measure()
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **{_KEY: np.array(_text(key))}, **stored)  # type: ignore[arg-type]  # as in detections_file
            self.measured += 1
        else:
            self.kept += 1
        return stored

    def _stored_values(self, key: Key) -> dict[str, Any] | None:
        stored = _read_json(self._file(key, "json"))
        return stored if stored is not None and stored.get(_KEY) == _plain(key) and "result" in stored else None

    def _stored_arrays(self, key: Key) -> Arrays | None:
        stored = _read_arrays(self._file(key, "npz"))
        return stored if stored is not None and str(stored.pop(_KEY, "")) == _text(key) else None

    def _file(self, key: Key, suffix: str) -> Path:
        digest = hashlib.sha256(_text(key).encode()).hexdigest()
        words = str(key["step"]).replace(" ", "-")
        return self.path / f"{words}-{digest[:16]}.{suffix}"

    def _announce(self, path: Path) -> None:
        if path.exists():
            err.print(f"{path} is damaged; it is measured again.", markup=False)


def _is_empty(out: Path) -> bool:
    """Whether all there is is what a run leaves that was killed before its mark was in place."""
    work = out / "work"
    files = [path for path in out.rglob("*") if path != work]
    return all(path.parent == work and (path.name == LOCK or path.name.startswith(f".{MARK}.")) for path in files)


def _read_json(path: Path) -> dict[str, Any] | None:
    """What a file holds; None where there is none or it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _read_arrays(path: Path) -> Arrays | None:
    """What a file holds; None where there is none or it is damaged."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except Exception:  # numpy and zipfile raise whatever damaged bytes lead them into
        return None


def _text(key: Key) -> str:
    return json.dumps(_plain(key), sort_keys=True)


def _plain(value: Any) -> Any:
    """As JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(value))
