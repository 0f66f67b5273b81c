"""MOT Challenge's label files: a line a box, `frame,track,x,y,w,h[,conf[,class,visibility | ,X,Y,Z]]`.

Frames count from 1. A box is taken as it stands: x and y are pixels from the picture's left and top edge, 0 being the
edge itself. The format's description counts pixels from 1, so boxes of the MOT Challenge's own files lie up to a pixel
right of and below the person; tools disagree about it (py-motmetrics subtracts 1, TrackEval does not), and what
annotation tools such as CVAT export counts from 0.

Lines with conf 0 are not to be used. Nine columns are MOT16's, MOT17's and MOT20's, whose eighth
is a class (1 = pedestrian); ten are MOT15's, which end in world coordinates. Six or seven are what many tools write. A
first line of column names is passed over when it names these columns.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from psarm.data.convert.sources import Box
from psarm.data.json_file import as_number, as_whole, json_kind, read_json_object
from psarm.data.types import UNLABELLED
from psarm.errors import DataError

COLUMNS = "frame,track,x,y,w,h"
PEDESTRIAN = 1
IGNORED, OTHER_CLASS = "conf 0", "class other than pedestrian"
_COLUMN_COUNTS = (6, 7, 9, 10)
_WITH_CLASS = 9
_HEADERS = (
    {"frame", "frame_id", "frame_number"},
    {"id", "track", "track_id", "object_id", "person", "person_id"},
    {"x", "left", "bb_left", "bbox_x"},
    {"y", "top", "bb_top", "bbox_y"},
    {"w", "width", "bb_width", "bbox_w"},
    {"h", "height", "bb_height", "bbox_h"},
)


@dataclass(frozen=True)
class MotBox:
    """A line of a label file."""

    line: int
    frame: int
    track: int
    """UNLABELLED where the file has -1."""
    box: Box  # xyxy pixels


@dataclass(frozen=True)
class MotLabels:
    """A label file."""

    boxes: list[MotBox]
    dropped: dict[str, int]
    """Why lines were passed over → how many."""

    @property
    def tracks(self) -> list[int]:
        """All track numbers, rising."""
        return sorted({box.track for box in self.boxes} - {UNLABELLED})


def read_mot_labels(path: Path) -> MotLabels:
    """Read a label file.

    Raises:
        DataError: it is missing, empty or no such file; the sentence names the line and what was expected in it.
    """
    lines = _lines(path)
    if lines and _is_header(path, lines[0][1]):
        lines = lines[1:]
    boxes: list[MotBox] = []
    dropped: Counter[str] = Counter()
    seen: dict[tuple[int, int], int] = {}
    for line, fields in lines:
        if len(fields) != len(lines[0][1]):
            raise DataError(f"{path} line {line} has {len(fields)} columns, but the first has {len(lines[0][1])}.")
        try:
            box, reason = _parse(line, fields)
        except DataError as error:
            raise DataError(f"{path} line {line}: {error}") from None
        if reason is not None:
            dropped[reason] += 1
            continue
        before = seen.setdefault((box.frame, box.track), line)
        if box.track != UNLABELLED and before != line:
            raise DataError(
                f"{path} line {line}: track {box.track} is in frame {box.frame} already (line {before}); "
                "a track has one box a frame."
            )
        boxes.append(box)
    if not boxes:
        why = ", ".join(f"{count} lines of {reason}" for reason, count in dropped.items())
        raise DataError(f"{path} holds no box to use{f' ({why})' if why else ''}; expected lines {COLUMNS},….")
    return MotLabels(boxes, dict(dropped))


def read_people(path: Path) -> dict[int, int]:
    """Track → person of a --people file: `{"track_to_person": {"7": 2, …}}`, or that inner object alone.

    A person is a whole number from 0 up, or -1 (or null) where nobody knows who it is.

    Raises:
        DataError: the file is missing, is not of that form or has a track twice.
    """
    expected = 'an object such as {"track_to_person": {"7": 2}}'
    content = read_json_object(path, expected, unique_keys=True)
    mapping = content.get("track_to_person", content)
    if not isinstance(mapping, dict) or not mapping:
        kind = "an empty object" if mapping == {} else json_kind(mapping)
        raise DataError(f"{path}: track_to_person is {kind}; expected {expected}.")
    people: dict[int, int] = {}
    for key, value in mapping.items():
        track, person = as_whole(key), UNLABELLED if value is None else as_whole(value)
        if track is None or track < 0:
            raise DataError(f"{path}: {key!r} is not the number of a track; expected {expected}.")
        if person is None or person < UNLABELLED:
            raise DataError(
                f"{path}: track {key} is person {value!r}; expected a whole number from 0 up, or -1 if nobody knows."
            )
        if track in people:
            raise DataError(f"{path}: track {track} is there more than once ({key!r}); expected every track once.")
        people[track] = person
    return people


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Line number (from 1) and fields of every line that is not blank."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); expected lines {COLUMNS},….") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file; expected lines {COLUMNS},….") from error
    numbered = enumerate(text.splitlines(), start=1)
    return [(number, [field.strip() for field in line.split(",")]) for number, line in numbered if line.strip()]


def _is_header(path: Path, fields: list[str]) -> bool:
    """Whether the first line names the columns; raises `DataError` where it names others than ours."""
    if any(_number(field) is not None for field in fields):
        return False
    names = [field.strip("\"'").lower() for field in fields]
    if len(names) < len(_HEADERS) or not all(name in known for name, known in zip(names, _HEADERS, strict=False)):
        raise DataError(f"{path} line 1 is {','.join(fields)!r}; expected columns {COLUMNS}, or no line of names.")
    return True


def _parse(line: int, fields: list[str]) -> tuple[MotBox, str | None]:
    """The box of a line, and why it is to be passed over, if it is."""
    text = ",".join(fields)
    if len(fields) not in _COLUMN_COUNTS:
        counts = ", ".join(map(str, _COLUMN_COUNTS))
        raise DataError(f"expected {COLUMNS} and what may follow ({counts} columns in all), got {text!r}.")
    values = [_number(field) for field in fields]
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        raise DataError(f"column {values.index(None) + 1} is {fields[values.index(None)]!r}; expected a number.")
    frame, track = as_whole(numbers[0]), as_whole(numbers[1])
    if frame is None or frame < 1:
        raise DataError(f"the frame is {fields[0]}; expected a whole number from 1 up.")
    if track is None or track < UNLABELLED:
        raise DataError(f"the track is {fields[1]}; expected a whole number from 0 up, or -1 for a box without track.")
    x, y, w, h = numbers[2:6]
    box = MotBox(line, frame, track, (x, y, x + w, y + h))
    if len(fields) > 6 and numbers[6] == 0:
        return box, IGNORED
    return box, OTHER_CLASS if len(fields) == _WITH_CLASS and numbers[7] != PEDESTRIAN else None


def _number(field: str) -> float | None:
    try:
        return as_number(float(field))
    except ValueError:
        return None
