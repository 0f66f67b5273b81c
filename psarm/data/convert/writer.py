"""Sources → a data set on disk in the format of `psarm.data.visits`."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from psarm import __version__
from psarm.console import track
from psarm.data import visits
from psarm.data.convert.sources import Box, ConvertSettings, Sighting, Source
from psarm.data.convert.split import (
    Choice,
    Person,
    WrittenFrame,
    choose_queries,
    clip,
    is_cut_off,
    number_visits,
    training_frames,
)
from psarm.data.convert.summary import ConvertSummary, summarise
from psarm.data.types import UNLABELLED
from psarm.errors import DataError, UsageError
from psarm.files import atomic_directory, is_taken, refuse_unwritable, write_text

NO_AREA = "no area inside the picture"


def write_visits(
    out: Path,
    sources: Sequence[Source],
    settings: ConvertSettings,
    *,
    hint: str,
    overwrite: bool = False,
) -> ConvertSummary:
    """Write the data set to the directory `out`, which appears only when it is complete.

    Args:
        out: an existing one that is not empty is refused unless `overwrite` is set and it holds such a data set.
        sources: what was seen; pictures are read here.
        settings: of the conversion.
        hint: what a user can do where no person comes back; ends the sentence "…; ".
        overwrite: replace a data set in `out`.

    Raises:
        UsageError: `out` cannot be written.
        DataError: labels name pictures that there are not, a picture is damaged, or nobody can be searched for.
        ImageError: a video is damaged.
    """
    check_target(out, overwrite)
    _check_somebody_returns(sources, settings, hint)
    dropped = sum((Counter(source.dropped) for source in sources), Counter[str]())
    frames: list[WrittenFrame] = []
    with atomic_directory(out.resolve()) as root:
        (root / visits.IMAGES).mkdir()
        for index, source in enumerate(sources):
            frames += _write_pictures(root, index, source, settings, dropped)
        numbers = number_visits(frames)
        frames = [_renumbered(frame, numbers) for frame in frames]
        in_gallery = _split(frames, settings.train_fraction)
        queries = choose_queries(frames, in_gallery)
        if not queries:
            raise DataError(_why_no_query(frames, settings, hint))
        _write_json(root / visits.ANNOTATIONS, _annotations(sources, settings, frames, in_gallery))
        _write_json(root / visits.QUERIES, [_query(frames, choice) for choice in queries])
    return summarise(out, sources, frames, in_gallery, queries, dict(dropped))


def check_target(out: Path, overwrite: bool) -> None:
    """Raise `UsageError` where `out` cannot be written or replaced."""
    refuse_unwritable(out)
    if not is_taken(out):
        return
    if not overwrite:
        raise UsageError(f"{out} exists and is not empty; choose another directory or pass --overwrite.")
    if not visits.looks_like_visits(out):
        raise UsageError(f"{out} holds something else than a converted data set and is not overwritten.")


def _check_somebody_returns(sources: Sequence[Source], settings: ConvertSettings, hint: str) -> None:
    """Before any picture is read: raise `DataError` where the labels alone show that there will be no query."""
    seen = defaultdict(set)
    kept = 0
    for index, source in enumerate(sources):
        for sighting in source.sightings:
            if settings.keeps(sighting.position):
                kept += 1
                seen[sighting.identity].add((index, sighting.visit))
    seen.pop(UNLABELLED, None)
    if not kept:
        raise DataError(f"No labelled person is in the pictures that --every {settings.every} keeps; give a lower one.")
    if not seen:
        raise DataError("Nobody in the labels has an identity, so there is nobody to search for.")
    if all(len(visits_of_one) == 1 for visits_of_one in seen.values()):
        raise DataError(
            f"None of the {len(seen)} people comes back for a second visit, so there is nobody to search for; {hint}"
        )


def _write_pictures(
    root: Path, index: int, source: Source, settings: ConvertSettings, dropped: Counter[str]
) -> list[WrittenFrame]:
    sightings = defaultdict(list)
    for sighting in source.sightings:
        sightings[sighting.position].append(sighting)
    frames = []
    position = 0
    for picture in track(source.pictures, f"converting {source.name}", total=source.pictures.expected):
        position = picture.position
        if not settings.keeps(position):
            continue
        path = root / visits.IMAGES / picture.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = picture.save(path)
        people = tuple(_people(sightings[position], width, height))
        dropped[NO_AREA] += len(sightings[position]) - len(people)
        time = source.time(picture.number)
        frames.append(WrittenFrame(index, picture.file_name, width, height, picture.number, time, people))
    beyond = sorted(number for number in sightings if number > position)
    if beyond:
        named = ", ".join(map(str, beyond[:5])) + (f" … {beyond[-1]}" if len(beyond) > 5 else "")
        raise DataError(
            f"{source.labels} has labels for frames {named}, but {source.name} ends with frame {position}; "
            "give the labels of this video."
        )
    return frames


def _people(sightings: Sequence[Sighting], width: int, height: int) -> list[Person]:
    people = []
    for sighting in sightings:
        box = clip(sighting.box, width, height)
        if box is not None:
            people.append(Person(box, sighting.identity, sighting.visit, is_cut_off(sighting.box, width, height)))
    return people


def _renumbered(frame: WrittenFrame, numbers: dict[tuple[int, int], int]) -> WrittenFrame:
    people = (
        person if person.identity == UNLABELLED else replace(person, visit=numbers[frame.source, person.visit])
        for person in frame.people
    )
    return replace(frame, people=tuple(people))


def _split(frames: Sequence[WrittenFrame], fraction: float) -> list[bool]:
    """For every frame, whether it is in the gallery."""
    counts = Counter(frame.source for frame in frames)
    place: Counter[int] = Counter()
    in_gallery = []
    for frame in frames:
        place[frame.source] += 1
        in_gallery.append(place[frame.source] > training_frames(counts[frame.source], fraction))
    return in_gallery


def _why_no_query(frames: Sequence[WrittenFrame], settings: ConvertSettings, hint: str) -> str:
    seen = defaultdict(set)
    for frame in frames:
        for person in frame.people:
            seen[person.identity].add(person.visit)
    seen.pop(UNLABELLED, None)
    if not seen:
        return "No box of an identified person has any area inside its picture; x, y, w, h are in pixels."
    if all(len(visits_of_one) == 1 for visits_of_one in seen.values()):
        return f"Nobody is seen on a second visit inside the pictures, so there is nobody to search for; {hint}"
    return (
        f"Nobody is seen on a second visit in the gallery, the last {1 - settings.train_fraction:.0%} of the pictures; "
        "give a lower --train-fraction."
    )


def _annotations(
    sources: Sequence[Source], settings: ConvertSettings, frames: Sequence[WrittenFrame], in_gallery: Sequence[bool]
) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, (frame, gallery) in enumerate(zip(frames, in_gallery, strict=True), start=1):
        source = sources[frame.source]
        images.append(
            {
                "id": index,
                "file_name": frame.file_name,
                "width": frame.width,
                "height": frame.height,
                "camera": source.camera,
                "source": source.name,
                "frame": frame.number,
                "time": None if frame.time is None else round(frame.time, 3),
                "split": visits.SPLITS[gallery],
            }
        )
        for person in frame.people:
            bbox = _xywh(person.box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": visits.PERSON,
                    "bbox": bbox,
                    "area": round(bbox[2] * bbox[3], 3),
                    "iscrowd": 0,
                    "identity": person.identity,
                    "visit": person.visit,
                }
            )
    return {
        "info": {
            "psarm_version": __version__,
            "command": "psarm data convert",
            "sources": [{"name": source.name, "labels": source.labels.name} for source in sources],
            "settings": asdict(settings),
        },
        "categories": [{"id": visits.PERSON, "name": "person"}],
        "images": images,
        "annotations": annotations,
    }


def _query(frames: Sequence[WrittenFrame], choice: Choice) -> dict[str, Any]:
    return {
        "image_id": choice.frame + 1,
        "file_name": frames[choice.frame].file_name,
        "bbox": _xywh(choice.person.box),
        "identity": choice.person.identity,
        "visit": choice.person.visit,
    }


def _xywh(box: Box) -> list[float]:
    return [box[0], box[1], round(box[2] - box[0], 3), round(box[3] - box[1], 3)]


def _write_json(path: Path, value: Any) -> None:
    # Not indented: a line a number would make the file several times as large.
    write_text(path, json.dumps(value, ensure_ascii=False) + "\n")
