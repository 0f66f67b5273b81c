"""The whole conversion, of labelled video and of labelled pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from psarm.data.convert.coco import CocoLabels, coco_sources
from psarm.data.convert.mot import MotClip, mot_sources
from psarm.data.convert.sources import ConvertSettings
from psarm.data.convert.summary import ConvertSummary
from psarm.data.convert.writer import check_target, write_visits
from psarm.errors import UsageError

VISIT_GAP = 30
"""Of COCO labels, where neither an attribute nor `ConvertSettings.visit_gap` tells visits apart."""
_MERGE = (
    "give --people, which says which tracks are the same person, or --visit-gap N, which ends a visit where "
    "the person is absent for more than N frames."
)
_MERGE_FEWER = "--people has to say which tracks are the same person on another visit, or --visit-gap has to be lower."
_IDENTIFY = (
    "the id attribute has to be the same for a person on every visit, and --visit-attribute or a lower --visit-gap has "
    "to tell the visits apart."
)


def convert_mot(
    out: Path,
    clips: Sequence[MotClip],
    settings: ConvertSettings,
    *,
    shared_ids: bool = False,
    overwrite: bool = False,
) -> ConvertSummary:
    """Convert video with MOT Challenge labels to a data set in the directory `out`.

    Raises what `mot_sources` and `write_visits` raise; then nothing was written.
    """
    check_target(out, overwrite)
    _check_apart(out, [path for clip in clips for path in (clip.video, clip.labels, clip.people) if path is not None])
    hint = _MERGE_FEWER if any(clip.people is not None for clip in clips) or settings.visit_gap is not None else _MERGE
    sources = mot_sources(clips, settings, shared_ids)
    return write_visits(out, sources, settings, hint=hint, overwrite=overwrite)


def convert_coco(out: Path, data: CocoLabels, settings: ConvertSettings, *, overwrite: bool = False) -> ConvertSummary:
    """Convert pictures with COCO labels to a data set in the directory `out`.

    Raises what `coco_sources` and `write_visits` raise, and `UsageError` where both an attribute and a gap are to tell
    visits apart; then nothing was written.
    """
    if data.visit_attribute is None:
        settings = settings if settings.visit_gap is not None else replace(settings, visit_gap=VISIT_GAP)
    elif settings.visit_gap is not None:
        raise UsageError("--visit-attribute names the visits and --visit-gap finds them; give one of them.")
    check_target(out, overwrite)
    _check_apart(out, [data.labels, data.images])
    return write_visits(out, coco_sources(data, settings), settings, hint=_IDENTIFY, overwrite=overwrite)


def _check_apart(out: Path, inputs: Iterable[Path]) -> None:
    """Raise `UsageError` where replacing `out` would delete what is converted."""
    for path in inputs:
        if path.resolve().is_relative_to(out.resolve()):
            raise UsageError(f"{path} lies in {out}, which would be replaced; choose another directory to write to.")
