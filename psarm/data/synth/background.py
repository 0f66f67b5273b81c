"""The empty scene of each camera: every pixel coloured from where its ray meets ground, walls or sky.

Lengths are metres: X right, Y up, Z away from the camera. Drawn at twice the frame size and shrunk.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from psarm.data.synth.cameras import Camera
from psarm.data.synth.drawing import Floats, shrink
from psarm.data.synth.settings import Stream, SynthSettings
from psarm.data.synth.surfaces import Place, ceiling, noise, noise_table, place_of

OVER = 2


def paint_background(camera: Camera, settings: SynthSettings) -> Floats:
    """The empty scene [H,W,3] of a camera, BGR 0..1 before the camera's own colour treatment."""
    rays = _Rays(camera, settings)
    place, table = rays.place, rays.table
    rays.sky()
    rays.wall(np.full(rays.distance.shape, place.back, np.float32), place.back_height, facing=True)
    for side in (place.left, place.right):
        if side is not None:
            rays.wall(_divide(side, rays.x), place.side_height, facing=False)
    hit, z = rays.nearer(_divide(camera.mast, rays.y))
    rays.picture[hit] = rays.haze(place.ground(rays.x[hit] * z, z, table), z)
    if place.ceiling:
        hit, z = rays.nearer(_divide(camera.mast - place.side_height, rays.y))
        rays.picture[hit] = ceiling(rays.x[hit] * z, z, table)
    return shrink(rays.picture, settings.width, settings.height)


def _divide(length: float, slope: Floats) -> Floats:
    """Distance at which rays of a slope have gone `length` sideways or down; infinite when they go the other way."""
    with np.errstate(divide="ignore"):
        return np.where(slope * length > 0, length / slope, np.inf).astype(np.float32)


class _Rays:
    """One ray a pixel: its slopes (right and down for each metre away), what it met so far and how far."""

    def __init__(self, camera: Camera, settings: SynthSettings) -> None:
        width, height = settings.width * OVER, settings.height * OVER
        focal = camera.focal * height
        across = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / focal
        down = (np.arange(height, dtype=np.float32) + 0.5 - camera.horizon * height) / focal
        self.x: Floats = np.broadcast_to(across.astype(np.float32), (height, width))
        self.y: Floats = np.broadcast_to(down.astype(np.float32)[:, None], (height, width))
        self.mast = camera.mast
        self.place: Place = place_of(camera.place)
        self.table = noise_table(settings.rng(Stream.BACKGROUND, camera.number))
        self.distance: Floats = np.full((height, width), np.inf, np.float32)
        self.picture: Floats = np.zeros((height, width, 3), np.float32)

    def sky(self) -> None:
        """Fill the picture with the sky's gradient and clouds."""
        up = np.clip(-self.y * 2.5, 0.0, 1.0)[:, :, None]
        top, low = (np.asarray(colour, np.float32) for colour in self.place.sky)
        wisps = 0.5 * noise(self.table, self.x * 9.0, self.y * 25.0)
        clouds = np.clip(noise(self.table, self.x * 3.0, self.y * 9.0) + wisps, 0, 1)
        clear = low * (1 - up) + top * up
        self.picture[:] = clear + (0.93 - clear) * (0.6 * clouds)[:, :, None]

    def nearer(self, reach: Floats) -> tuple[NDArray[np.bool_], Floats]:
        """Where rays meet a surface at `reach` before anything else, and the distances there."""
        hit = reach < self.distance
        return hit, reach[hit]

    def wall(self, reach: Floats, top: float, facing: bool) -> None:
        """Paint an upright wall of height `top` that faces the camera or runs along the view."""
        with np.errstate(invalid="ignore"):
            height = self.mast - self.y * reach
            hit = (reach < self.distance) & (reach > 0.3) & (height >= 0) & (height < top)
        z, up = reach[hit], height[hit]
        # Side walls start their pattern elsewhere, so that they do not repeat the back wall's.
        colours = self.place.wall(self.x[hit] * z if facing else z + np.float32(40.0), up, self.table)
        if not facing:
            colours = colours * np.where(self.x[hit] > 0, np.float32(0.78), np.float32(0.92))[:, None]
        grime = (1.0 - 0.3 * np.exp(-up / 0.25)).astype(np.float32)
        self.picture[hit] = self.haze(colours * grime[:, None], z)
        self.distance[hit] = z

    def haze(self, colours: Floats, z: Floats) -> Floats:
        """Far things fade into the colour of the horizon."""
        far = (1.0 - np.exp(-np.maximum(z - 10.0, 0.0) / 90.0)).astype(np.float32)[:, None]
        return np.asarray(colours * (1 - far) + np.asarray(self.place.sky[1], np.float32) * far, np.float32)
