"""One frame: background, shadows and people put together, seen through the camera, with its annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from psarm.data.synth.background import paint_background
from psarm.data.synth.cameras import Camera, Shadow, camera_of
from psarm.data.synth.cast import NO_IDENTITY, Cast
from psarm.data.synth.drawing import Floats
from psarm.data.synth.figure import Sprite, draw_person
from psarm.data.synth.furniture import draw_furniture
from psarm.data.synth.plan import FramePlan, Placement
from psarm.data.synth.settings import Stream, SynthSettings

BOX_VISIBLE = 0.15
"""A person of whom less is visible gets no box."""
NOBODY = -1
IDENTITY_VISIBLE = 0.40
"""A person of whom less is visible gets a box, but no identity."""


@dataclass(frozen=True)
class Drawn:
    """A finished frame: BGR uint8 [H,W,3] and `box_new` rows [n,5] id, x, y, w, h."""

    image: NDArray[np.uint8]
    rows: NDArray[np.float64]


def draw_frame(plan: FramePlan, cast: Cast, settings: SynthSettings) -> Drawn:
    """Draw one planned frame; depends on the plan and the settings alone."""
    camera = camera_of(plan.camera)
    scene = _background(camera, settings).copy()
    order = sorted(plan.people, key=lambda placement: -placement.z)
    sprites = [_sprite(placement, cast, camera, settings) for placement in order]
    for sprite in sprites:
        _cast_shadow(scene, sprite, camera.shadow)
    owner = np.full(scene.shape[:2], NOBODY, np.int16)
    layers = [
        (placement.z, index, sprite) for index, (placement, sprite) in enumerate(zip(order, sprites, strict=True))
    ]
    layers += [(z, NOBODY, sprite) for z, sprite in _furniture(camera, settings)]
    for _, index, sprite in sorted(layers, key=lambda layer: -layer[0]):
        _paste(scene, owner, sprite, index)
    rows = [
        row
        for index, (placement, sprite) in enumerate(zip(order, sprites, strict=True))
        if (row := _annotate(sprite, owner, index, cast.pid(placement.person))) is not None
    ]
    image = _expose(scene, camera, plan, settings)
    return Drawn(image, np.asarray(rows, np.float64).reshape(-1, 5))


@lru_cache(maxsize=2)
def _background(camera: Camera, settings: SynthSettings) -> Floats:
    scene = paint_background(camera, settings)
    for _, sprite in _furniture(camera, settings):
        _cast_shadow(scene, sprite, camera.shadow)
    return scene


@lru_cache(maxsize=2)
def _furniture(camera: Camera, settings: SynthSettings) -> list[tuple[float, Sprite]]:
    return draw_furniture(camera, settings)


@lru_cache(maxsize=2)
def _noise(camera: Camera, settings: SynthSettings) -> NDArray[np.int16]:
    """A sheet of sensor noise larger than the frame; each frame takes another part of it."""
    rng = settings.rng(Stream.BACKGROUND, camera.number, 1)
    sheet = rng.normal(0.0, camera.noise, (settings.height + 64, settings.width + 64, 3))
    return np.rint(sheet).astype(np.int16)


def _sprite(placement: Placement, cast: Cast, camera: Camera, settings: SynthSettings) -> Sprite:
    person = cast.people[placement.person]
    x, y, scale = camera.project(placement.x, placement.z, settings.width, settings.height)
    return draw_person(
        person, placement.stance, (x, y), person.height * scale, camera.pitch(placement.x, placement.z), camera.light
    )


def _overlap(left: int, top: int, shape: Sequence[int], frame: Sequence[int]) -> tuple[slice, slice, slice, slice]:
    """Rows and columns of the frame covered by a patch, and the same in the patch."""
    y0, y1 = max(0, top), min(frame[0], top + shape[0])
    x0, x1 = max(0, left), min(frame[1], left + shape[1])
    y1, x1 = max(y0, y1), max(x0, x1)
    return slice(y0, y1), slice(x0, x1), slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)


def _paste(scene: Floats, owner: NDArray[np.int16], sprite: Sprite, index: int) -> None:
    rows, columns, own_rows, own_columns = _overlap(sprite.left, sprite.top, sprite.alpha.shape, scene.shape)
    alpha = sprite.alpha[own_rows, own_columns]
    scene[rows, columns] += alpha[:, :, None] * (sprite.colour[own_rows, own_columns] - scene[rows, columns])
    owner[rows, columns][alpha > 0.5] = index


def _cast_shadow(scene: Floats, sprite: Sprite, shadow: Shadow) -> None:
    """Darken the ground: the body's outline thrown to the side, and a soft patch under the feet."""
    height, width = sprite.alpha.shape
    foot_x, foot_y = sprite.foot[0] - sprite.left, sprite.foot[1] - sprite.top
    soft = max(0.6, shadow.softness * height)
    margin = int(3 * soft) + 2
    reach_x, reach_y = shadow.sideways * height, -shadow.back * height
    x0, x1 = min(0.0, reach_x) - margin, width + max(0.0, reach_x) + margin
    y0, y1 = foot_y + min(0.0, reach_y) - margin, foot_y + max(0.0, reach_y) + margin + 0.06 * height
    # patch = (x + sideways * (foot - y), foot - back * (foot - y)), moved by the patch's own origin
    move = np.array(
        [
            [1.0, -shadow.sideways, shadow.sideways * foot_y - x0],
            [0.0, shadow.back, foot_y * (1 - shadow.back) - y0],
        ]
    )
    size = (int(x1 - x0), int(y1 - y0))
    if abs(shadow.back) < 0.02:
        move[1, 1], move[1, 2] = 0.02, foot_y * 0.98 - y0
    patch = cv2.warpAffine(sprite.alpha, move, size, flags=cv2.INTER_LINEAR)
    contact = np.zeros_like(patch)
    centre = (int(foot_x - x0), int(foot_y - y0))
    radius = min(0.11 * height, 0.5 * width)
    cv2.ellipse(contact, centre, (max(1, int(radius)), max(1, int(0.3 * radius))), 0, 0, 360, 0.8, -1)
    patch = cv2.GaussianBlur(np.maximum(patch, contact), (0, 0), soft)
    left, top = round(sprite.left + x0), round(sprite.top + y0)
    rows, columns, own_rows, own_columns = _overlap(left, top, patch.shape, scene.shape)
    scene[rows, columns] *= 1.0 - shadow.darkness * patch[own_rows, own_columns, None]


def _annotate(sprite: Sprite, owner: NDArray[np.int16], index: int, pid: int) -> tuple[float, ...] | None:
    """Box of the whole body clipped to the frame; None when too little can be seen."""
    body = sprite.alpha > 0.5
    whole = int(body.sum())
    if whole == 0:
        return None
    rows, columns, own_rows, own_columns = _overlap(sprite.left, sprite.top, body.shape, owner.shape)
    visible = int((owner[rows, columns] == index).sum()) / whole
    if visible < BOX_VISIBLE:
        return None
    inside = body[own_rows, own_columns]
    ys, xs = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    x, y = float(columns.start + xs[0]), float(rows.start + ys[0])
    w, h = float(xs[-1] - xs[0] + 1), float(ys[-1] - ys[0] + 1)
    return float(pid if visible >= IDENTITY_VISIBLE else NO_IDENTITY), x, y, w, h


def _expose(scene: Floats, camera: Camera, plan: FramePlan, settings: SynthSettings) -> NDArray[np.uint8]:
    """What the camera makes of the scene: white balance, tone curve, blur and noise."""
    rng = settings.rng(Stream.FRAME, plan.camera, plan.sequence, plan.number)
    exposure = plan.exposure * float(rng.normal(1.0, 0.01))
    flat = np.clip(scene * 255.0, 0, 255).astype(np.uint8)
    levels = np.arange(256, dtype=np.float64)[:, None] / 255.0 * np.asarray(camera.gains) * exposure
    curve = 1.0 - np.exp(-1.3 * levels)  # highlights roll off
    table = 255.0 * np.clip(curve / (1.0 - np.exp(-1.3)), 0, 1) ** (camera.gamma * 1.2)
    image = cv2.LUT(flat, np.rint(np.clip(table, 0, 255)).astype(np.uint8).reshape(256, 1, 3))
    blur = camera.blur * settings.height
    if blur > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    top, left = (int(n) for n in rng.integers(0, 64, 2))
    noise = _noise(camera, settings)[top : top + settings.height, left : left + settings.width]
    return np.asarray(np.clip(image + noise, 0, 255), np.uint8)
