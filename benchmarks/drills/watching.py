"""How far a gallery is while another process writes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from psarm.benchmarks.drills.commands import Process
from psarm.runtime.gallery.lock import LOCK_FILE


def frames_done(where: Path) -> dict[str, int]:
    """Committed frames, skipped ones too, by the file name of their source; {} where there is no gallery yet."""
    from psarm.runtime.gallery.gallery import Gallery

    if not where.exists():
        return {}
    with Gallery.open(where) as gallery:
        infos = gallery.sources()
    return {Path(info.source.name).name: info.progress.frames + info.progress.skipped for info in infos}


def beyond(where: Path, frames: int, sources: int = 1) -> Callable[[], bool]:
    """A condition: so many sources have more than so many frames."""
    return lambda: sum(done > frames for done in frames_done(where).values()) >= sources


def writes(process: Process, where: Path) -> Callable[[], bool]:
    """A condition: the process has begun to write the gallery."""
    lock = where / LOCK_FILE
    return lambda: lock.is_file() and lock.read_text(encoding="utf-8", errors="replace").startswith(f"{process.pid} ")
