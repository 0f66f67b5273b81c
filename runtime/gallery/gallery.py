"""A gallery: the people of hours of video, and the search among them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from psarm.errors import GalleryError
from psarm.evaluation.cbgm import PRW_K1, PRW_K2
from psarm.runtime.detections import Detections
from psarm.runtime.gallery import ann, calibration, ledger, maintenance
from psarm.runtime.gallery.audit import AuditLog
from psarm.runtime.gallery.records import (
    FrameHit,
    GalleryFacts,
    GalleryInfo,
    Removed,
    SourceInfo,
    VisitHit,
    Where,
)
from psarm.runtime.gallery.repair import repair
from psarm.runtime.gallery.schema import SCHEMA_VERSION, visit_name
from psarm.runtime.gallery.search import Approximate, SearchRequest, search_frames, search_visits
from psarm.runtime.gallery.store import Store
from psarm.runtime.gallery.writer import GalleryWriter

if TYPE_CHECKING:
    from psarm.runtime.gallery.ann import IndexKind, IndexReport, OnStep
    from psarm.runtime.gallery.calibration import Calibration

Hit = TypeVar("Hit")
__all__ = ["Gallery"]


class Gallery:
    """People of hours of video in a directory or on object storage (`s3://…`); use it in a `with` block.

    Any number of processes read it while one writes: every call sees what was committed before it. Where a writer was
    killed within a commit, people of it that were not committed may be found, or visits lack its last people, until
    the next writer opens: any call that writes puts that in order first.
    """

    def __init__(self, store: Store, audit_log: Path | None = None) -> None:
        """`Gallery.open` and `Gallery.create` make one."""
        self.store = store
        self.audit = AuditLog(store.where, store.directory, audit_log)

    @classmethod
    def create(
        cls,
        where: str | Path,
        fingerprint: str,
        embedding_dim: int,
        bundle: str,
        thumbnails: bool = True,
        people: bool = True,
        audit_log: Path | None = None,
    ) -> Self:
        """Make an empty gallery in a directory that does not exist or is empty, or on object storage.

        Args:
            where: directory or URI.
            fingerprint: embedding space, `Bundle.manifest.embedding.fingerprint`.
            embedding_dim: D.
            bundle: path of the bundle the embeddings come from.
            thumbnails: whether visits keep a small picture.
            people: whether the people of every frame are kept; without, only visits are.
            audit_log: file for the lines on searches, exports and erasures; None: `audit.jsonl` in the directory.

        Raises:
            GalleryError: there is a gallery or something else already, or it cannot be written.
        """
        facts = GalleryFacts(
            SCHEMA_VERSION, fingerprint, embedding_dim, bundle, thumbnails, people, created=datetime.now(UTC)
        )
        return cls(Store.create(where, facts), audit_log)

    @classmethod
    def open(cls, where: str | Path, audit_log: Path | None = None) -> Self:
        """Open a gallery, for reading and writing.

        Raises:
            GalleryError: it is missing, no gallery, damaged, or of a schema that this version does not read.
        """
        return cls(Store.open(where), audit_log)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held between two calls, so that nothing is to be done; a writer is closed by itself."""

    @property
    def facts(self) -> GalleryFacts:
        """What it is."""
        return self.store.facts

    @property
    def where(self) -> str:
        """Directory, as an absolute path, or URI."""
        return self.store.where

    @property
    def thumbnails(self) -> bool:
        """Whether visits keep a small picture."""
        return self.facts.thumbnails

    def check(self, fingerprint: str) -> None:
        """Raise `GalleryError` where embeddings of `fingerprint` cannot be compared with those of the gallery."""
        if fingerprint != self.facts.fingerprint:
            raise GalleryError(
                f"{self.where} was made with {self.facts.bundle} (embedding space {self.facts.fingerprint[:12]}), "
                f"whose embeddings cannot be compared with those of {fingerprint[:12]}; use that bundle."
            )

    def info(self) -> GalleryInfo:
        """Rows, people, visits, time span, size."""
        return self.store.read(maintenance.info)

    def sources(self) -> list[SourceInfo]:
        """Its sources in the order they were added, with their progress."""
        return self.store.read(ledger.read_sources)

    def writer(self) -> GalleryWriter:
        """The one writer: a context manager.

        Raises:
            GalleryError: another process writes, or the gallery cannot be written.
        """
        return GalleryWriter(self.store)

    def search(
        self,
        query: NDArray[np.float32],
        top_k: int = 10,
        where: Where = Where(),  # noqa: B008 - frozen
        context: Detections | None = None,
        k1: int = PRW_K1,
        k2: int = PRW_K2,
        approximate: Approximate | None = None,
        query_names: Sequence[str] = (),
    ) -> list[VisitHit]:
        """Visits, most similar first; a line in the audit log.

        Args:
            query: unit-length embedding [D], or [q,D] of several pictures of one person.
            top_k: how many visits.
            where: which may be found.
            context: people of the query's own picture from `PersonSearch.detect_around`; given, similarities go through
                context bipartite graph matching (CBGM) in the frames of the `k1` best, with `k2` people of the context.
            k1: see `context`.
            k2: see `context`.
            approximate: go through the index of `build_index`; None: exact.
            query_names: names of the query's pictures, for the audit log.

        Raises:
            UsageError: the query, `top_k` or the filters cannot work, or name what the gallery does not have.
            GalleryError: the audit log cannot be written, or there is a context and the gallery keeps visits only.
        """
        request = SearchRequest(query, top_k, where, context, k1, k2, approximate)
        self._check_context(request)

        def visits(store: Store) -> list[VisitHit]:
            return search_visits(store, request, calibration.load_calibration(store.database))

        return self._search("search", visits, request, query_names)

    def search_frames(
        self,
        query: NDArray[np.float32],
        top_k: int = 10,
        where: Where = Where(),  # noqa: B008 - frozen
        context: Detections | None = None,
        k1: int = PRW_K1,
        k2: int = PRW_K2,
        approximate: Approximate | None = None,
        query_names: Sequence[str] = (),
    ) -> list[FrameHit]:
        """People of single frames, most similar first; otherwise as `search`.

        Raises:
            UsageError: as `search`.
            GalleryError: the audit log cannot be written, or the gallery keeps visits only.
        """
        request = SearchRequest(query, top_k, where, context, k1, k2, approximate)
        if not self.facts.people:
            raise GalleryError(f"{self.where} keeps visits only, and no people of single frames; search for visits.")
        return self._search("search_frames", lambda store: search_frames(store, request), request, query_names)

    def build_index(
        self, kind: IndexKind = "IVF_SQ", k: int = 10, queries: int = 100, on_step: OnStep = lambda _: None
    ) -> list[IndexReport]:
        """Index the embeddings for `approximate` searches, and measure what share of the exact `k` best they find.

        `on_step` is told in words what is begun.
        """
        with self._writing():
            return ann.build_index(self.store, kind, k, queries, on_step=on_step)

    def calibrate(self, target: float = 0.01, pairs: int = 200_000, seed: int = 0) -> Calibration:
        """Estimate from visits of different people how often they look alike; kept in the gallery."""
        with self._writing():
            result = calibration.calibrate(self.store, target, pairs, seed)
            calibration.save_calibration(self.store.database, result)
        return result

    def calibration(self) -> Calibration | None:
        """The one kept; None where it was not calibrated."""
        return self.store.read(lambda store: calibration.load_calibration(store.database))

    def compact(self) -> None:
        """Join small files, and remove versions that are older than an hour."""
        with self._writing():
            maintenance.compact(self.store)

    def purge(self, older_than: datetime) -> Removed:
        """Erase the people seen before `older_than`, from the disk too.

        People of unknown time go by when their source was added. Sources and how far they are stay. This and the other
        erasures write a line to the audit log before they begin, and one when they are done.
        """
        filters = {"older_than": older_than.isoformat()}
        return self._erase("purge", filters, lambda: maintenance.purge(self.store, older_than))

    def to_be_purged(self, older_than: datetime) -> Removed:
        """What `purge` would erase."""
        return self.store.read(lambda store: maintenance.to_be_purged(store, older_than))

    def delete_source(self, name: str) -> Removed:
        """Erase a source with its people and visits, from the disk too; `GalleryError` where there is none such."""
        return self._erase("delete_source", {"source": name}, lambda: maintenance.delete_source(self.store, name))

    def delete_visits(self, ids: Collection[int]) -> Removed:
        """Erase visits (`VisitHit.visit`) with their people, from the disk too; they are not indexed again.

        Raises `UsageError`, and erases nothing, where one of them is not there.
        """
        filters = {"visits": [visit_name(visit) for visit in ids]}
        return self._erase("delete_visits", filters, lambda: maintenance.delete_visits(self.store, ids))

    def visits_to_be_deleted(self, ids: Collection[int]) -> Removed:
        """What `delete_visits` would erase."""
        return self.store.read(lambda store: maintenance.visits_to_be_deleted(store, ids))

    def _erase(self, what: str, filters: Mapping[str, Any], erase: Callable[[], Removed]) -> Removed:
        """`erase`, with its lines in the audit log."""
        with self._writing(), self.audit.erasure(what, filters) as counts:
            removed = erase()
            counts.update(visits=removed.visits, people=removed.people)
        return removed

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self.store.writing():
            repair(self.store)
            yield

    def _search(
        self, what: str, find: Callable[[Store], list[Hit]], request: SearchRequest, names: Sequence[str]
    ) -> list[Hit]:
        """What `find` finds, with a line in the audit log."""
        with self.audit.query(what, request, names) as counts:
            found = self.store.read(find)
            counts["hits"] = len(found)
        return found

    def _check_context(self, request: SearchRequest) -> None:
        if request.context is not None and not self.facts.people:
            raise GalleryError(
                f"{self.where} keeps visits only, and CBGM needs the people of every frame; search without."
            )
