"""Who walks where and when: decided for the whole data set before anything is drawn.

A camera's frames come in episodes of about ten, one second apart; an episode belongs to the training or the test
set as a whole, and so do the identities in it. In an episode, lanes of walkers follow one another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from psarm.data.synth.cameras import Camera, camera_of
from psarm.data.synth.cast import Cast
from psarm.data.synth.furniture import STREETS
from psarm.data.synth.pose import Stance
from psarm.data.synth.settings import CAMERAS, Stream, SynthSettings

EPISODE = 10
FRAME_STEP = 25
SEQUENCES = 3
DISTRACTORS = 0.22
"""Share of the walkers who have no identity."""


@dataclass(frozen=True)
class Placement:
    """One person in one frame."""

    person: int
    """Row in the cast; the distractors come after the identities."""
    x: float
    z: float
    stance: Stance


@dataclass(frozen=True)
class FramePlan:
    """One frame: its name's parts, its side of the split and everyone in it."""

    camera: int
    sequence: int
    number: int
    test: bool
    exposure: float
    people: tuple[Placement, ...]

    @property
    def name(self) -> str:
        """The frame's name without extension: `c1s1_000151`."""
        return f"c{self.camera}s{self.sequence}_{self.number:06d}"


@dataclass(frozen=True)
class _Walk:
    """A straight walk with constant speed over some frames of an episode."""

    person: int
    first: int
    x: tuple[float, ...]
    z: tuple[float, ...]
    stances: tuple[Stance, ...]

    def at(self, frame: int) -> int | None:
        """Index of an episode's frame in this walk, None when not there."""
        index = frame - self.first
        return index if 0 <= index < len(self.x) else None


def plan_frames(settings: SynthSettings, cast: Cast) -> list[FramePlan]:
    """All frames, ordered by camera, sequence and number."""
    episodes = _episodes(settings)
    visits = np.zeros((len(cast.pids), CAMERAS + 1), np.int64)
    frames: list[FramePlan] = []
    # Identities are dealt camera by camera in turn, so that each one comes through many cameras.
    for index, (camera, sequence, start, length, test) in enumerate(episodes):
        rng = settings.rng(Stream.PLAN, index)
        pool = cast.test_rows if test else cast.train_rows
        walks = _walks(rng, camera_of(camera), settings, length, pool, visits, cast)
        exposure = float(rng.normal(1.0, 0.05))
        for frame in range(length):
            people = tuple(
                Placement(walk.person, walk.x[i], walk.z[i], walk.stances[i])
                for walk in walks
                if (i := walk.at(frame)) is not None
            )
            frames.append(FramePlan(camera, sequence, start + FRAME_STEP * frame, test, exposure, people))
    return sorted(frames, key=lambda frame: (frame.camera, frame.sequence, frame.number))


def _episodes(settings: SynthSettings) -> list[tuple[int, int, int, int, bool]]:
    """(camera, sequence, first frame number, length, test), interleaving cameras and the two sides."""
    per_camera: list[list[tuple[int, bool]]] = []
    for camera in range(CAMERAS):
        lengths = []
        for test, total in ((False, settings.train_frames), (True, settings.test_frames)):
            share = total // CAMERAS + (camera < total % CAMERAS)
            count = max(1, round(share / EPISODE))
            lengths += [(share // count + (i < share % count), test) for i in range(count)]
        order = settings.rng(Stream.PLAN, 10**6, camera).permutation(len(lengths))
        per_camera.append([lengths[i] for i in order])
    episodes = []
    next_number = {(camera, s): 151 for camera in range(CAMERAS) for s in range(1, SEQUENCES + 1)}
    for index in range(max(len(lengths) for lengths in per_camera)):
        for camera, lengths in enumerate(per_camera):
            if index < len(lengths):
                length, test = lengths[index]
                sequence = 1 + index * SEQUENCES // len(lengths)
                start = next_number[camera, sequence]
                next_number[camera, sequence] = start + FRAME_STEP * (length + 8)
                episodes.append((camera + 1, sequence, start, length, test))
    return episodes


def _walks(
    rng: np.random.Generator,
    camera: Camera,
    settings: SynthSettings,
    length: int,
    pool: list[int],
    visits: np.ndarray,
    cast: Cast,
) -> list[_Walk]:
    """The walks of one episode; fills in who was seen where."""
    walks: list[_Walk] = []
    # A lane is empty for about a tenth of the time, between two walkers; the first one never is.
    for lane in range(max(1, int(1.1 * settings.people_per_frame + rng.random()))):
        frame = 0 if lane < 2 else int(rng.integers(0, min(3, length)))
        while frame < length:
            person = _next_person(rng, pool, visits, camera.number, {walk.person for walk in walks}, cast)
            walk = _best_walk(rng, camera, settings, person, frame, length, walks)
            walks.append(walk)
            if person < len(cast.pids):
                visits[person, 0] += len(walk.x)
                visits[person, camera.number] += 1
            frame += len(walk.x) + (int(rng.integers(0, 2)) if lane > 0 else 0)
    return walks


def _next_person(
    rng: np.random.Generator, pool: list[int], visits: np.ndarray, camera: int, used: set[int], cast: Cast
) -> int:
    """An identity seen least so far (fewest visits to this camera first among equals), or a distractor."""
    free = [row for row in pool if row not in used]
    if not free or rng.random() < DISTRACTORS:
        strangers = [row for row in cast.distractor_rows if row not in used]
        return int(rng.choice(strangers))
    tie = rng.random(len(free))
    order = np.lexsort((tie, visits[free, camera], visits[free, 0] // 3))
    return free[int(order[0])]


def _best_walk(
    rng: np.random.Generator,
    camera: Camera,
    settings: SynthSettings,
    person: int,
    first: int,
    length: int,
    others: list[_Walk],
) -> _Walk:
    """A walk that keeps clear of the others, the best of a few drawn."""
    best, best_gap = None, -1.0
    for _ in range(8):
        walk = _draw_walk(rng, camera, settings, person, first, length)
        gap = min((_gap(walk, other) for other in others), default=9.0)
        gap = min(gap, _clearance(walk, camera))
        if gap > best_gap:
            best, best_gap = walk, gap
        if gap > 0.9:
            break
    assert best is not None
    return best


def _gap(walk: _Walk, other: _Walk) -> float:
    """Smallest ground distance in metres while both are there."""
    gaps = [9.0]
    for i, (x, z) in enumerate(zip(walk.x, walk.z, strict=True)):
        if (j := other.at(walk.first + i)) is not None:
            gaps.append(float(np.hypot(x - other.x[j], z - other.z[j])))
    return min(gaps)


def _clearance(walk: _Walk, camera: Camera) -> float:
    """Smallest ground distance in metres to the furniture."""
    items = STREETS[camera.place]
    return min(float(np.hypot(item.x - x, item.z - z)) for item in items for x, z in zip(walk.x, walk.z, strict=True))


def _draw_walk(
    rng: np.random.Generator, camera: Camera, settings: SynthSettings, person: int, first: int, length: int
) -> _Walk:
    aspect = settings.width / settings.height
    near_weight = rng.random() ** 1.7
    z0 = camera.near + (camera.far - camera.near) * near_weight
    room = max(0.2, camera.half_width(z0, aspect) - 0.25)
    x0 = float(rng.uniform(-room, room)) * 0.95
    heading = _heading(rng, camera.flow)
    speed = 0.0 if rng.random() < 0.1 else float(rng.uniform(0.6, 1.3))
    step = (speed * np.sin(heading), -speed * np.cos(heading))  # yaw 0 walks towards the camera
    longest = min(length - first, int(rng.integers(4, 9)))
    xs, zs = [x0], [z0]
    while len(xs) < longest:
        x, z = xs[-1] + step[0], zs[-1] + step[1]
        if not camera.near * 0.95 <= z <= camera.far or abs(x) > camera.half_width(z, aspect) - 0.15:
            break
        xs.append(x)
        zs.append(z)
    stances = _stances(rng, heading, speed, xs, zs)
    return _Walk(person, first, tuple(float(x) for x in xs), tuple(float(z) for z in zs), stances)


def _stances(
    rng: np.random.Generator, heading: float, speed: float, xs: list[float], zs: list[float]
) -> tuple[Stance, ...]:
    """The walk's poses; the view on the body turns with the line of sight."""
    phase, advance = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(1.5, 4.5))
    stride = 0.04 if speed == 0 else 0.30 + 0.16 * speed
    styles = ("swing", "swing", "swing", "phone", "pocket")
    arms = (str(rng.choice(styles)), str(rng.choice(styles)))
    stances = []
    for i, (x, z) in enumerate(zip(xs, zs, strict=True)):
        yaw = heading + float(np.arctan2(x, z)) + float(rng.normal(0, 0.08))
        gaze = float(np.clip(rng.normal(0, 0.25), -0.7, 0.7))
        stances.append(Stance(yaw, phase + advance * i, stride, arms, gaze, float(rng.normal(0.05, 0.02))))
    return tuple(stances)


def _heading(rng: np.random.Generator, flow: str) -> float:
    if flow == "any":
        return float(rng.uniform(-np.pi, np.pi))
    base = 0.0 if flow == "along" else np.pi / 2
    return float(base + np.pi * rng.integers(0, 2) + rng.normal(0, 0.35))
