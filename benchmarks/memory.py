"""How much memory is there, and how much of it this process has taken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


def peak_memory() -> int | None:
    """Most bytes this process has had resident; None where the system does not tell."""
    # Not getrusage: its maximum begins with what the parent had.
    return _kilobytes(Path("/proc/self/status"), "VmHWM")


def free_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that can be taken without swapping or being killed; None where the system does not tell.

    The least of what the machine has and what the limits of this process' control groups, a container's, leave.
    """
    left = [_kilobytes(proc / "meminfo", "MemAvailable"), *_left_in_groups(proc / "self" / "cgroup", cgroups)]
    return min((one for one in left if one is not None), default=None)


def _left_in_groups(listed: Path, root: Path) -> Iterator[int]:
    """Bytes that each control group around this process leaves, version 2 and 1; nothing of those without a limit."""
    for line in listed.read_text().splitlines() if listed.exists() else []:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            files, top = ("memory.max", "memory.current", "inactive_file"), root
        elif "memory" in controllers.split(","):
            files, top = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"), root / "memory"
        else:
            continue
        # Within a container the path may be the host's: what exists of it counts, and the top always.
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            left = _left_in_group(top.joinpath(*parts[:depth]), *files)
            if left is not None:
                yield left


def _left_in_group(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    """Limit less usage, where files that are only cached count as free, as MemAvailable counts them."""
    try:
        most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
        statistics = (folder / "memory.stat").read_text()
    except OSError:  # no such group here, or not for this user to read
        return None
    if most == "max":
        return None
    cached = re.search(rf"^{cache} (\d+)$", statistics, re.MULTILINE)
    return max(0, int(most) - used + (int(cached.group(1)) if cached else 0))


def _kilobytes(path: Path, key: str) -> int | None:
    found = re.search(rf"^{key}:\s+(\d+) kB$", path.read_text(), re.MULTILINE) if path.exists() else None
    return 1024 * int(found.group(1)) if found else None
