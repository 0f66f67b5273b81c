"""A person as tubes: trunk, limbs and clothes put on a skeleton and projected to the picture.

Lengths are in units of the body height until `View` turns them into canvas pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from psarm.data.synth import materials
from psarm.data.synth.appearance import Appearance
from psarm.data.synth.drawing import Material, Tube
from psarm.data.synth.pose import THIGH, Skeleton, Vector, to_camera

LOOSE = {"tshirt": 0.004, "shirt": 0.003, "jacket": 0.011, "coat": 0.013, "hoodie": 0.012, "dress": 0.002}


@dataclass(frozen=True)
class View:
    """From body axes to canvas pixels."""

    scale: float
    """Canvas pixels of one body height."""
    yaw: float
    pitch: float
    """How steeply the camera looks down, radians."""
    foot: tuple[float, float]
    """Canvas position of the ground point under the body."""

    def project(self, point: Vector) -> tuple[float, float, float]:
        """Body axes (forward, left, up) → canvas (x, y, depth) in pixels."""
        x, y, z = to_camera(point, self.yaw) * self.scale
        sin, cos = np.sin(self.pitch), np.cos(self.pitch)
        return self.foot[0] + float(x), self.foot[1] + float(z * sin - y * cos), float(z * cos + y * sin)

    def tube(
        self,
        start: Vector,
        end: Vector,
        sections: Sequence[tuple[float, float, float]],
        material: Material,
        caps: tuple[float, float] = (1.0, 1.0),
        gloss: float = 0.0,
        turn: float = 0.0,
        joint: bool = False,
        bias: float = 0.0,
    ) -> Tube:
        """A tube with elliptical `sections` (fraction of the axis, half-width to the left, half-depth forward)."""
        at, left, forward = (np.asarray(column, np.float64) for column in zip(*sections, strict=True))
        yaw = self.yaw + turn
        wide = np.hypot(left * np.cos(yaw), forward * np.sin(yaw)) * self.scale
        deep = np.hypot(left * np.sin(yaw), forward * np.cos(yaw)) * self.scale
        return Tube(
            self.project(start),
            self.project(end),
            tuple(at),
            wide.astype(np.float32),
            deep.astype(np.float32),
            material,
            yaw,
            caps,
            gloss,
            joint,
            bias * self.scale,
        )


def point(forward: float, left: float, up: float) -> Vector:
    """A point or offset in body axes."""
    return np.array([forward, left, up])


def trunk_tubes(person: Appearance, body: Skeleton, view: View) -> list[Tube]:
    """Neck, torso in the upper garment, and pelvis in the lower one."""
    b, s, h, belly = person.build, person.shoulders, person.hips, person.belly
    loose = LOOSE[person.upper.kind]
    hem = body.hip + point(0, 0, -0.015 if person.upper.kind in ("tshirt", "shirt") else -0.045)
    sections = [
        (0.00, 0.036 * b, 0.036),
        (0.04, 0.058 * s, 0.044),
        (0.09, 0.090 * s, 0.052),
        (0.15, 0.110 * s + 0.5 * loose, 0.059),
        (0.22, 0.115 * s * b**0.4 + loose, 0.064 * b + loose),
        (0.36, 0.110 * s * b**0.7 + loose, 0.069 * b + loose),
        (0.58, 0.092 * b + loose, 0.062 * b * belly + loose),
        (0.72, 0.087 * b * h**0.5 + loose, 0.062 * b * belly + loose),
        (1.00, 0.100 * b * h + loose, 0.076 * b + loose),
    ]
    if person.upper.kind == "hoodie":
        sections[-1] = (1.0, 0.094 * b * h + loose, 0.068 * b + loose)
    upper = view.tube(
        body.neck + point(-0.006, 0, 0.004), hem, sections, materials.upper_front(person, True), (0.3, 0.12), bias=0.010
    )
    lower = person.lower
    pelvis_material = (
        materials.trousers(person, True) if lower.kind != "skirt" else materials.cloth(lower, person.folds)
    )
    pelvis = view.tube(
        body.hip + point(0, 0, 0.06),
        body.hip + point(0, 0, -0.050),
        [(0.0, 0.086 * b, 0.058 * b), (0.5, 0.098 * b * h, 0.068 * b), (1.0, 0.095 * b * h, 0.060 * b)],
        pelvis_material,
        (0.2, 0.18),
        joint=True,
    )
    neck = view.tube(
        body.chin + point(-0.016, 0, 0.02),
        body.neck + point(-0.008, 0, -0.01),
        [(0.0, 0.027 * b**0.5, 0.030), (1.0, 0.033 * b**0.5, 0.034)],
        materials.skin(person.skin, 0.82),
    )
    return [neck, pelvis, upper, *_collar_tubes(person, body, view)]


def _collar_tubes(person: Appearance, body: Skeleton, view: View) -> list[Tube]:
    """A collar around the neck, or a hood hanging behind it."""
    kind, wide = person.upper.kind, person.build**0.5
    if kind in ("shirt", "jacket", "coat"):
        ring = [(0.0, 0.035 * wide, 0.039), (1.0, 0.049 * wide, 0.050)]
        top, low = body.neck + point(-0.008, 0, 0.022), body.neck + point(-0.004, 0, -0.016)
        return [view.tube(top, low, ring, materials.collar(person.upper), (0.05, 0.1))]
    if kind == "hoodie":
        bulge = [(0.0, 0.046, 0.024), (0.4, 0.064, 0.034), (1.0, 0.040, 0.022)]
        top, low = body.neck + point(-0.040, 0, 0.012), body.neck + point(-0.062, 0, -0.050)
        return [view.tube(top, low, bulge, materials.cloth(person.upper, person.folds, 0.12, 0.3))]
    return []


def arm_tubes(person: Appearance, body: Skeleton, view: View) -> list[Tube]:
    """Sleeves, bare arms and hands."""
    tubes = []
    loose = LOOSE[person.upper.kind] * 0.75 + 0.002
    thick = person.build**0.8
    sleeve = materials.cloth(person.upper, person.folds, 0.08, 0.52)
    bare = materials.skin(person.skin)
    for shoulder, elbow, wrist, tips in body.arms:
        upper = [(0.0, 0.031 * thick, 0.033 * thick), (1.0, 0.024 * thick, 0.024 * thick)]
        fore = [(0.0, 0.024 * thick, 0.024 * thick), (0.3, 0.024 * thick, 0.024 * thick), (1.0, 0.016, 0.016)]
        wide_upper = [(at, w + loose, d + loose) for at, w, d in upper]
        wide_fore = [(at, w + loose, d + loose) for at, w, d in fore]
        if person.sleeves == "long":
            tubes.append(view.tube(shoulder, elbow, wide_upper, sleeve, (0.9, 0.8)))
            tubes.append(view.tube(elbow, wrist, wide_fore, sleeve, (0.9, 0.15), joint=True))
        else:
            cut = shoulder + 0.62 * (elbow - shoulder)
            tubes.append(view.tube(shoulder, elbow, upper, bare))
            tubes.append(
                view.tube(
                    shoulder,
                    cut,
                    [(0, 0.036 * thick, 0.036 * thick), (1, 0.034 * thick, 0.034 * thick)],
                    sleeve,
                    (0.9, 0.1),
                )
            )
            tubes.append(view.tube(elbow, wrist, fore, bare, joint=True))
        hand = [(0.0, 0.014, 0.014), (0.45, 0.018, 0.020), (1.0, 0.010, 0.012)]
        tubes.append(view.tube(wrist, tips, hand, materials.skin(person.skin, 0.96)))
    return tubes


def leg_tubes(person: Appearance, body: Skeleton, view: View) -> list[Tube]:
    """Legs in trousers, shorts or bare under a skirt, and shoes."""
    tubes = []
    b = person.build**0.9
    loose = 0.009 if person.lower.kind == "trousers" else 0.005
    bare = materials.skin(person.skin)
    thigh_bare = [(0.0, 0.050 * b, 0.056 * b), (0.25, 0.049 * b, 0.054 * b), (1.0, 0.033 * b, 0.035 * b)]
    shin_bare = [(0.0, 0.032 * b, 0.034 * b), (0.3, 0.033 * b, 0.037 * b), (1.0, 0.019 * b, 0.021 * b)]
    for hip, knee, ankle, heel, toe in body.legs:
        if person.lower.kind in ("trousers", "jeans"):
            wide = [(at, w + loose, d + loose) for at, w, d in thigh_bare]
            tubes.append(view.tube(hip, knee, wide, materials.trousers(person, True), (0.25, 0.9), joint=True))
            shin = [(0.0, 0.033 * b + loose, 0.035 * b + loose), (0.35, 0.033 * b + loose, 0.036 * b + loose)]
            shin.append((1.0, 0.025 * b + loose, 0.028 * b + loose))
            tubes.append(
                view.tube(
                    knee, ankle + point(0, 0, -0.012), shin, materials.trousers(person, False), (0.9, 0.1), joint=True
                )
            )
        else:
            tubes.append(view.tube(hip, knee, thigh_bare, bare, joint=True))
            tubes.append(view.tube(knee, ankle, shin_bare, bare, joint=True))
            if person.lower.kind == "shorts":
                cut = hip + 0.82 * (knee - hip)
                wide = [(0.0, 0.060 * b, 0.062 * b), (1.0, 0.052 * b, 0.054 * b)]
                tubes.append(view.tube(hip, cut, wide, materials.trousers(person, True), (0.25, 0.05), joint=True))
        sole = [(0.0, 0.019, 0.019), (0.35, 0.021, 0.022), (0.75, 0.023, 0.019), (1.0, 0.014, 0.012)]
        lift = point(0, 0, 0.016)
        tubes.append(view.tube(heel + lift, toe + lift, sole, materials.shoe(person.shoes), (0.8, 0.8), 0.15))
        tubes.append(
            view.tube(
                ankle + point(0, 0, 0.012),
                heel + lift + 0.25 * (toe - heel),
                [(0.0, 0.021, 0.024), (1.0, 0.022, 0.026)],
                materials.shoe(person.shoes),
            )
        )
    return tubes


def skirt_tubes(person: Appearance, body: Skeleton, view: View) -> list[Tube]:
    """What hangs from the waist around the legs: a skirt, a dress's lower half or a coat's tails."""
    b, h = person.build, person.hips
    if person.upper.kind == "coat":
        garment, length, flare, top = person.upper, 0.19 + 0.03 * np.sin(person.folds[4]), 0.018, 0.014
    elif person.lower.kind == "skirt":
        garment, length, flare, top = person.lower, 0.21 + 0.05 * np.sin(person.folds[4]), 0.030, 0.006
        if person.upper.kind == "dress":
            garment = person.upper
    else:
        return []
    reach = max(0.074 * b, body.spread * min(1.0, length / THIGH) + 0.045)
    sections = [
        (0.0, 0.088 * b * h**0.5 + top, 0.062 * b + top),
        (0.30, 0.101 * b * h + top, 0.078 * b + top),
        (1.0, 0.101 * b * h + top + flare, reach + top + 0.5 * flare),
    ]
    material = materials.hanging(garment, person.folds, person.upper.kind == "coat")
    start = body.hip + point(0, 0, 0.07)
    return [view.tube(start, body.hip + point(0, 0, -length), sections, material, (0.1, 0.08), bias=0.035)]
