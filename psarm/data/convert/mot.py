"""Labelled video as MOT Challenge has it → sources: a clip or a sequence folder, its labels, and who is who."""

from __future__ import annotations

import configparser
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from psarm.data.convert.mot_labels import MotBox, MotLabels, read_mot_labels, read_people
from psarm.data.convert.pictures import PictureFile, PictureFiles, Video
from psarm.data.convert.sources import (
    ConvertSettings,
    Sighting,
    Source,
    is_frame_rate,
    visits_by_absence,
    visits_of_tracks,
)
from psarm.data.types import UNLABELLED
from psarm.errors import DataError, UsageError

SEQUENCE_FILE = "seqinfo.ini"
_IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"])


@dataclass(frozen=True)
class MotClip:
    """A clip to convert."""

    video: Path
    """A video file, or the folder of a MOT sequence: img1/, gt/gt.txt, seqinfo.ini."""
    camera: int
    labels: Path | None = None
    """None: the gt/gt.txt of a MOT sequence."""
    people: Path | None = None
    """Track → person; None: every track is a person."""
    start: float | None = None
    """Seconds at which the clip begins, on a clock that all clips share; None: 0."""


def mot_sources(clips: Sequence[MotClip], settings: ConvertSettings, shared_ids: bool = False) -> list[Source]:
    """Sources of clips; labels are read, pictures are not.

    A visit is a track, or with `settings.visit_gap` a presence of the person in the clip without a longer absence.

    Args:
        clips: in the order that decides between visits that begin at the same time.
        settings: of the conversion.
        shared_ids: the same track number is the same person in every clip.

    Raises:
        UsageError: the clips cannot be put in time, or it is unclear who is who.
        DataError: a label, people or sequence file is malformed.
        ImageError: a file is no video.
    """
    _check_clips(clips, settings, shared_ids)
    nth = Counter[int]()
    sources = []
    for clip in clips:
        nth[clip.camera] += 1
        sources.append(_source(clip, f"c{clip.camera}s{nth[clip.camera]}", settings))
    unclear = [source.name for source in sources if source.frame_rate is None]
    if unclear and len(sources) > 1:
        raise DataError(
            f"{unclear[0]} does not state its frame rate, so its visits cannot be put in time with the other clips'; "
            "write the video again with one."
        )
    return sources


def _check_clips(clips: Sequence[MotClip], settings: ConvertSettings, shared_ids: bool) -> None:
    if not clips:
        raise UsageError("No video was given; give --video.")
    for clip in clips:
        if clip.start is not None and not math.isfinite(clip.start):
            raise UsageError(f"--start {clip.start:g} is not a time; give seconds.")
    several = len(clips) > 1
    unmerged = [clip for clip in clips if clip.people is None]
    if shared_ids and len(unmerged) < len(clips):
        raise UsageError("--shared-ids says that track numbers are people and --people says who they are; give one.")
    if several and unmerged and not shared_ids:
        raise UsageError(
            "With several videos it has to be known who is who: give --people for each of them, "
            "or --shared-ids if a track number means the same person in all."
        )
    twice = [camera for camera, count in Counter(clip.camera for clip in clips).items() if count > 1]
    if twice and any(clip.start is None for clip in clips):
        raise UsageError(
            f"Camera {twice[0]} took several of the videos; say with --start for every video at which second it begins."
        )
    if settings.link and any(not clip.video.is_dir() for clip in clips):
        raise UsageError("--link is for picture files; the frames of a video are always written.")


def _source(clip: MotClip, prefix: str, settings: ConvertSettings) -> Source:
    path = clip.labels
    pictures: Video | PictureFiles
    frame_rate: float | None
    if clip.video.is_dir():
        pictures, frame_rate = _sequence(clip.video, prefix, settings.link)
        path = path or clip.video / "gt" / "gt.txt"
    else:
        pictures = Video(clip.video, prefix)
        frame_rate = pictures.frame_rate
    if path is None:
        raise UsageError(f"{clip.video} is a video, so its labels have to be given with --labels.")
    labels = read_mot_labels(path)
    people = _people(clip, path, labels)
    return Source(
        name=clip.video.name or str(clip.video.resolve().name),
        camera=clip.camera,
        pictures=pictures,
        sightings=_sightings(path, labels.boxes, people, settings.visit_gap),
        labels=path,
        frame_rate=frame_rate,
        start=clip.start or 0.0,
        dropped=labels.dropped,
    )


def _people(clip: MotClip, path: Path, labels: MotLabels) -> dict[int, int]:
    """Track → person for all tracks of the labels."""
    if clip.people is None:
        return {track: track for track in labels.tracks}
    people = read_people(clip.people)
    missing = [track for track in labels.tracks if track not in people]
    if missing:
        named = ", ".join(map(str, missing[:10])) + (" …" if len(missing) > 10 else "")
        raise DataError(
            f"{clip.people} does not say who {len(missing)} of the tracks in {path} are ({named}); "
            "add them, as person -1 where nobody knows."
        )
    return people


def _sightings(path: Path, boxes: Sequence[MotBox], people: dict[int, int], gap: int | None) -> list[Sighting]:
    identities = [UNLABELLED if box.track == UNLABELLED else people[box.track] for box in boxes]
    there: dict[tuple[int, int], MotBox] = {}
    for box, identity in zip(boxes, identities, strict=True):
        other = there.setdefault((box.frame, identity), box)
        if other is not box and identity != UNLABELLED:
            raise DataError(
                f"{path}: tracks {other.track} (line {other.line}) and {box.track} (line {box.line}) are both person "
                f"{identity} and both in frame {box.frame}; a person is in a frame once."
            )
    if gap is None:
        visits = visits_of_tracks([(identity, box.track) for box, identity in zip(boxes, identities, strict=True)])
    else:
        visits = visits_by_absence(identities, [box.frame for box in boxes], gap)
    return [
        Sighting(box.frame, box.box, identity, UNLABELLED if identity == UNLABELLED else visit)
        for box, identity, visit in zip(boxes, identities, visits, strict=True)
    ]


def _sequence(folder: Path, prefix: str, link: bool) -> tuple[PictureFiles, float]:
    """Pictures and frame rate of a MOT sequence folder."""
    frame_rate, images = _read_sequence_file(folder)
    if not images.is_dir():
        raise DataError(f"{images} is missing; it should hold the pictures of the sequence.")
    found = sorted(
        (int(file.stem), file)
        for file in images.iterdir()
        if file.suffix.lower() in _IMAGE_SUFFIXES and file.stem.isascii() and file.stem.isdecimal()
    )
    if not found:
        raise DataError(f"{images} holds no picture with a frame number for a name, such as 000001.jpg.")
    for expected, (number, file) in enumerate(found, start=1):
        if number != expected:
            raise DataError(f"{images} has {file.name} where frame {expected} should be; expected one picture a frame.")
    files = [PictureFile(file, number, f"{prefix}_{number:06d}{file.suffix.lower()}") for number, file in found]
    return PictureFiles(files, link), frame_rate


def _read_sequence_file(folder: Path) -> tuple[float, Path]:
    """Frame rate and folder of pictures that seqinfo.ini names."""
    path = folder / SEQUENCE_FILE
    if not path.is_file():
        raise DataError(f"{folder} is a folder without {SEQUENCE_FILE}; expected a MOT sequence or a video file.")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"))
        section = parser["Sequence"]
        frame_rate = float(section["frameRate"])
    except (configparser.Error, UnicodeDecodeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} has no frameRate under [Sequence] that can be read ({reason}).") from error
    if not is_frame_rate(frame_rate):
        raise DataError(f"{path}: frameRate is {frame_rate:g}; expected a number above 0.")
    return frame_rate, folder / section.get("imDir", "img1")
