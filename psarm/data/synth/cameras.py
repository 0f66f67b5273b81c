"""The six cameras: where they hang, how they see, and in which light.

Ground coordinates are metres: X to the right, Z away from the camera. All image lengths are fractions of the frame
height, so a camera sees the same scene at every frame size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from psarm.data.synth.drawing import Light


@dataclass(frozen=True)
class Shadow:
    """How a body's shadow falls on the ground."""

    sideways: float
    """Frame pixels to the right for each pixel of body height."""
    back: float
    """Frame pixels up (away from the camera) for each pixel of body height."""
    darkness: float
    softness: float
    """Blur as a fraction of the body height."""


@dataclass(frozen=True)
class Camera:
    """One fixed camera."""

    number: int
    place: str
    """`shops`, `wall`, `park`, `crossing`, `square` or `passage`: what stands around (see background.py)."""
    focal: float
    horizon: float
    mast: float
    """Metres above the ground."""
    near: float
    far: float
    """People walk at distances near…far (metres)."""
    reach: float
    """People walk at most this far to either side (metres): walls stand beyond."""
    flow: str
    """Main walking direction: `along` the view, `across` it, or `any`."""
    light: Light
    shadow: Shadow
    gains: tuple[float, float, float]
    """White balance and exposure: factors of blue, green and red."""
    gamma: float
    noise: float
    """Standard deviation in grey levels."""
    blur: float
    """Standard deviation as a fraction of the frame height."""
    quality: int
    """JPEG quality."""

    def project(self, x: float, z: float, width: int, height: int) -> tuple[float, float, float]:
        """Ground point → (column, row, pixels a metre there)."""
        scale = self.focal * height / z
        return width / 2 + scale * x, self.horizon * height + scale * self.mast, scale

    def half_width(self, z: float, aspect: float) -> float:
        """Metres to each side where people can walk in view at distance `z`; `aspect` = frame width / height."""
        return min(self.reach, z * aspect / (2 * self.focal))

    def pitch(self, x: float, z: float) -> float:
        """How steeply the camera looks down on a person at a ground point, radians."""
        return float(np.arctan2(self.mast - 0.9, np.hypot(x, z)))


def camera_of(number: int) -> Camera:
    """Camera 1…6."""
    return _CAMERAS[number - 1]


def _light(
    direction: tuple[float, float, float], sun: tuple[float, float, float], sky: tuple[float, float, float]
) -> Light:
    length = float(np.linalg.norm(direction))
    x, y, z = (d / length for d in direction)
    return Light((x, y, z), sun, sky)


_CAMERAS = (
    Camera(
        1, "shops", 1.30, 0.22, 2.7, 4.8, 11.5, 4.6, "along",
        _light((0.65, 0.62, 0.45), (0.56, 0.66, 0.72), (0.58, 0.54, 0.50)),
        Shadow(-0.75, 0.10, 0.45, 0.015), (0.92, 1.00, 1.06), 1.00, 3.0, 0.0006, 92,
    ),
    Camera(
        2, "wall", 1.55, 0.27, 2.3, 5.0, 9.0, 99.0, "across",
        _light((-0.30, 0.90, 0.40), (0.24, 0.23, 0.22), (0.92, 0.86, 0.78)),
        Shadow(0.15, -0.03, 0.30, 0.05), (1.14, 0.98, 0.84), 0.92, 4.0, 0.0010, 88,
    ),
    Camera(
        3, "park", 1.60, 0.08, 3.8, 6.2, 12.5, 99.0, "any",
        _light((-0.75, 0.55, 0.30), (0.52, 0.68, 0.76), (0.52, 0.54, 0.44)),
        Shadow(0.80, 0.22, 0.48, 0.012), (0.86, 1.06, 0.98), 1.06, 3.0, 0.0008, 90,
    ),
    Camera(
        4, "crossing", 1.25, 0.13, 3.2, 5.2, 11.0, 99.0, "across",
        _light((0.40, 0.55, -0.55), (0.62, 0.74, 0.84), (0.60, 0.54, 0.48)),
        Shadow(-0.45, -0.30, 0.42, 0.015), (0.98, 1.08, 1.20), 0.90, 2.5, 0.0006, 90,
    ),
    Camera(
        5, "square", 1.42, 0.18, 3.0, 5.3, 11.5, 99.0, "any",
        _light((-0.20, 0.85, 0.50), (0.30, 0.46, 0.60), (0.34, 0.40, 0.46)),
        Shadow(0.30, 0.12, 0.35, 0.03), (0.78, 0.90, 1.02), 1.02, 6.0, 0.0012, 84,
    ),
    Camera(
        6, "passage", 1.15, 0.28, 2.2, 3.7, 8.8, 2.45, "along",
        _light((0.15, 0.80, 0.60), (0.36, 0.36, 0.34), (0.62, 0.56, 0.50)),
        Shadow(-0.12, 0.05, 0.35, 0.04), (1.08, 0.96, 0.92), 1.16, 5.0, 0.0016, 80,
    ),
)  # fmt: skip
