"""Search in the tables of a gallery: visits, and the people of single frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from psarm.evaluation.cbgm import PRW_K1, PRW_K2
from psarm.runtime.detections import Detections
from psarm.runtime.gallery.records import FrameHit, VisitHit, Where

if TYPE_CHECKING:
    from lancedb.table import Table

    from psarm.runtime.gallery.calibration import Calibration


class Tables(Protocol):
    """The opened tables of a gallery that a search reads."""

    @property
    def people(self) -> Table: ...
    @property
    def visits(self) -> Table: ...
    @property
    def sources(self) -> Table: ...


@dataclass(frozen=True)
class Approximate:
    """How a search goes through an index of `build_index`."""

    nprobes: int = 32
    """Partitions looked at."""
    refine: int = 10
    """So many times `top_k` rows are compared with the embeddings as they are."""


@dataclass(frozen=True, eq=False)
class SearchRequest:
    """What is searched for."""

    query: NDArray[np.float32]  # [D], or [q,D]: several pictures of one person
    top_k: int = 10
    where: Where = Where()
    context: Detections | None = None
    """People of the query's own picture from `PersonSearch.detect_around`; given, similarities go through CBGM."""
    k1: int = PRW_K1
    k2: int = PRW_K2
    approximate: Approximate | None = None
    """None: exact."""


def search_visits(tables: Tables, request: SearchRequest, calibration: Calibration | None = None) -> list[VisitHit]:
    """Visits, most similar first; of equals the one that began earlier."""
    raise NotImplementedError


def search_frames(tables: Tables, request: SearchRequest) -> list[FrameHit]:
    """People of single frames, most similar first; of equals the earlier by source, frame and person."""
    raise NotImplementedError
