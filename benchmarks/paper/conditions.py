"""When, where and with what something was measured, and what its figures depend on beside checkpoint and data."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import psarm
from psarm.benchmarks.facts import git_commit
from psarm.benchmarks.paper.work import Key
from psarm.machine import describe_machine, package_versions

PACKAGES = ("psarm", "python", "torch", "torchvision", "opencv", "numpy", "scipy")
"""Those that figures depend on."""


@dataclass(frozen=True)
class Conditions:
    """Of one measurement; plain values."""

    date: str
    """When it was finished: UTC, ISO 8601."""
    commit: str | None
    device: str
    """`CPU, 2 threads`, or `CUDA` and its name of the GPU."""
    cpu: str
    system: str

    @classmethod
    def now(cls, device: str) -> Conditions:
        """Of what was measured just now."""
        machine = describe_machine()
        commit = git_commit(Path(psarm.__file__).resolve().parents[1])
        return cls(datetime.now(UTC).isoformat(timespec="seconds"), commit, device, machine.cpu, machine.system)

    def __str__(self) -> str:
        commit = f", commit {self.commit}" if self.commit else ""
        return f"{self.date} on {self.device}, {self.cpu}{commit}"


def common_key(dataset: str, device: str) -> Key:
    """What every result depends on: the data set by its digest, the device, versions, and psarm's own source."""
    versions = package_versions()
    return {
        "dataset": dataset,
        "device": device,
        "source": source_digest(),
        "versions": {name: versions[name] for name in PACKAGES},
    }


@cache
def source_digest() -> str:
    """SHA-256 over every module of psarm: unlike a commit, it tells apart what is not committed."""
    digest = hashlib.sha256()
    root = Path(psarm.__file__).parent
    # In a checkout some of the package's folders are links.
    paths = [Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names]
    for path in sorted(path for path in paths if path.suffix == ".py"):
        digest.update(repr((str(path.relative_to(root)), path.read_bytes())).encode())
    return digest.hexdigest()
