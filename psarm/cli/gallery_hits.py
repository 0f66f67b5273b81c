"""When and where a hit of a gallery was seen, in words."""

from __future__ import annotations

from datetime import datetime

from psarm.cli.gallery_times import length, local, place, places, span
from psarm.runtime.gallery.records import FrameHit, VisitHit
from psarm.runtime.gallery.schema import visit_name

GalleryHit = VisitHit | FrameHit


def hit_times(hit: GalleryHit) -> tuple[datetime | None, datetime | None]:
    """From when to when a hit was seen, where that is known."""
    return (hit.start, hit.end) if isinstance(hit, VisitHit) else (hit.time, hit.time)


def hit_seconds(hit: GalleryHit) -> tuple[float, float] | None:
    """From where to where of its video; None for pictures and cameras."""
    start, end = (hit.start_s, hit.end_s) if isinstance(hit, VisitHit) else (hit.offset_s, hit.offset_s)
    return None if start is None or end is None else (start, end)


def hit_when(hit: GalleryHit) -> str:
    """The time by the clock where it is known, else the place in the video, else the number of the picture."""
    if isinstance(hit, FrameHit):
        return _frame_when(hit)
    if hit.start is not None and hit.end is not None:
        return span(hit.start, hit.end)
    if (seconds := hit_seconds(hit)) is not None:
        return places(*seconds)
    first, last = hit.first_frame, hit.last_frame
    return f"picture {first + 1}" if first == last else f"pictures {first + 1}–{last + 1}"


def _frame_when(hit: FrameHit) -> str:
    """With tenths of a second: several frames are of one second."""
    if hit.time is not None:
        return f"{local(hit.time)}.{hit.time.microsecond // 100_000}"
    if hit.offset_s is not None:
        return f"{place(hit.offset_s)}.{int(hit.offset_s * 10) % 10}"
    return f"picture {hit.frame + 1}"


def hit_visit(hit: GalleryHit) -> str:
    """The visit, such as 3-17; a dash for who is in none."""
    return "–" if hit.visit is None else visit_name(hit.visit)


def hit_length(hit: GalleryHit) -> str:
    """How long a visit was; a dash where nobody knows."""
    start, end = hit_times(hit)
    if (seconds := hit_seconds(hit)) is not None:
        return length(seconds[1] - seconds[0])
    return "–" if start is None or end is None else length((end - start).total_seconds())
