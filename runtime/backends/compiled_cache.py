"""Graphs as a runtime has compiled them, kept so that the next engine opens sooner.

They lie in `compiled/` of the user's cache folder (`psarm.files.cache_folder`), one file a graph, named by a digest of
everything it depends on: the graph's SHA-256 and its description in the manifest, the runtime and its version, the
options, the CPU, psarm's version and `FORMAT`. A file ends with a checksum; what is damaged, or what the runtime does
not take, is compiled anew. Files are written under another name and renamed, so processes may open the same bundle at
once. The least recently used go when the folder is over its limit: 4 GiB, or as many as PSARM_COMPILED_CACHE says, 0
for no cache; a graph beyond the limit is not kept. Deleting the folder is always safe.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, TypeVar

from psarm import __version__
from psarm.errors import UsageError
from psarm.files import atomic_path, cache_folder
from psarm.machine import cpu_identity
from psarm.runtime.backends.checks import first_line
from psarm.runtime.manifest import FileInfo, GraphSpec

Loaded = TypeVar("Loaded")

LIMIT = "PSARM_COMPILED_CACHE"
"""Variable of the environment: the gibibytes that compiled graphs may take, 0 for none."""
DEFAULT_LIMIT = 4.0
FORMAT = 1
"""Raised with every change of what backends do to a graph before, or when, they have it compiled."""
_TAG = bytes([0xC5, 0x3E])
"""In protobuf, which ONNX is, the head of a 32-bit field of number 1000: what nobody knows is skipped."""
TRAILER_BYTES = len(_TAG) + 4
_CHUNK = 1 << 24
_ABANDONED_SECONDS = 3600
_off: ContextVar[bool] = ContextVar("_off", default=False)
_told: set[Path] = set()
"""Folders that cannot be written to, as this process has said."""


@contextlib.contextmanager
def nothing_kept() -> Iterator[None]:
    """For graphs that nobody opens again: those loaded inside, in this thread, are neither looked for nor kept."""
    token = _off.set(True)
    try:
        yield
    finally:
        _off.reset(token)


def check_limit() -> None:
    """Raise `UsageError` where PSARM_COMPILED_CACHE is no number of gibibytes."""
    _limit()


@dataclass(frozen=True)
class CompiledGraph:
    """Where a graph's compiled form is kept, whether or not it is there yet."""

    path: Path
    limit: float
    """Bytes that the folder may take."""

    @classmethod
    def find(cls, file: FileInfo, spec: GraphSpec, runtime: str, options: Mapping[str, object]) -> Self | None:
        """The place for a graph; None where there is no cache folder, or PSARM_COMPILED_CACHE is 0 or less than it.

        Args:
            file: of the bundle, verified; the compiled form belongs to its SHA-256.
            spec: what the manifest says of the graph; the compiled form of a graph that was checked against it.
            runtime: name and version of the library.
            options: what the library was told, as far as the compiled form depends on it.

        Raises `UsageError` where PSARM_COMPILED_CACHE is no number of gibibytes.
        """
        limit, folder = _limit(), cache_folder()
        if folder is None or file.size > limit or limit == 0 or _off.get():
            return None
        facts = [FORMAT, __version__, file.sha256, asdict(spec), runtime, dict(options), cpu_identity()]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return cls(folder / "compiled" / digest[:32], limit)

    def is_whole(self) -> bool:
        """Whether something was kept and is undamaged; it counts as used now."""
        checksum, size = 0, 0
        try:
            with self.path.open("rb") as file:
                left = os.fstat(file.fileno()).st_size - TRAILER_BYTES
                while size < left and (chunk := file.read(min(_CHUNK, left - size))):
                    checksum, size = zlib.crc32(chunk, checksum), size + len(chunk)
                trailer = file.read()
        except OSError:  # not there, or not to be read: it is compiled, and written where that is possible
            return False
        with contextlib.suppress(OSError):  # a cache that may be read only is good too
            os.utime(self.path)
        return trailer == _trailer(checksum)

    def load_or_compile(self, load: Callable[[Path], Loaded], compile_graph: Callable[[Path | None], Loaded]) -> Loaded:
        """`load` what was kept, or `compile_graph` and keep what it writes to the path it is given.

        Where what was kept does not load, or nothing can be kept (once a folder), that is told on stderr, and the graph
        is compiled, in the latter case without a path. Raises what `compile_graph(None)` does.

        Args:
            load: takes the path of what was kept, which ends with `TRAILER_BYTES` that a parser of ONNX skips.
            compile_graph: takes the path to write to, or None.
        """
        if self.is_whole():
            try:
                return load(self.path)
            except Exception as error:  # the libraries' exceptions share no other base class
                self._say(f"The compiled graph {self.path} does not load ({first_line(error)}); it is compiled anew.")
        try:
            with atomic_path(self.path) as temporary:
                loaded = compile_graph(temporary)
                _append_trailer(temporary)
        except Exception as error:  # the libraries do the writing, each with its own exceptions
            loaded = compile_graph(None)
            self._tell(error)
            return loaded
        _prune(self.path.parent, self.limit)
        return loaded

    def _tell(self, error: Exception) -> None:
        if self.path.parent in _told:
            return
        _told.add(self.path.parent)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        message = (
            f"Compiled graphs cannot be kept in {self.path.parent} ({reason}); they are compiled anew each time. "
            f"Set PSARM_CACHE to a folder that can be written to, or {LIMIT}=0."
        )
        self._say(message)

    def _say(self, message: str) -> None:
        from psarm.console import err

        err.print(message, markup=False)


def _limit() -> float:
    """Bytes that compiled graphs may take."""
    text = os.environ.get(LIMIT, "")
    try:
        gibibytes = float(text) if text else DEFAULT_LIMIT
    except ValueError:
        gibibytes = math.nan
    if not gibibytes >= 0:
        raise UsageError(f"{LIMIT} is {text!r}; needed the gibibytes that compiled graphs may take, 0 for none.")
    return gibibytes * 2**30


def _append_trailer(path: Path) -> None:
    checksum = 0
    with path.open("r+b") as file:
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
        file.write(_trailer(checksum))


def _trailer(checksum: int) -> bytes:
    return _TAG + checksum.to_bytes(TRAILER_BYTES - len(_TAG), "little")


def _prune(folder: Path, limit: float) -> None:
    """Delete files until the rest is within `limit`, and what killed processes left.

    Those go first that alone are beyond it, then the least recently used.
    """
    used: list[tuple[float, int, Path]] = []
    for path in folder.glob("*"):
        with contextlib.suppress(OSError):  # another process has deleted it, or it is another user's
            status = path.stat()
            if not path.name.startswith("."):
                used.append((status.st_mtime, status.st_size, path))
            elif time.time() - status.st_mtime > _ABANDONED_SECONDS:
                path.unlink()
    total = sum(size for _, size, _ in used)
    for _, size, path in sorted(used, key=lambda one: (one[1] <= limit, *one)):
        if total <= limit:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
