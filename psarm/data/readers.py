"""Data sets by the name that configurations and the command line use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from psarm.data.cuhk_sysu import read_cuhk_sysu
from psarm.data.prw import read_prw
from psarm.data.types import PersonSearchDataset
from psarm.data.visits import read_visits
from psarm.errors import DataError, UsageError

READERS: dict[str, Callable[[str | Path], PersonSearchDataset]] = {
    "prw": read_prw,
    "cuhk-sysu": read_cuhk_sysu,
    "visits": read_visits,
}


def read_dataset(name: str, root: str | Path) -> PersonSearchDataset:
    """Read a data set; raises `UsageError` where psarm has no reader of that name, `DataError` where it cannot."""
    if name not in READERS:
        raise UsageError(f"This version of psarm does not read {name} yet, only {', '.join(READERS)}.")
    try:
        return READERS[name](root)
    except DataError as error:
        other = _other_format(name, Path(root))
        if other is None:
            raise
        raise DataError(
            f"{root} holds a data set in the format {other}, not {name}; give --dataset {other} "
            f"(psarm train: -o data.dataset={other})."
        ) from error


def _other_format(name: str, root: Path) -> str | None:
    """The format of the data set in a folder that has nothing of the format `name`."""
    from psarm.data.layouts import LAYOUTS

    found = [key for key, layout in LAYOUTS.items() if any((root / mark).exists() for mark in layout.marks)]
    return found[0] if len(found) == 1 and found[0] != name else None
