"""The page of `psarm search --gallery --html`: frames are read again from their sources where these are still there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from psarm.cli.gallery_hits import GalleryHit, hit_length, hit_seconds, hit_times, hit_visit, hit_when
from psarm.cli.gallery_search import Found
from psarm.cli.gallery_search_notes import UNLIKELY, filters, how_hits_are_judged, outdated
from psarm.cli.gallery_times import places, zone
from psarm.cli.gallery_words import counted
from psarm.cli.query_pictures import box_text
from psarm.errors import ImageError
from psarm.runtime.gallery.records import FrameHit, Source

if TYPE_CHECKING:
    from psarm.runtime.gallery.page import Card, Moment
    from psarm.runtime.indexing.again import FramesAgain
    from psarm.runtime.video import Frame


def write_page(target: Path, found: Found) -> None:
    """Write the page atomically."""
    from psarm.console import progress
    from psarm.files import write_text
    from psarm.runtime.gallery.page import gallery_page
    from psarm.runtime.indexing.again import FramesAgain

    with closing(FramesAgain()) as again, progress() as bar:
        cards = bar.track(_cards(found, again), total=len(found.hits), description="Reading frames again")
        pictures = [query.picture for query in found.queries]
        name = found.gallery.where.rstrip("/").rpartition("/")[2]
        page = gallery_page(name, pictures, cards, _head(found), _notes(found))
    write_text(target, page)


def _cards(found: Found, again: FramesAgain) -> Iterator[Card]:
    from psarm.runtime.gallery.page import Card

    sources = {info.source.name: info.source for info in found.gallery.sources()}
    for hit in found.hits:
        source = sources[hit.source]
        try:
            frame: Frame | str = again.read(source, hit.frame if isinstance(hit, FrameHit) else hit.best_frame)
        except ImageError as error:
            frame = str(error)
        yield Card(
            similarity=hit.similarity,
            camera=hit.camera,
            source=hit.source,
            when=hit_when(hit),
            detail=_detail(hit),
            box=hit.box,
            frame=frame,
            thumbnail=None if isinstance(hit, FrameHit) else hit.thumbnail,
            moment=None if isinstance(frame, str) else _moment(source, hit),
            unlikely=UNLIKELY if found.unlikely(hit) else "",
        )


def _detail(hit: GalleryHit) -> str:
    score = f"detection score {hit.score:.3f}"
    if isinstance(hit, FrameHit):
        return f"visit {hit_visit(hit)} · box {box_text(hit.box.tolist())} · {score}"
    return f"visit {hit_visit(hit)} · {hit_length(hit)} · {counted(hit.frames, 'frame')} · {score}"


def _moment(source: Source, hit: GalleryHit) -> Moment | None:
    """What can be played: part of a video."""
    from psarm.runtime.gallery.page import Moment

    seconds = hit_seconds(hit)
    return None if seconds is None else Moment(Path(source.name), *seconds, places(*seconds))


def _head(found: Found) -> list[str]:
    """What was searched, by which clock, and how the hits are judged."""
    facts = [f"Searched: {', '.join(filters(found.search)) or 'all of it'}."]
    times = [time for hit in found.hits if (time := hit_times(hit)[0]) is not None]
    if times:
        facts.append(f"Times are local ({zone(times[0])}).")
    facts.append(how_hits_are_judged(found))
    if aged := outdated(found):
        facts.append(aged)
    return facts


def _notes(found: Found) -> list[str]:
    words = {True: "yes", False: "no"}
    facts = {**found.facts, **{name: words[found.facts[name]] for name in ("cbgm", "approximate")}}
    return [f"{key}: {value}" for key, value in facts.items()]
