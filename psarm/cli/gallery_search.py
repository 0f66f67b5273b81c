"""`psarm search --gallery`: where was this person?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psarm.cli.engine_options import open_engine
from psarm.cli.gallery_hits import GalleryHit, hit_length, hit_times, hit_visit, hit_when
from psarm.cli.gallery_search_notes import (
    UNLIKELY,
    exact_after_all,
    how_hits_are_judged,
    outdated,
    unlike_pictures,
    why_nobody,
)
from psarm.cli.gallery_sources import full_name
from psarm.cli.gallery_times import local, zone
from psarm.cli.gallery_words import counted
from psarm.cli.query_pictures import Choice, Query, box_text, read_queries
from psarm.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.table import Table

    from psarm.runtime import PersonSearch
    from psarm.runtime.gallery.calibration import Calibration
    from psarm.runtime.gallery.gallery import Gallery
    from psarm.runtime.gallery.records import Where
    from psarm.runtime.gallery.store import Store

UNLIKELY_NARROW = "probably\nnot a\nmatch"


@dataclass(frozen=True)
class GallerySearch:
    """What is asked of the command line; None: no restriction."""

    gallery: str
    bundle: Path | None
    query_paths: tuple[Path, ...]
    choice: Choice
    top_k: int
    cbgm: bool
    html: Path | None
    cameras: tuple[str, ...]
    sources: tuple[str, ...]
    begin: datetime | None
    end: datetime | None
    min_score: float | None
    frames: bool
    approximate: bool
    audit_log: Path | None


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found, with all that is needed to show it."""

    search: GallerySearch
    gallery: Gallery
    queries: list[Query]
    hits: Sequence[GalleryHit]
    calibration: Calibration | None
    """None: the hits are not judged."""
    visits: int
    """Of the gallery now."""
    facts: dict[str, Any]

    def unlikely(self, hit: GalleryHit) -> bool:
        """Whether so small a similarity is probably that of somebody else."""
        from psarm.runtime.gallery.records import VisitHit

        if self.calibration is None or not isinstance(hit, VisitHit):
            return False
        return self.calibration.probably_not_a_match(hit)


def search_in_gallery(search: GallerySearch, engine_settings: dict[str, Any]) -> None:
    """Search and show what was found."""
    import numpy as np

    from psarm.console import err
    from psarm.runtime.gallery.gallery import Gallery

    if search.cbgm and len(search.query_paths) > 1:
        raise UsageError("--cbgm takes the people around one query; give one --query, or leave --cbgm out.")
    with Gallery.open(search.gallery, search.audit_log) as gallery:
        bundle = _bundle(gallery, search.bundle)
        where = _where(gallery, search)
        exact = exact_after_all(gallery, search) if search.approximate else None
        if exact:
            err.print(exact, markup=False)
        with open_engine(bundle, **engine_settings) as engine:
            queries = read_queries(engine, search.query_paths, search.choice)
            embeddings = np.concatenate([engine.embed(query.image, [query.box]) for query in queries])
            calibration = gallery.calibration()
            if unlike := unlike_pictures(search.query_paths, embeddings, calibration):
                err.print(unlike, markup=False)
            hits = _search(gallery, engine, queries, embeddings, where, search)
            facts = _facts(gallery, engine, search, search.approximate and not exact)
        judge = None if search.cbgm or search.frames else calibration
        found = Found(search, gallery, queries, hits, judge, gallery.store.read(_visits), facts)
        err.print(how_hits_are_judged(found), markup=False)
        if aged := outdated(found):
            err.print(f"Note: {aged}", markup=False)
        if search.choice.as_json:
            click.echo(json.dumps(_record(found)))
        else:
            _print(found)
        if search.html:
            from psarm.cli.gallery_search_page import write_page

            write_page(search.html, found)
            err.print(f"Wrote {search.html}.", markup=False)


def _visits(store: Store) -> int:
    count: int = store.visits.count_rows()
    return count


def _bundle(gallery: Gallery, given: Path | None) -> Path:
    """The bundle to look at the query with; raises where it is gone, or of another embedding space."""
    from psarm.runtime.manifest import MANIFEST_NAME, read_manifest

    bundle = given or Path(gallery.facts.bundle)
    if not (bundle / MANIFEST_NAME).is_file():
        if given:
            raise UsageError(f"{given} is not a bundle: it holds no {MANIFEST_NAME}.")
        raise UsageError(
            f"The bundle {bundle} that the gallery {gallery.where} was made with is not there any more; say where it "
            f"is: psarm search BUNDLE --gallery {gallery.where} …"
        )
    gallery.check(read_manifest(bundle).embedding.fingerprint)
    return bundle


def _where(gallery: Gallery, search: GallerySearch) -> Where:
    """The filters; says on stderr what they leave out that the user may not know of."""
    from psarm.console import err
    from psarm.runtime.gallery.records import Where

    names = tuple(full_name(gallery, name) for name in search.sources)
    if times := [time for time in (search.begin, search.end) if time is not None]:
        words = [f"{word} {local(time)}" for word, time in (("from", search.begin), ("to", search.end)) if time]
        err.print(f"Searching {' '.join(words)} ({zone(times[0])}).", markup=False)
        searched = [info.source for info in gallery.sources() if not names or info.source.name in names]
        searched = [source for source in searched if not search.cameras or source.camera in search.cameras]
        if timeless := sum(source.start is None and source.kind != "live" for source in searched):
            of = counted(len(searched), "source")
            err.print(f"Note: left out, since nobody knows when they were taken: {timeless} of {of}.")
    return Where(search.cameras or None, names or None, search.begin, search.end, search.min_score)


def _search(
    gallery: Gallery,
    engine: PersonSearch,
    queries: list[Query],
    embeddings: NDArray[np.float32],
    where: Where,
    search: GallerySearch,
) -> Sequence[GalleryHit]:
    from psarm.runtime.gallery.search import Approximate

    context = engine.detect_around(queries[0].image, queries[0].box) if search.cbgm else None
    method = gallery.search_frames if search.frames else gallery.search
    return method(
        embeddings,
        search.top_k,
        where,
        context,
        approximate=Approximate() if search.approximate else None,
        query_names=[str(query.path) for query in queries],
    )


def _facts(gallery: Gallery, engine: PersonSearch, search: GallerySearch, approximate: bool) -> dict[str, Any]:
    return {
        "gallery": gallery.where,
        "bundle": str(engine.bundle.path),
        "backend": engine.backend,
        "device": engine.device,
        "precision": engine.precision,
        "search": "frames" if search.frames else "visits",
        "approximate": approximate,
        "cbgm": search.cbgm,
    }


def _record(found: Found) -> dict[str, Any]:
    calibration = found.calibration
    judged_by = None
    if calibration is not None:
        judged_by = {name: getattr(calibration, name) for name in ("threshold", "target", "certain")}
    return {
        "queries": [query.record for query in found.queries],
        **found.facts,
        "calibration": judged_by,
        "hits": [_hit_record(found, rank, hit) for rank, hit in enumerate(found.hits, start=1)],
    }


def _hit_record(found: Found, rank: int, hit: GalleryHit) -> dict[str, Any]:
    from psarm.runtime.gallery.records import VisitHit
    from psarm.runtime.gallery.schema import visit_name

    record = {
        "rank": rank,
        "similarity": round(hit.similarity, 6),
        "probably_not_a_match": None if found.calibration is None else found.unlikely(hit),
        "camera": hit.camera,
        "source": hit.source,
        "visit": hit.visit,
        "visit_name": None if hit.visit is None else visit_name(hit.visit),
        "score": round(hit.score, 6),
        "box": hit.box.tolist(),
    }
    if not isinstance(hit, VisitHit):
        return {**record, "frame": hit.frame, "person": hit.person, "time": _iso(hit.time), "offset_s": hit.offset_s}
    return {
        **record,
        "false_match_rate": hit.false_match_rate,
        "start": _iso(hit.start),
        "end": _iso(hit.end),
        "start_s": hit.start_s,
        "end_s": hit.end_s,
        "first_frame": hit.first_frame,
        "last_frame": hit.last_frame,
        "best_frame": hit.best_frame,
        "frames": hit.frames,
    }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _print(found: Found) -> None:
    from psarm.cli.narrow_tables import print_fitting
    from psarm.console import err, out

    if not found.hits:
        out.print("Nobody was found.")
        err.print(why_nobody(found.gallery, found.search), markup=False)
        return
    print_fitting(partial(_table, found), out)
    times = [time for hit in found.hits if (time := hit_times(hit)[0]) is not None]
    if times:
        err.print(f"Times are local ({zone(times[0])}).", markup=False)


def _table(found: Found, narrow: bool) -> Table:
    from rich.text import Text

    from psarm.cli.narrow_tables import PathCell, new_table

    def broken(text: str) -> str:
        return text.replace(" ", "\n") if narrow else text

    table = new_table(narrow)
    for title in ("rank", "simi-\nlarity" if narrow else "similarity"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("camera", overflow="fold")
    table.add_column("at" if found.search.frames else "from–to", no_wrap=True)
    table.add_column(broken("box x1,y1,x2,y2") if found.search.frames else "length", justify="right", no_wrap=True)
    table.add_column("visit", no_wrap=True)
    table.add_column("source")
    if found.calibration is not None:
        table.add_column("", no_wrap=True)
    for rank, hit in enumerate(found.hits, start=1):
        unlikely = found.unlikely(hit)
        word = UNLIKELY_NARROW if narrow else UNLIKELY
        mark = [word if unlikely else ""] if found.calibration is not None else []
        last = box_text(hit.box.tolist()) if found.search.frames else hit_length(hit)
        table.add_row(
            str(rank),
            f"{hit.similarity:.3f}",
            Text(hit.camera),
            broken(hit_when(hit)),
            last,
            hit_visit(hit),
            PathCell(hit.source),
            *mark,
            style="dim" if unlikely else None,
        )
    return table
