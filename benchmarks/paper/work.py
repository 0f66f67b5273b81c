"""The results so far of a run, one file each: what is there is not measured again.

A file is written whole or not at all, and holds the key of what it is a result of: a step's name, the content of the
checkpoint and of the data set, versions. A result whose key differs in anything lies in another file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.console import err
from psarm.errors import UsageError
from psarm.files import atomic_path, is_taken, write_json

Key = Mapping[str, Any]
Arrays = dict[str, NDArray[Any]]
MARK = "suite.json"
CONTENT = {"suite": "paper", "schema": 1}
_KEY = "key"


class WorkFolder:
    """`OUT/work`, made if need be; counts what was `kept` of earlier runs and what was `measured`."""

    def __init__(self, out: Path, fresh: bool = False) -> None:
        """Open the folder; `fresh` removes what earlier runs left in `out`. Raises as `check` does."""
        self.path = out / "work"
        self.check(out)
        mark = self.path / MARK
        write_json(mark, CONTENT)
        for path in self.path.iterdir():
            if path != mark and (fresh or path.name.endswith(".tmp")):  # .tmp: of a run that was killed as it wrote
                path.unlink()
        for name in ("report.html", "report.json") if fresh else ():
            (out / name).unlink(missing_ok=True)
        self.kept = self.measured = 0

    @staticmethod
    def check(out: Path) -> None:
        """Raise `UsageError` where `out` is a file, or holds something that this suite did not write."""
        if is_taken(out) and not _is_ours(out / "work" / MARK):
            raise UsageError(f"{out} holds something else than a report of --suite paper; give another --out.")

    def has(self, key: Key) -> bool:
        """Whether there is a file under this key."""
        return any(self._file(key, suffix).exists() for suffix in ("json", "npz"))

    def values(self, key: Key, measure: Callable[[], Any]) -> Any:
        """The JSON values under a key, of an earlier run or else as `measure` gives them."""
        path = self._file(key, "json")
        stored = _read_json(path)
        if stored is None or stored.get(_KEY) != _plain(key):
            self._announce(path)
            stored = {_KEY: _plain(key), "result": measure()}
            write_json(path, stored)
            self.measured += 1
        else:
            self.kept += 1
        return _plain(stored["result"])

    def arrays(self, key: Key, measure: Callable[[], Arrays]) -> Arrays:
        """The arrays under a key, of an earlier run or else as `measure` gives them."""
        path = self._file(key, "npz")
        stored = _read_arrays(path)
        text = json.dumps(_plain(key), sort_keys=True)
        if stored is None or str(stored.pop(_KEY, "")) != text:
            self._announce(path)
            stored = measure()
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **{_KEY: np.array(text)}, **stored)  # type: ignore[arg-type]  # as in detections_file
            self.measured += 1
        else:
            self.kept += 1
        return stored

    def _file(self, key: Key, suffix: str) -> Path:
        digest = hashlib.sha256(json.dumps(_plain(key), sort_keys=True).encode()).hexdigest()
        words = str(key["step"]).replace(" ", "-")
        return self.path / f"{words}-{digest[:16]}.{suffix}"

    def _announce(self, path: Path) -> None:
        if path.exists():
            err.print(f"{path} is damaged; it is measured again.", markup=False)


def _is_ours(mark: Path) -> bool:
    """Whether `mark` says so, or all there is is a mark that a killed run had not put in place yet."""
    content = _read_json(mark)
    if content is not None:
        return content.get("suite") == CONTENT["suite"]
    files = [path for path in mark.parents[1].rglob("*") if path != mark.parent]
    return all(path.parent == mark.parent and path.name.startswith(f".{MARK}.") for path in files)


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


def _plain(value: Any) -> Any:
    """As JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(value))
