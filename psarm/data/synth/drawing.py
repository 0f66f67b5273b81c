"""A small software renderer: tapered, shaded and textured tubes with a depth buffer.

A `Tube` is a body part: an axis between two points with a cross-section that changes along it. Every pixel of a tube
knows where it lies on the surface, so cloth patterns wrap around the body and turn with it.

Shapes: K pixels drawn of one tube. Screen: x right, y down, depth towards the camera, all in canvas pixels.
Colours are BGR floats in 0..1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Surface:
    """Where the pixels of a tube lie on its surface."""

    around: Floats
    """[K] radians in -π..π around the axis: 0 the body's front, positive to its left."""
    along: Floats
    """[K] 0 at the tube's top end, 1 at its bottom."""
    across: Floats
    """[K] -1..1 from the left to the right edge as seen."""


Material = Callable[[Surface], tuple[Floats, "NDArray[np.bool_] | None"]]
"""Surface → colours [K,3] and which pixels exist at all (None = all)."""


@dataclass(frozen=True)
class Light:
    """Sun and sky as seen from the camera."""

    direction: tuple[float, float, float]
    """Towards the sun: x right, y up, z towards the camera."""
    sun: tuple[float, float, float]
    sky: tuple[float, float, float]
    """Light from above; half of it comes back from the ground."""


@dataclass(frozen=True)
class Tube:
    """A body part.

    `start` and `end` are (x, y, depth); `widths` are half-widths across the view at the fractions `at` of the axis,
    `depths` half-depths towards the camera, all in pixels. `caps` say how far the ends are rounded off, as a
    fraction of the width there (1 = half a sphere, 0 = cut straight).
    """

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    at: tuple[float, ...]
    widths: Floats
    depths: Floats
    material: Material
    yaw: float = 0.0
    caps: tuple[float, float] = (1.0, 1.0)
    gloss: float = 0.0
    joint: bool = False
    """The ends are joints inside a limb: their rounding is not to be seen in the shading."""
    bias: float = 0.0
    """Pixels the tube counts as nearer than it is: loose cloth over what moves under it."""


class Canvas:
    """A picture of one person: colours, depth and (where depth is finite) coverage."""

    def __init__(self, width: int, height: int) -> None:
        self.colour: Floats = np.zeros((height, width, 3), np.float32)
        self.depth: Floats = np.full((height, width), -np.inf, np.float32)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """[H,W] the pixels something was drawn on."""
        return np.isfinite(self.depth)

    def draw(self, tube: Tube, light: Light) -> None:
        """Draw one tube; nearer pixels win."""
        profile = _Profile(tube)
        x0, x1, y0, y1 = profile.bounds(self.depth.shape)
        if x0 >= x1 or y0 >= y1:
            return
        dx = np.arange(x0, x1, dtype=np.float32) + np.float32(0.5 - tube.start[0])
        dy = (np.arange(y0, y1, dtype=np.float32) + np.float32(0.5 - tube.start[1]))[:, None]
        ax, ay = profile.axis
        t = dx * ax + dy * ay
        s = dx * ay - dy * ax
        row = profile.row(t)
        u = s / profile.width[row]
        ys, xs = np.nonzero((np.abs(u) < 1.0) & profile.inside(t))
        if len(ys) == 0:
            return
        row, u, t = row[ys, xs], u[ys, xs], t[ys, xs]
        facing = np.sqrt(1.0 - u * u)
        ys, xs = ys + y0, xs + x0
        depth = profile.middle[row] + profile.half_depth[row] * facing
        nearer = depth > self.depth[ys, xs]
        ys, xs, row, u, t, facing, depth = (a[nearer] for a in (ys, xs, row, u, t, facing, depth))
        along = np.minimum(np.maximum(t / profile.length, 0.0), 1.0)
        around = np.mod(np.arcsin(u) + np.float32(np.pi - tube.yaw), np.float32(2 * np.pi)) - np.float32(np.pi)
        colours, exists = tube.material(Surface(around, along, u))
        lit = colours * _shade(profile, row, u, facing, light, tube.gloss)
        if exists is not None:
            ys, xs, lit, depth = ys[exists], xs[exists], lit[exists], depth[exists]
        self.colour[ys, xs] = lit
        self.depth[ys, xs] = depth

    def shrunk(self, over: int) -> tuple[Floats, Floats]:
        """Colours [h,w,3] and coverage [h,w] 0..1 at 1/`over` of the canvas size."""
        height, width = self.depth.shape[0] // over, self.depth.shape[1] // over
        alpha = shrink(self.mask.astype(np.float32), width, height)
        colour = shrink(self.colour, width, height)
        return np.asarray(colour / np.maximum(alpha, 1e-3)[:, :, None], np.float32), alpha


def shrink(picture: Floats, width: int, height: int) -> Floats:
    """Average a picture [H,W] or [H,W,3] down to `width` x `height`."""
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.float32)


class _Profile:
    """A tube's cross-section, tabulated along its axis."""

    def __init__(self, tube: Tube) -> None:
        start, end = np.asarray(tube.start), np.asarray(tube.end)
        step = end[:2] - start[:2]
        self.length = max(float(np.hypot(*step)), 1e-3)
        axis = step / self.length if self.length > 1e-2 else np.array([0.0, 1.0])
        self.axis = (np.float32(axis[0]), np.float32(axis[1]))
        self.low = -tube.caps[0] * float(tube.widths[0])
        self.high = self.length + tube.caps[1] * float(tube.widths[-1])
        self.rate = 2.0 if self.high - self.low < 40 else 1.0
        ts = np.arange(int((self.high - self.low) * self.rate) + 2, dtype=np.float32) / self.rate + self.low
        v = np.clip(ts / self.length, 0.0, 1.0)
        round_off = np.ones_like(ts)
        for over, cap in ((-ts, -self.low), (ts - self.length, self.high - self.length)):
            if cap > 0:
                round_off *= np.sqrt(np.clip(1.0 - (np.maximum(over, 0.0) / cap) ** 2, 0.0, 1.0))
        straight = np.interp(v, tube.at, tube.widths)
        if len(tube.at) > 2:
            straight = _smooth(straight, max(1, int(0.08 * self.length * self.rate)))
        self.width = np.maximum(straight * round_off, 1e-3).astype(np.float32)
        self.half_depth = (np.interp(v, tube.at, tube.depths) * round_off).astype(np.float32)
        self.middle = (start[2] + tube.bias + (end[2] - start[2]) * v).astype(np.float32)
        # How far the surface turns towards the ends of the axis, and towards the camera where the axis leans.
        shaded = straight if tube.joint else self.width
        self.slope = np.zeros(len(ts), np.float32)
        self.slope[1:-1] = np.minimum(np.maximum((shaded[:-2] - shaded[2:]) * (self.rate / 2), -2.0), 2.0)
        self.tilt = np.float32(np.clip((end[2] - start[2]) / max(self.length, 1.0), -1.5, 1.5))
        self._start = (float(start[0]), float(start[1]))

    def row(self, t: Floats) -> NDArray[np.intp]:
        """Table rows of positions along the axis."""
        rows = np.minimum(np.maximum((t - self.low) * self.rate, 0), len(self.width) - 1)
        return np.asarray(rows, np.intp)

    def inside(self, t: Floats) -> NDArray[np.bool_]:
        """Which positions along the axis belong to the tube."""
        return (t >= self.low) & (t <= self.high)

    def bounds(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """x0, x1, y0, y1 of the pixels that can be touched, inside a canvas of `shape` (height, width)."""
        ax, ay = (float(a) for a in self.axis)
        widest = float(self.width.max())
        xs = [self._start[0] + t * ax for t in (self.low, self.high)]
        ys = [self._start[1] + t * ay for t in (self.low, self.high)]
        mx, my = widest * abs(ay) + 1, widest * abs(ax) + 1
        return (
            max(0, int(min(xs) - mx)),
            min(shape[1], int(max(xs) + mx) + 1),
            max(0, int(min(ys) - my)),
            min(shape[0], int(max(ys) + my) + 1),
        )


def _smooth(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Running mean that rounds the corners of a profile."""
    sums = np.cumsum(np.concatenate([np.full(window, values[0]), values, np.full(window, values[-1])]))
    return np.asarray((sums[2 * window :] - sums[: -2 * window]) / (2 * window), np.float64)


def _shade(profile: _Profile, row: NDArray[np.intp], u: Floats, facing: Floats, light: Light, gloss: float) -> Floats:
    """Light [K,3] on the surface: sun on the sunny side, sky from above, darker towards the edges."""
    ax, ay = profile.axis
    slope = profile.slope[row]
    nx = u * ay + slope * ax
    ny = u * ax - slope * ay  # up, not down
    nz = facing - profile.tilt * slope
    norm = 1.0 / np.sqrt(nx * nx + ny * ny + nz * nz)
    lx, ly, lz = light.direction
    sun = np.maximum((nx * lx + ny * ly + nz * lz) * norm, 0.0)
    sky = (0.76 + 0.24 * ny * norm) * (0.74 + 0.26 * facing)
    shade = sun[:, None] * np.asarray(light.sun, np.float32) + sky[:, None] * np.asarray(light.sky, np.float32)
    if gloss > 0:
        shade = shade + (gloss * sun**8)[:, None]
    return np.asarray(shade, np.float32)
