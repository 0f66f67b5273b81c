"""What `psarm search --gallery` says beside its hits: how they are judged, why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from psarm.cli.gallery_times import local, span, zone
from psarm.cli.gallery_words import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from psarm.cli.gallery_search import Found, GallerySearch
    from psarm.runtime.gallery.calibration import Calibration
    from psarm.runtime.gallery.gallery import Gallery
    from psarm.runtime.gallery.store import Store

UNLIKELY = "probably not a match"

FEWER, MORE = 0.8, 1.2
"""Shares of the visits calibrated on, below and above which the gallery has become another."""


def how_hits_are_judged(found: Found) -> str:
    """What the marks mean, or why there are none."""
    if found.search.cbgm:
        return "Similarities with --cbgm are not calibrated: no hit is marked."
    if found.search.frames:
        return "Calibrations are of visits, and not of people in single frames: no hit is marked."
    if found.calibration is None:
        return (
            "Not calibrated, so no hit is marked as probably not a match; do it once with: "
            f"psarm gallery calibrate {found.gallery.where}"
        )
    return judged(found.calibration)


def judged(calibration: Calibration) -> str:
    """What the threshold of a calibration means."""
    visits = calibration.visits
    others = calibration.expected_false_hits(calibration.threshold, visits)
    return (
        f"Hits below {calibration.threshold:.3f} are marked as {UNLIKELY}. From there on {threshold_rate(calibration)} "
        f"of other people are as similar: {others:.1f} of {counted(visits, 'visit')}."
    )


def outdated(found: Found) -> str | None:
    """Of a calibration that judges the hits, and is of when the gallery had far fewer or more visits than now."""
    if found.calibration is None:
        return None
    then = found.calibration.visits
    if FEWER * then <= found.visits <= MORE * then:
        return None
    return (
        f"The gallery was calibrated when it had {counted(then, 'visit')}, and now has {found.visits:,}; calibrate "
        f"again with: psarm gallery calibrate {found.gallery.where}"
    )


def unlike_pictures(
    paths: Sequence[Path], embeddings: NDArray[np.float32], calibration: Calibration | None
) -> str | None:
    """Of query pictures whose embeddings [q,D] are less similar to one another than visits of other people may be."""
    import numpy as np

    if calibration is None:
        return None
    similarities = embeddings @ embeddings.T
    np.fill_diagonal(similarities, np.inf)  # a picture is not compared with itself
    one, other = divmod(int(similarities.argmin()), len(paths))
    lowest = float(similarities[one, other])
    if lowest >= calibration.threshold:
        return None
    return (
        f"Note: the query pictures do not look like one person: {paths[one]} and {paths[other]} have a similarity of "
        f"{lowest:.3f}, below {calibration.threshold:.3f}."
    )


def threshold_rate(calibration: Calibration) -> str:
    """`0.95% (at most 1.40%, 95 % sure)`: the false-match rate at the threshold."""
    rate, bound = calibration.false_match_rate(calibration.threshold), calibration.bound(calibration.threshold)
    return f"{rate:.3%} (at most {bound:.3%}, 95 % sure)"


def filters(search: GallerySearch) -> list[str]:
    """What is searched only, `camera door`, `from 2026-03-01 14:30:00`, …; empty for all of the gallery."""
    texts = [f"{name} {', '.join(of)}" for name, of in (("camera", search.cameras), ("source", search.sources)) if of]
    texts += [f"{name} {local(time)}" for name, time in (("from", search.begin), ("to", search.end)) if time]
    if search.min_score is not None:
        texts.append(f"detection score from {search.min_score:g}")
    return texts


def why_nobody(gallery: Gallery, search: GallerySearch) -> str:
    """What the gallery has, where nothing of it was a hit."""
    info = gallery.info()
    if not info.visits and not info.people:
        return "The gallery is empty."
    seen = "at times nobody knows"
    if info.start is not None and info.end is not None:
        seen = f"{span(info.start, info.end)} ({zone(info.start)})"
    verb = "is" if info.visits == 1 else "are"
    text = f"Without filters there {verb} {counted(info.visits, 'visit')}, of {', '.join(info.cameras)}, seen {seen}"
    unknown = gallery.store.read(_visits_of_unknown_time)
    if (search.begin or search.end) and unknown:
        verb = "is" if unknown == 1 else "are"
        text += f"; {counted(unknown, 'visit')} of unknown time {verb} left out by --from, --to and --last"
    return f"{text}."


def _visits_of_unknown_time(store: Store) -> int:
    count: int = store.visits.count_rows("start IS NULL")
    return count


def exact_after_all(gallery: Gallery, search: GallerySearch) -> str | None:
    """Of --approximate where there is no index to go through."""
    from psarm.runtime.gallery.maintenance import has_index

    of_people = search.frames or search.cbgm
    if gallery.store.read(lambda store: has_index(store.people if of_people else store.visits)):
        return None
    table = "people" if of_people else "visits"
    return (
        f"Note: the gallery has no index of its {table}, so the search was exact; psarm gallery index "
        f"{gallery.where} builds one where it is worth it."
    )
