"""Which data set a folder holds, and how each is checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from psarm.data import cuhk_sysu, prw, visits
from psarm.data.check import CheckReport
from psarm.data.check_cuhk_sysu import check_cuhk_sysu
from psarm.data.check_prw import check_prw
from psarm.data.check_visits import check_visits
from psarm.errors import DataError, UsageError


@dataclass(frozen=True)
class Layout:
    """A data set's format on disk."""

    marks: tuple[str, ...]
    """Files and folders of which every data set of this format has some."""
    check: Callable[[str | Path], CheckReport]


LAYOUTS = {
    "prw": Layout((prw.FRAMES, prw.ANNOTATIONS, prw.QUERIES), check_prw),
    "cuhk-sysu": Layout((cuhk_sysu.PICTURES, cuhk_sysu.IMAGES, cuhk_sysu.POOL), check_cuhk_sysu),
    "visits": Layout((visits.ANNOTATIONS, visits.QUERIES), check_visits),
}


def recognise(root: Path) -> str:
    """The name in `LAYOUTS` of the data set in a folder.

    Raises:
        DataError: the folder holds nothing of any of them.
        UsageError: it could be several.
    """
    found = [name for name, layout in LAYOUTS.items() if any((root / mark).exists() for mark in layout.marks)]
    if not found:
        known = "; ".join(f"{name} has {', '.join(layout.marks)}" for name, layout in LAYOUTS.items())
        raise DataError(f"{root} holds no data set that psarm knows ({known}); pass the folder that holds these.")
    if len(found) > 1:
        raise UsageError(f"{root} has files of {' and '.join(found)}; say which to check with --dataset.")
    return found[0]
