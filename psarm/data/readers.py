"""Data sets by the name that configurations and the command line use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from psarm.data.cuhk_sysu import read_cuhk_sysu
from psarm.data.prw import read_prw
from psarm.data.types import PersonSearchDataset
from psarm.data.visits import read_visits
from psarm.errors import UsageError

READERS: dict[str, Callable[[str | Path], PersonSearchDataset]] = {
    "prw": read_prw,
    "cuhk-sysu": read_cuhk_sysu,
    "visits": read_visits,
}


def read_dataset(name: str, root: str | Path) -> PersonSearchDataset:
    """Read a data set; raises `UsageError` where psarm has no reader of that name, `DataError` where it cannot."""
    if name not in READERS:
        raise UsageError(f"This version of psarm does not read {name} yet, only {', '.join(READERS)}.")
    return READERS[name](root)
