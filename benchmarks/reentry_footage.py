"""Labelled footage whose people leave and come back, for the search in a gallery.

F frames of a video. Frame ids are as in a gallery: microseconds since the video's first frame.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from psarm.benchmarks.learning_pets import FILES
from psarm.data.convert.mot import MotClip, mot_sources
from psarm.data.convert.pictures import Video
from psarm.data.convert.sources import ConvertSettings, Sighting, visits_by_absence
from psarm.data.convert.split import Choice, Person, WrittenFrame, choose_queries, clip, is_cut_off, number_visits
from psarm.data.prw import read_prw
from psarm.data.synth.plan import FRAME_STEP
from psarm.data.types import UNLABELLED, Frame
from psarm.errors import DataError
from psarm.runtime.images import read_image

PETS, PETS_CAMERA = "pets2009_s2l1", "PETS"
ONE_BY_ONE, ONE_BY_ONE_CAMERA = "one_by_one", "entrance"
ONE_BY_ONE_FILES = ("one-by-one-person-detection.mp4", "labels.csv")
TICKS = 25
"""A second of a synthetic data set, in frame numbers."""
PAUSE = 60 * TICKS
"""Between two sequences of a synthetic camera, in frame numbers."""
ROUNDING = 501
"""Microseconds by which a container may have rounded a frame's time down."""
ABSENCE = 3
"""Frames without a person that end a synthetic visit: a second apart within an episode."""


@dataclass(frozen=True, eq=False)
class LabelledVideo:
    """One source of a gallery, and the ids of its frames."""

    path: Path
    camera: str
    ids: NDArray[np.int64]  # [F] rising


@dataclass(frozen=True, eq=False)
class Footage:
    """Videos that are indexed together, and who is in them."""

    name: str
    videos: tuple[LabelledVideo, ...]
    frames: tuple[WrittenFrame, ...]
    """All frames; `source` is an index of `videos`, `number` counts from 1, visits are numbered over all videos."""

    def id_of(self, frame: WrittenFrame) -> int:
        """The frame's id in the gallery."""
        return int(self.videos[frame.source].ids[frame.number - 1])

    def due(self, fps: float | None) -> list[WrittenFrame]:
        """The frames that are indexed: of every 1/`fps` seconds of a video the first, or all."""
        if fps is None:
            return list(self.frames)
        due, last = [], (-1, -1)
        for frame in self.frames:
            slot = frame.source, math.floor((self.id_of(frame) + ROUNDING) * fps / 1_000_000)
            if slot != last:
                due.append(frame)
                last = slot
        return due

    def queries(self) -> list[Choice]:
        """A picture of the first visit of everybody who comes back, chosen as `psarm data convert` does."""
        return choose_queries(self.frames, [True] * len(self.frames))

    def people(self) -> int:
        """How many people have an identity."""
        return len({person.identity for frame in self.frames for person in frame.people} - {UNLABELLED})


def read_pets(folder: Path) -> Footage:
    """PETS2009 S2.L1, its tracks merged to people. Raises `DataError` where a file is missing."""
    video, labels, people = (folder / PETS / name for name in FILES.values())
    return _read_mot(PETS, MotClip(_there(video), 1, _there(labels), _there(people)), PETS_CAMERA)


def read_one_by_one(folder: Path) -> Footage:
    """Six people who walk in one after the other; nobody comes back. Raises `DataError` where a file is missing."""
    video, labels = (_there(folder / ONE_BY_ONE / name) for name in ONE_BY_ONE_FILES)
    return _read_mot(ONE_BY_ONE, MotClip(video, 1, labels), ONE_BY_ONE_CAMERA)


def read_synthetic(root: Path, videos: Path) -> Footage:
    """A data set of `psarm data synth`, layout PRW, as a video a camera, written to the directory `videos`.

    The frames keep the times they were drawn for: a second apart within an episode, with pauses between episodes.
    """
    dataset = read_prw(root)
    by_camera: dict[int, list[Frame]] = defaultdict(list)
    for frame in sorted([*dataset.train, *dataset.gallery], key=lambda frame: frame.name):
        by_camera[frame.camera].append(frame)
    videos.mkdir(parents=True, exist_ok=True)
    labelled, frames = [], []
    for index, (camera, taken) in enumerate(sorted(by_camera.items())):
        ticks = _ticks([frame.name for frame in taken])
        path = videos / f"camera{camera}.mkv"
        size = write_video([frame.path for frame in taken], ticks, path)
        labelled.append(LabelledVideo(path, f"camera {camera}", (ticks - ticks[0]) * (1_000_000 // TICKS)))
        frames += _frames(index, size, _sightings(taken, ticks), (ticks / TICKS).tolist())
    return Footage("synthetic", tuple(labelled), _numbered(frames))


def write_video(pictures: Sequence[Path], ticks: NDArray[np.int64], path: Path) -> tuple[int, int]:
    """Write pictures as H.264, each at its time of 25 ticks a second; gives their width and height."""
    import av

    height, width = read_image(pictures[0]).shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=TICKS, options={"crf": "16", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        for picture, tick in zip(pictures, (ticks - ticks[0]).tolist(), strict=True):
            frame = av.VideoFrame.from_ndarray(read_image(picture), format="bgr24")
            frame.pts, frame.time_base = tick, Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return width, height


def _there(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path} is missing; give the folder that holds {PETS} and {ONE_BY_ONE}.")
    return path


def _read_mot(name: str, clip_: MotClip, camera: str) -> Footage:
    [source] = mot_sources([clip_], ConvertSettings())
    pictures = source.pictures
    assert isinstance(pictures, Video)
    if source.frame_rate is None or pictures.expected is None:
        raise DataError(f"{clip_.video} does not state its frame rate and length, which its labels need.")
    seconds = np.arange(pictures.expected) / source.frame_rate
    ids = np.rint(seconds * 1_000_000).astype(np.int64)
    frames = _frames(0, _size(clip_.video), source.sightings, seconds.tolist())
    return Footage(name, (LabelledVideo(clip_.video, camera, ids),), _numbered(frames))


def _size(video: Path) -> tuple[int, int]:
    capture = cv2.VideoCapture(str(video))
    size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    capture.release()
    return size


def _frames(
    source: int, size: tuple[int, int], sightings: Sequence[Sighting], seconds: Sequence[float]
) -> list[WrittenFrame]:
    there: dict[int, list[Person]] = defaultdict(list)
    for sighting in sightings:
        box = clip(sighting.box, *size)
        if box is not None:
            cut_off = is_cut_off(sighting.box, *size)
            there[sighting.position].append(Person(box, sighting.identity, sighting.visit, cut_off))
    return [
        WrittenFrame(source, "", *size, number, time, tuple(there[number]))
        for number, time in enumerate(seconds, start=1)
    ]


def _numbered(frames: Sequence[WrittenFrame]) -> tuple[WrittenFrame, ...]:
    numbers = number_visits(frames)
    return tuple(
        replace(
            frame,
            people=tuple(
                replace(person, visit=numbers.get((frame.source, person.visit), UNLABELLED)) for person in frame.people
            ),
        )
        for frame in frames
    )


def _ticks(names: Sequence[str]) -> NDArray[np.int64]:
    """[F] when the frames of a camera, sorted by name, were taken; each sequence counts anew."""
    ticks, offset, before = [], 0, ("", 0)
    for name in names:
        sequence, number = name.removesuffix(".jpg").split("_")
        if sequence != before[0] and before[0]:
            offset += before[1] + PAUSE
        ticks.append(offset + int(number))
        before = sequence, int(number)
    return np.array(ticks, np.int64)


def _sightings(frames: Sequence[Frame], ticks: NDArray[np.int64]) -> list[Sighting]:
    rows = [
        (position, box, int(identity))
        for position, frame in enumerate(frames, start=1)
        for box, identity in zip(frame.boxes.tolist(), frame.identities, strict=True)
    ]
    identities = [identity for _, _, identity in rows]
    visits = visits_by_absence(identities, [int(ticks[row[0] - 1]) // FRAME_STEP for row in rows], ABSENCE)
    return [
        Sighting(position, tuple(box), identity, UNLABELLED if identity == UNLABELLED else visit)
        for (position, box, identity), visit in zip(rows, visits, strict=True)
    ]
