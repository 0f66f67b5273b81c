"""One person drawn as a sprite: colours and soft coverage, with the ground point it stands on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from psarm.data.synth.appearance import Appearance
from psarm.data.synth.bags import bag_tubes
from psarm.data.synth.body import View, arm_tubes, leg_tubes, skirt_tubes, trunk_tubes
from psarm.data.synth.drawing import Canvas, Floats, Light
from psarm.data.synth.head import head_tubes
from psarm.data.synth.pose import Stance, pose_skeleton

# Half-width and extra height of the canvas, in body heights: room for stride, bags and hats.
SIDE, ABOVE, BELOW = 0.48, 1.12, 0.14


@dataclass(frozen=True)
class Sprite:
    """A cut-out picture at a place in the frame."""

    colour: Floats
    """[h,w,3] BGR 0..1, not multiplied by alpha."""
    alpha: Floats
    """[h,w] coverage 0..1."""
    left: int
    top: int
    foot: tuple[float, float]
    """Ground point in frame pixels."""


def draw_person(
    person: Appearance, stance: Stance, foot: tuple[float, float], pixels: float, pitch: float, light: Light
) -> Sprite:
    """Draw `person` with the ground point at `foot` (frame pixels) and `pixels` frame pixels a body height."""
    over = 2 if pixels > 60 else 3
    left, top = int(np.floor(foot[0] - SIDE * pixels)), int(np.floor(foot[1] - ABOVE * pixels))
    width, height = int(2 * SIDE * pixels) + 2, int((ABOVE + BELOW) * pixels) + 2
    canvas = Canvas(width * over, height * over)
    view = View(pixels * over, stance.yaw, pitch, ((foot[0] - left) * over, (foot[1] - top) * over))
    if person.bag == "handbag":
        stance = replace(stance, arms=("carry", stance.arms[1]))
    body = pose_skeleton(stance, 0.101 * person.shoulders * person.build**0.4, 0.050 * person.hips)
    tubes = leg_tubes(person, body, view) + skirt_tubes(person, body, view) + trunk_tubes(person, body, view)
    tubes += arm_tubes(person, body, view) + head_tubes(person, body, view, stance.gaze) + bag_tubes(person, body, view)
    # Nearest tubes first: hidden pixels are then never coloured.
    for tube in sorted(tubes, key=lambda tube: -(tube.start[2] + tube.end[2])):
        canvas.draw(tube, light)
    return cut_out(canvas, over, left, top, foot)


def cut_out(canvas: Canvas, over: int, left: int, top: int, foot: tuple[float, float]) -> Sprite:
    """The drawn part of a canvas of `over` times the frame's scale whose corner lies at `left`, `top` of the frame."""
    colour, alpha = canvas.shrunk(over)
    ys, xs = np.nonzero(alpha > 0.02)
    y0, y1, x0, x1 = int(ys.min()), int(ys.max()) + 1, int(xs.min()), int(xs.max()) + 1
    return Sprite(colour[y0:y1, x0:x1], alpha[y0:y1, x0:x1], left + x0, top + y0, foot)
