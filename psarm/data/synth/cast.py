"""Everyone who can appear: identities with their numbers, and distractors without."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np

from psarm.data.synth.appearance import FAMILY, Appearance, sample_family, sample_person
from psarm.data.synth.settings import Stream, SynthSettings

NO_IDENTITY = -2


@dataclass(frozen=True)
class Cast:
    """`people` holds the identities first, then the distractors; `pids` the identities' numbers."""

    people: tuple[Appearance, ...]
    pids: tuple[int, ...]
    """Identity numbers with gaps, as PRW's, rising."""
    test: tuple[bool, ...]
    """Which identities belong to the test set."""

    @property
    def train_rows(self) -> list[int]:
        """Rows of the training identities."""
        return [row for row, test in enumerate(self.test) if not test]

    @property
    def test_rows(self) -> list[int]:
        """Rows of the test identities."""
        return [row for row, test in enumerate(self.test) if test]

    @property
    def distractor_rows(self) -> list[int]:
        """Rows of the people without identity."""
        return list(range(len(self.pids), len(self.people)))

    def pid(self, row: int) -> int:
        """Annotated identity of a person: its number, or -2 without one."""
        return self.pids[row] if row < len(self.pids) else NO_IDENTITY


def build_cast(settings: SynthSettings) -> Cast:
    """The cast of a data set: the same for the same settings."""
    count = settings.identities
    families = -(-count // FAMILY)
    drawn = [sample_family(settings.rng(Stream.CAST, family)) for family in range(families)]
    people = list(chain.from_iterable(drawn))[:count]
    rng = settings.rng(Stream.CAST, 10**6)
    pids = np.sort(rng.choice(np.arange(1, int(count * 1.5) + 3), count, replace=False))
    # Whole families go to one side, so that look-alikes meet in training and in the gallery.
    order = rng.permutation(families)
    rank = np.empty(families, np.int64)
    rank[order] = np.arange(families)
    by_family = sorted(range(count), key=lambda row: (rank[row // FAMILY], row))
    in_test = set(by_family[: settings.test_identities])
    strangers = max(12, count, int(settings.people_per_frame * 8))
    people += [sample_person(settings.rng(Stream.DISTRACTOR, i)) for i in range(strangers)]
    return Cast(tuple(people), tuple(int(pid) for pid in pids), tuple(row in in_test for row in range(count)))
