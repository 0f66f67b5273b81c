"""Annotations that were read once, as arrays in the user's cache folder.

One file a data set: `$PSARM_CACHE`, else `$XDG_CACHE_HOME/psarm`, else `~/.cache/psarm`, and in it
`READER-HASH.npz`, the hash being that of the data set's path. The file holds a digest of the reader's version and of
every source file's name, size, inode and times, and is used only while that digest is the same. It is never needed:
whatever is wrong with it, the annotations are read from their source again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.console import err
from psarm.files import atomic_path, cache_folder

Arrays = dict[str, NDArray[Any]]
"""Arrays by name, none of Python objects."""

_DIGEST = "digest"


def cached_arrays(reader: str, version: int, root: Path, sources: Iterable[Path], read: Callable[[], Arrays]) -> Arrays:
    """What `read()` returns, from the cache where none of `sources` has changed since it was put there.

    Args:
        reader: name of the data set's format; part of the cache's file name.
        version: to be raised whenever `read` returns something else for the same sources.
        root: folder of the data set.
        sources: files and folders under `root` that `read` depends on; of a folder, the files directly in it.
        read: reads the sources; what it raises is raised here, and nothing is cached.
    """
    root = root.resolve()
    digest = _digest(version, root, sources)
    path = _path(reader, root)
    if path is not None and (arrays := _load(path, digest)) is not None:
        return arrays
    arrays = read()
    if path is not None:
        _save(path, digest, arrays)
    return arrays


def _path(reader: str, root: Path) -> Path | None:
    folder = cache_folder()
    if folder is None:
        return None
    return folder / f"{reader}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.npz"


def _digest(version: int, root: Path, sources: Iterable[Path]) -> str:
    """Hex SHA-256 over what tells that a source changed, taken before the sources are read."""
    facts = []
    for source in sources:
        source = root / source
        if source.is_dir():
            with os.scandir(source) as entries:
                facts += [_fact(f"{source.name}/{entry.name}", entry.stat()) for entry in entries if entry.is_file()]
        elif source.exists():
            facts.append(_fact(source.name, source.stat()))
    return hashlib.sha256("\n".join([str(version), *sorted(facts)]).encode("utf-8", "surrogateescape")).hexdigest()


def _fact(name: str, status: os.stat_result) -> str:
    # Tools that copy (cp -p, rsync -t) give new content the old time of modification; a new inode or time of status
    # change is beyond them.
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino} {name}"


def _load(path: Path, digest: str) -> Arrays | None:
    """The arrays in a cache file of that digest; None where it is missing, outdated or damaged."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            # A damaged zip directory can lack members without zipfile noticing.
            if file[_DIGEST].tolist() != [digest, *file.files[1:]]:
                return None
            return {name: file[name] for name in file.files[1:]}
    except Exception:  # a missing file, or whatever damaged bytes lead zipfile and numpy into
        return None


def _save(path: Path, digest: str, arrays: Arrays) -> None:
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            # Not compressed: reading it should take no longer than it must.
            content = {_DIGEST: np.array([digest, *arrays]), **arrays}
            np.savez(file, **content)  # type: ignore[arg-type]  # the stubs take the names for savez's own flag
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"The annotations cannot be cached in {path.parent} ({reason}); they are read anew each time."
        err.print(message, markup=False)
