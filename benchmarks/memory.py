"""How much memory is there, and how much of it this process has taken."""

from __future__ import annotations

import re
from pathlib import Path


def peak_memory() -> int | None:
    """Most bytes this process has had resident; None where the system does not tell."""
    # Not getrusage: its maximum begins with what the parent had.
    return _kilobytes(Path("/proc/self/status"), "VmHWM")


def free_memory() -> int | None:
    """Bytes that can be taken without swapping; None where the system does not tell."""
    return _kilobytes(Path("/proc/meminfo"), "MemAvailable")


def _kilobytes(path: Path, key: str) -> int | None:
    found = re.search(rf"^{key}:\s+(\d+) kB$", path.read_text(), re.MULTILINE) if path.exists() else None
    return 1024 * int(found.group(1)) if found else None
