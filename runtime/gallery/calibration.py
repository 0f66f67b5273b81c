"""How often other people look as similar, from the gallery itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psarm.runtime.gallery.records import VisitHit

if TYPE_CHECKING:
    from lancedb.db import DBConnection

    from psarm.runtime.gallery.search import Tables


@dataclass(frozen=True)
class Calibration:
    """False-match rate by similarity."""

    pairs: int
    """Pairs of visits compared."""
    certain: bool
    """Whether the pairs surely are different people; else the rates are upper bounds."""
    target: float
    threshold: float
    """Similarity from which on the false-match rate is at most `target`."""
    visits: int
    """Of the gallery, when it was calibrated."""
    created: str

    def false_match_rate(self, similarity: float) -> float:
        """Share of visits of other people that would be at least as similar."""
        raise NotImplementedError

    def probably_not_a_match(self, hit: VisitHit) -> bool:
        """Whether a hit is below the threshold."""
        raise NotImplementedError


def calibrate(tables: Tables, target: float = 0.01, pairs: int = 200_000, seed: int = 0) -> Calibration:
    """Compare visits of different people with one another."""
    raise NotImplementedError


def save_calibration(database: DBConnection, calibration: Calibration) -> None:
    """Keep it in the table `calibration`, in place of the one before."""
    raise NotImplementedError


def load_calibration(database: DBConnection) -> Calibration | None:
    """The one kept; None where the gallery was not calibrated."""
    raise NotImplementedError
