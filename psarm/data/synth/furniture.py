"""Street furniture: what stands in the way between camera and people.

Drawn once a camera with the same tubes as people; lengths in metres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from psarm.data.synth import materials
from psarm.data.synth.appearance import Colour
from psarm.data.synth.body import View, point
from psarm.data.synth.cameras import Camera
from psarm.data.synth.drawing import Canvas, Floats, Material, Surface, Tube
from psarm.data.synth.figure import Sprite, cut_out
from psarm.data.synth.settings import Stream, SynthSettings

OVER = 2


@dataclass(frozen=True)
class Item:
    """One piece of furniture on the ground: kind, place (metres) and where its sprite must reach (metres)."""

    kind: str
    x: float
    z: float


STREETS: dict[str, tuple[Item, ...]] = {
    "shops": (
        Item("tree", -3.9, 10.4), Item("bench", -3.3, 8.0), Item("bin", 3.4, 7.2), Item("lamp", 3.9, 10.0),
        Item("planter", -2.6, 5.6), Item("tree", 4.2, 15.0), Item("tree", -4.1, 16.0), Item("board", 2.0, 9.0),
    ),
    "wall": (
        Item("bench", -2.2, 9.6), Item("bin", 2.6, 8.9), Item("bollard", -1.6, 5.4), Item("bollard", 0.4, 5.4),
        Item("bollard", 2.4, 5.4), Item("lamp", 3.9, 7.2), Item("planter", -4.0, 7.0),
    ),
    "park": (
        Item("tree", -3.2, 8.4), Item("tree", 4.6, 11.5), Item("bench", 3.2, 10.2), Item("bin", -1.6, 10.6),
        Item("tree", -6.0, 14.0), Item("lamp", 2.6, 7.2), Item("tree", 7.0, 15.0), Item("tree", 0.8, 17.0),
    ),
    "crossing": (
        Item("car", -5.4, 13.4), Item("car", 5.8, 13.4), Item("lamp", 3.2, 5.0), Item("bollard", -2.9, 4.95),
        Item("bollard", -1.2, 4.95), Item("tree", -8.5, 16.6), Item("tree", 1.5, 17.0), Item("tree", 9.5, 16.8),
    ),
    "square": (
        Item("planter", 1.6, 7.0), Item("bench", -2.6, 8.2), Item("lamp", -1.0, 10.5), Item("bin", 3.5, 9.6),
        Item("tree", 5.0, 13.0), Item("tree", -6.5, 13.5), Item("board", -1.9, 5.8), Item("car", 6.0, 17.0),
    ),
    "passage": (
        Item("board", 1.5, 6.0), Item("bin", -2.2, 5.6), Item("bench", 2.2, 8.4), Item("planter", -2.1, 8.0),
    ),
}  # fmt: skip


def draw_furniture(camera: Camera, settings: SynthSettings) -> list[tuple[float, Sprite]]:
    """(distance, sprite) of all furniture of a camera, far to near."""
    items = sorted(STREETS[camera.place], key=lambda item: -item.z)
    return [(item.z, _draw(item, index, camera, settings)) for index, item in enumerate(items)]


def _draw(item: Item, index: int, camera: Camera, settings: SynthSettings) -> Sprite:
    x, y, scale = camera.project(item.x, item.z, settings.width, settings.height)
    rng = settings.rng(Stream.BACKGROUND, camera.number, 2, index)
    half, high, low = (2.6, 5.6, 0.6) if item.kind in ("tree", "car") else (1.3, 4.6, 0.5)
    left, top = int(np.floor(x - half * scale)), int(np.floor(y - high * scale))
    width, height = int(2 * half * scale) + 2, int((high + low) * scale) + 2
    canvas = Canvas(width * OVER, height * OVER)
    view = View(scale * OVER, 0.0, camera.pitch(item.x, item.z), ((x - left) * OVER, (y - top) * OVER))
    for tube in _BUILDERS[item.kind](view, rng):
        canvas.draw(tube, camera.light)
    return cut_out(canvas, OVER, left, top, (x, y))


def _post(
    view: View, at: tuple[float, float], low: float, high: float, radius: float, material: Material, gloss: float = 0.0
) -> Tube:
    """An upright round post at (forward, left)."""
    ring = [(0.0, radius, radius), (1.0, radius, radius)]
    return view.tube(point(*at, high), point(*at, low), ring, material, (0.4, 0.1), gloss)


def _beam(view: View, forward: float, up: float, half: float, thick: float, deep: float, material: Material) -> Tube:
    """A beam across the view; its `thick` is what is seen of its height."""
    profile = [(0.0, thick, thick), (1.0, thick, thick)]
    tube = view.tube(point(forward, -half, up), point(forward, half, up), profile, material, (0.1, 0.1))
    return Tube(
        tube.start,
        tube.end,
        tube.at,
        tube.widths,
        np.full_like(tube.depths, deep * view.scale),
        material,
        caps=tube.caps,
        joint=True,
    )


def _bench(view: View, rng: np.random.Generator) -> list[Tube]:
    wood = materials.plain((0.18 + 0.1 * rng.random(), 0.32, 0.46))
    iron = materials.plain((0.16, 0.17, 0.16))
    legs = [_post(view, (f, s), 0.0, 0.44, 0.03, iron) for f in (-0.18, 0.18) for s in (-0.7, 0.7)]
    slats = [_beam(view, f, 0.45, 0.9, 0.025, 0.08, wood) for f in (-0.16, 0.0, 0.16)]
    return [*legs, *slats, *(_beam(view, -0.24, up, 0.9, 0.045, 0.03, wood) for up in (0.62, 0.76))]


def _bin(view: View, rng: np.random.Generator) -> list[Tube]:
    colour = ((0.20, 0.34, 0.16), (0.30, 0.30, 0.30), (0.42, 0.26, 0.14))[int(rng.integers(3))]
    drum = [(0.0, 0.23, 0.23), (0.15, 0.26, 0.26), (1.0, 0.21, 0.21)]
    lid = [(0.0, 0.18, 0.18), (1.0, 0.27, 0.27)]
    body = view.tube(point(0, 0, 0.82), point(0, 0, 0.04), drum, materials.pack(colour), (0.1, 0.15))
    return [body, view.tube(point(0, 0, 0.96), point(0, 0, 0.86), lid, materials.plain((0.15, 0.15, 0.15)), (0.2, 0.1))]


def _bollard(view: View, _: np.random.Generator) -> list[Tube]:
    white = materials.plain((0.80, 0.82, 0.82))
    return [
        _post(view, (0, 0), 0.0, 0.92, 0.085, materials.plain((0.22, 0.22, 0.23)), 0.2),
        _post(view, (0, 0), 0.70, 0.78, 0.090, white),
    ]


def _lamp(view: View, _: np.random.Generator) -> list[Tube]:
    iron = materials.plain((0.20, 0.21, 0.20))
    return [
        _post(view, (0, 0), 0.0, 0.6, 0.10, iron, 0.2),
        _post(view, (0, 0), 0.5, 4.2, 0.05, iron, 0.2),
        view.tube(
            point(0, 0, 4.5), point(0, 0, 4.2), [(0, 0.12, 0.12), (1, 0.2, 0.2)], materials.plain((0.8, 0.9, 0.95))
        ),
    ]


def _tree(view: View, rng: np.random.Generator) -> list[Tube]:
    bark = materials.strands((0.16, 0.22, 0.28), float(rng.random()) * 6)
    tubes = [
        view.tube(
            point(0, 0, 2.6), point(0, 0, 0), [(0, 0.11, 0.11), (0.8, 0.14, 0.14), (1, 0.2, 0.2)], bark, (0.2, 0.1)
        )
    ]
    green = (0.10 + 0.08 * rng.random(), 0.34 + 0.14 * rng.random(), 0.20 + 0.16 * rng.random())
    return tubes + _crown(view, rng, (0.0, 0.0, 3.8), (1.5, 1.5, 1.35), green, 120, 0.27)


def _crown(
    view: View,
    rng: np.random.Generator,
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    green: tuple[float, float, float],
    count: int,
    size: float,
) -> list[Tube]:
    """Leaves: a cloud of ragged balls."""
    tubes = []
    for _ in range(count):
        step = rng.normal(0, 1, 3)
        step *= rng.random() ** 0.33 / np.linalg.norm(step)
        spot = np.asarray(centre) + step * np.asarray(radii)
        radius = size * float(rng.uniform(0.6, 1.1))
        level = float(rng.uniform(0.75, 1.25))
        leaf = _leaves((green[0] * level, green[1] * level, green[2] * level), float(rng.random() * 6))
        ball = [(0.0, radius, radius), (1.0, radius, radius)]
        tubes.append(view.tube(spot + point(0, 0, 0.02), spot, ball, leaf))
    return tubes


def _leaves(colour: Colour, phase: float) -> Material:
    tone = np.asarray(colour, np.float32)

    def paint(surface: Surface) -> tuple[Floats, np.ndarray]:
        count = len(surface.across)
        grain = np.random.default_rng([int(phase * 1e6), count]).random(count).astype(np.float32)
        ragged = np.abs(surface.across) < 0.35 + 0.65 * grain
        return tone * (0.65 + 0.7 * grain)[:, None], ragged

    return paint


def _planter(view: View, rng: np.random.Generator) -> list[Tube]:
    pot = [(0.0, 0.46, 0.46), (0.12, 0.48, 0.48), (0.15, 0.44, 0.44), (1.0, 0.34, 0.34)]
    clay = materials.plain((0.44, 0.50, 0.56))
    tubes = [view.tube(point(0, 0, 0.55), point(0, 0, 0.02), pot, clay, (0.1, 0.1))]
    return tubes + _crown(view, rng, (0.0, 0.0, 0.75), (0.40, 0.40, 0.28), (0.14, 0.40, 0.26), 34, 0.15)


def _board(view: View, rng: np.random.Generator) -> list[Tube]:
    colour = tuple(float(c) for c in rng.uniform(0.2, 0.8, 3))
    frame = materials.plain((0.15, 0.20, 0.26))
    sheet = materials.pack((colour[0], colour[1], colour[2]))
    flat = [(0.0, 0.30, 0.02), (1.0, 0.34, 0.02)]
    return [
        view.tube(point(0.05, 0, 1.02), point(0.16, 0, 0.04), flat, frame, (0.02, 0.02), joint=True),
        view.tube(
            point(0.09, 0, 0.96),
            point(0.17, 0, 0.16),
            [(0, 0.25, 0.02), (1, 0.29, 0.02)],
            sheet,
            (0.02, 0.02),
            joint=True,
        ),
    ]


def _car(view: View, rng: np.random.Generator) -> list[Tube]:
    colour = ((0.62, 0.63, 0.64), (0.16, 0.16, 0.52), (0.42, 0.24, 0.12), (0.16, 0.16, 0.16))[int(rng.integers(4))]
    paint = materials.plain(colour)
    glass = materials.plain((0.26, 0.22, 0.18))
    rubber = materials.plain((0.08, 0.08, 0.08))
    body = [(0.0, 0.24, 0.5), (0.06, 0.32, 0.7), (0.5, 0.36, 0.75), (0.94, 0.33, 0.7), (1.0, 0.26, 0.5)]
    roof = [(0.0, 0.06, 0.3), (0.25, 0.30, 0.5), (0.75, 0.32, 0.5), (1.0, 0.10, 0.3)]
    panes = [(0.0, 0.02, 0.3), (0.2, 0.19, 0.56), (0.8, 0.20, 0.56), (1.0, 0.04, 0.3)]

    def lengthwise(
        start: float, end: float, up: float, sections: list[tuple[float, float, float]], m: Material
    ) -> Tube:
        high = np.asarray([s[1] for s in sections], np.float32) * np.float32(view.scale)
        deep = np.asarray([s[2] for s in sections], np.float32) * np.float32(view.scale)
        at = tuple(s[0] for s in sections)
        return Tube(
            view.project(point(0, start, up)),
            view.project(point(0, end, up)),
            at,
            high,
            deep,
            m,
            caps=(0.1, 0.1),
            gloss=0.25,
        )

    wheels = []
    for side in (-1.35, 1.35):
        hub = point(0.72, side, 0.31)
        ring = [(0.0, 0.31, 0.1), (1.0, 0.31, 0.1)]
        wheels.append(view.tube(hub + point(0, 0, 0.01), hub, ring, rubber))
        rim = [(0.0, 0.17, 0.12), (1.0, 0.17, 0.12)]
        wheels.append(
            view.tube(hub + point(0.02, 0, 0.01), hub + point(0.02, 0, 0), rim, materials.plain((0.5, 0.5, 0.5)))
        )
    return [
        lengthwise(-2.1, 2.1, 0.62, body, paint),
        lengthwise(-1.35, 1.15, 1.12, roof, paint),
        lengthwise(-1.15, 0.98, 1.12, panes, glass),
        *wheels,
    ]


_BUILDERS: dict[str, Callable[[View, np.random.Generator], list[Tube]]] = {
    "bench": _bench,
    "bin": _bin,
    "bollard": _bollard,
    "lamp": _lamp,
    "tree": _tree,
    "planter": _planter,
    "board": _board,
    "car": _car,
}
