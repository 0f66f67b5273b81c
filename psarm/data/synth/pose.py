"""An articulated walking skeleton.

Body axes: forward, left, up, in units of the body height, feet on 0. Camera axes: x right, y up, z towards the
camera. `yaw` 0 faces the camera, +90° walks to the right of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

THIGH, SHIN, ANKLE = 0.242, 0.242, 0.042
UPPER_ARM, FOREARM, HAND = 0.168, 0.145, 0.055
SHOULDER_HEIGHT = 0.268  # above the hips
NECK_HEIGHT = 0.318
CHIN_HEIGHT = 0.350
HEAD_TOP = 0.478


@dataclass(frozen=True)
class Stance:
    """How a person moves at one moment."""

    yaw: float
    phase: float
    """Radians of the walking cycle: left leg forward at π/2."""
    stride: float
    """Swing of the thighs in radians; 0 stands."""
    arms: tuple[str, str] = ("swing", "swing")
    """Left and right: `swing`, `phone`, `pocket` or `carry`."""
    gaze: float = 0.0
    """Head turn against the body in radians."""
    lean: float = 0.04


@dataclass(frozen=True)
class Skeleton:
    """Joints in body axes (forward, left, up); limbs are tuples of joints from top to bottom, left then right."""

    hip: Vector
    neck: Vector
    chin: Vector
    crown: Vector
    arms: tuple[tuple[Vector, ...], tuple[Vector, ...]]
    """Shoulder, elbow, wrist, fingertips."""
    legs: tuple[tuple[Vector, ...], tuple[Vector, ...]]
    """Hip joint, knee, ankle, heel, toe."""
    spread: float
    """Largest forward distance of a knee from the hips: how far a skirt is pushed out."""


def pose_skeleton(stance: Stance, shoulders: float, hips: float) -> Skeleton:
    """Joint positions for one moment of the walk; `shoulders` and `hips` are half-widths of the joints."""
    legs = tuple(_leg(stance, side, hips) for side in (1.0, -1.0))
    lowest = min(min(leg[3][2], leg[4][2]) for leg in legs)
    up = np.array([0.0, 0.0, -lowest])
    trunk = np.array([np.sin(stance.lean), 0.0, np.cos(stance.lean)])
    hip = up.copy()
    shoulder_line = hip + SHOULDER_HEIGHT * trunk
    arms = tuple(_arm(stance, side, shoulder_line, shoulders) for side in (0, 1))
    head_tilt = np.array([np.sin(stance.lean * 0.3), 0.0, np.cos(stance.lean * 0.3)])
    neck = hip + NECK_HEIGHT * trunk
    lifted = tuple(tuple(joint + up for joint in leg) for leg in legs)
    return Skeleton(
        hip=hip,
        neck=neck,
        chin=neck + (CHIN_HEIGHT - NECK_HEIGHT) * head_tilt + np.array([0.012, 0.0, 0.0]),
        crown=neck + (HEAD_TOP - NECK_HEIGHT) * head_tilt + np.array([0.012, 0.0, 0.0]),
        arms=(arms[0], arms[1]),
        legs=(lifted[0], lifted[1]),
        spread=max(abs(float(leg[1][0])) for leg in legs),
    )


def _leg(stance: Stance, side: float, hips: float) -> tuple[Vector, ...]:
    """Hip joint, knee, ankle, heel and toe with the hips at height 0."""
    phase = stance.phase if side > 0 else stance.phase + np.pi
    thigh = stance.stride * np.sin(phase) + 0.06
    swing = max(0.0, np.cos(phase - 0.35))  # the leg that travels forward bends its knee
    knee = 0.07 + stance.stride * (1.9 * swing**1.5 + 0.25 * max(0.0, -np.sin(phase)))
    shin = thigh - knee
    root = np.array([0.0, side * hips, 0.0])
    joint = root + THIGH * np.array([np.sin(thigh), 0.012 * side, -np.cos(thigh)])
    ankle = joint + SHIN * np.array([np.sin(shin), 0.0, -np.cos(shin)])
    # Heel strike lifts the toe, push-off lifts the heel.
    tilt = 0.45 * shin if shin < 0 else 0.5 * max(0.0, thigh) * (1.0 - swing)
    out = 0.12 * side
    ahead = np.array([np.cos(tilt) * np.cos(out), np.sin(out), np.sin(tilt)])
    down = np.array([np.sin(tilt), 0.0, -np.cos(tilt)]) * ANKLE
    heel = ankle + down - 0.032 * ahead
    return root, joint, ankle, heel, ankle + down + 0.105 * ahead


def _arm(stance: Stance, side: int, shoulder_line: Vector, shoulders: float) -> tuple[Vector, ...]:
    """Shoulder, elbow, wrist and fingertips."""
    sign = 1.0 if side == 0 else -1.0
    style = stance.arms[side]
    swing = -sign * stance.stride * np.sin(stance.phase)
    upper, elbow, out, across = 0.85 * swing - 0.02, 0.22 + 0.55 * max(0.0, swing), 0.13, 0.0
    if style == "phone":
        upper, elbow, out, across = 0.30 + 0.1 * swing, 1.75, 0.16, 0.35
    elif style == "pocket":
        upper, elbow, out, across = -0.28, 0.62, 0.26, 0.30
    elif style == "carry":
        upper, elbow, out, across = 0.25 * swing, 0.10, 0.10, 0.0
    shoulder = shoulder_line + np.array([0.0, sign * shoulders, -0.008])
    bone = np.array([np.sin(upper) * np.cos(out), sign * np.sin(out), -np.cos(upper) * np.cos(out)])
    joint = shoulder + UPPER_ARM * bone
    lower = upper + elbow
    side_out = 0.3 * out - across
    bone = np.array([np.sin(lower) * np.cos(side_out), sign * np.sin(side_out), -np.cos(lower) * np.cos(side_out)])
    wrist = joint + FOREARM * bone
    return shoulder, joint, wrist, wrist + HAND * bone


def to_camera(point: Vector, yaw: float) -> Vector:
    """Body axes (forward, left, up) → camera axes (x right, y up, z towards the camera)."""
    forward, left, up = point
    return np.array([forward * np.sin(yaw) + left * np.cos(yaw), up, forward * np.cos(yaw) - left * np.sin(yaw)])
