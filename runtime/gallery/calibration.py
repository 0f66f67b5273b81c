"""How often other people look as similar, from the gallery itself and without labels.

Two visits of one source at the same time are two people: their similarity is that of a false match. Where there are too
few such pairs, any two visits are compared; some of those are the same person, so that the rates are upper bounds.
Visits whose boxes overlapped may be one person boxed twice: they are left out while there are enough others (a gallery
that keeps visits only cannot tell). People seen together share light and background, which makes the rates too high
rather than too low.

A pair's similarity is the search's: the direction of one visit's embedding with the other's embedding as it is,
weighted by its score.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import ceil, floor, sqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from psarm.errors import GalleryError, UsageError
from psarm.runtime.gallery.overlaps import overlapping_visits
from psarm.runtime.gallery.pairs import pair_similarities, random_pairs, read_visits, simultaneous_pairs, without
from psarm.runtime.gallery.records import VisitHit
from psarm.runtime.gallery.schema import CALIBRATION

if TYPE_CHECKING:
    from lancedb.db import DBConnection

    from psarm.runtime.gallery.search import Tables

_EXACT, _SPREAD = 500, 200
"""Ranks whose similarities are kept: the first so many, and so many more up to the last."""

_CONFIDENCE = 1.645
"""Standard deviations that hold 95 % on one side."""


@dataclass(frozen=True)
class Calibration:
    """False-match rate by similarity."""

    pairs: int
    """Pairs of visits compared."""
    independent: int
    """As many pairs as there would be, were each visit in one only: what `bound` counts on."""
    certain: bool
    """Whether the pairs surely are different people; else the rates are upper bounds."""
    target: float
    threshold: float
    """Similarity from which on the false-match rate is at most `target`."""
    visits: int
    """Of the gallery, when it was calibrated."""
    created: str
    similarities: tuple[float, ...]
    """Falling; those of some of the pairs."""
    ranks: tuple[int, ...]
    """Places from 1 that these have among all the pairs."""

    def false_match_rate(self, similarity: float) -> float:
        """Share of visits of other people that would be at least as similar.

        The visit in question counts as one of the pairs, so that the rate is never 0 for want of pairs.
        """
        below = int(np.searchsorted(-np.array(self.similarities), -similarity, side="right"))
        as_similar = self.ranks[below] - 1 if below < len(self.ranks) else self.pairs
        return (as_similar + 1) / (self.pairs + 1)

    def bound(self, similarity: float) -> float:
        """What the rate does not exceed with a confidence of 95 % (Wilson's interval)."""
        rate, n, z = self.false_match_rate(similarity), self.independent, _CONFIDENCE
        spread = z * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
        return min(1.0, (rate + z * z / (2 * n) + spread) / (1 + z * z / n))

    def expected_false_hits(self, similarity: float, visits: int) -> float:
        """How many of so many visits of other people would be at least as similar to a query."""
        return self.false_match_rate(similarity) * visits

    def probably_not_a_match(self, hit: VisitHit) -> bool:
        """Whether a hit is below the threshold; never for hits by CBGM, whose similarities are others."""
        return hit.false_match_rate is not None and hit.similarity < self.threshold


def calibrate(tables: Tables, target: float = 0.01, pairs: int = 200_000, seed: int = 0) -> Calibration:
    """Compare visits of different people with one another.

    Args:
        tables: of the gallery.
        target: false-match rate, a comparison, that the threshold is for.
        pairs: how many pairs of visits to compare at most.
        seed: which of them, where there are more.

    Raises:
        UsageError: a `target` that is no rate, or too few `pairs` for it.
        GalleryError: the gallery has too few visits for the target.
    """
    if not 0 < target < 1:
        raise UsageError(f"The false-match rate must lie between 0 and 1, got {target}.")
    needed = ceil(3 / target)  # fewer cannot show that a rate is so low, even if no pair is similar ("rule of three")
    if pairs < needed:
        raise UsageError(f"A false-match rate of {target:g} needs at least {needed} pairs, got {pairs}.")
    visits = read_visits(tables.visits)
    rng = np.random.default_rng(seed)
    together = simultaneous_pairs(visits, pairs, rng)
    chosen, certain = without(together, visits, overlapping_visits(tables.people)), True
    if len(chosen) < needed:
        chosen, certain = together, False
    if len(chosen) < needed:
        chosen = random_pairs(len(visits.rows), pairs, rng)
    if len(chosen) < needed:
        raise GalleryError(
            f"The gallery's {len(visits.rows)} visits make {len(chosen)} pairs, and a false-match rate of {target:g} "
            f"needs at least {needed}; index more, or give a larger rate."
        )
    similarities = pair_similarities(tables.visits, visits, chosen)
    return _calibration(similarities, len(np.unique(chosen)) // 2, certain, target, len(visits.rows))


def save_calibration(database: DBConnection, calibration: Calibration) -> None:
    """Keep it in the table `calibration`, in place of the one before."""
    row = {"json": json.dumps(asdict(calibration))}
    # Overwriting what is not there makes Lance print a warning.
    there = CALIBRATION in database.list_tables().tables
    database.create_table(CALIBRATION, [row], mode="overwrite" if there else "create")


def load_calibration(database: DBConnection) -> Calibration | None:
    """The one kept; None where the gallery was not calibrated.

    Raises:
        GalleryError: it cannot be read or understood.
    """
    if CALIBRATION not in database.list_tables().tables:
        return None
    try:
        (row,) = database.open_table(CALIBRATION).to_arrow().to_pylist()
        values = json.loads(row["json"])
        values |= {name: tuple(values[name]) for name in ("similarities", "ranks")}
        return Calibration(**values)
    except (LookupError, TypeError, ValueError) as error:  # ValueError also where the table cannot be opened
        raise GalleryError(f"The gallery's calibration cannot be read ({error!r}); calibrate it again.") from error


def _calibration(
    similarities: NDArray[np.float32], independent: int, certain: bool, target: float, visits: int
) -> Calibration:
    falling = np.sort(similarities)[::-1]
    count = len(falling)
    as_similar = floor(target * (count + 1)) - 1  # so many pairs may lie at or above the threshold
    spread = np.geomspace(min(_EXACT, count), count, _SPREAD).astype(np.int64)
    ranks = np.unique(np.concatenate([np.arange(1, min(_EXACT, count) + 1), spread, [as_similar + 1, count]]))
    return Calibration(
        pairs=count,
        independent=independent,
        certain=certain,
        target=target,
        threshold=float(np.nextafter(falling[as_similar], np.float32(np.inf))),
        visits=visits,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        similarities=tuple(falling[ranks - 1].tolist()),
        ranks=tuple(ranks.tolist()),
    )
