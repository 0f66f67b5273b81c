"""What the ground, the walls and the ceiling of each place look like, as functions of where a ray lands on them.

Lengths are metres: on the ground X to the right and Z away, on a wall along it and up. Colours are BGR floats 0..1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from psarm.data.synth.drawing import Floats

Paint = Callable[[Floats, Floats, Floats], Floats]
"""(metres one way, metres the other way, noise table), all [n] but the table → colours [n,3]."""

TABLE = 256


@dataclass(frozen=True)
class Place:
    """The surfaces around a camera; a wall at None is not there."""

    ground: Paint
    wall: Paint
    back: float
    """Distance of the back wall in metres."""
    back_height: float
    left: float | None
    right: float | None
    side_height: float
    ceiling: bool
    """Whether the walls carry a roof instead of the sky."""
    sky: tuple[tuple[float, float, float], tuple[float, float, float]]
    """At the top and at the horizon."""


def noise_table(rng: np.random.Generator) -> Floats:
    """Smooth random numbers [TABLE,TABLE] that repeat without a seam, of about unit strength."""
    tiled = np.tile(rng.standard_normal((TABLE, TABLE)).astype(np.float32), (3, 3))
    middle = slice(TABLE, 2 * TABLE)
    return np.asarray(cv2.GaussianBlur(tiled, (0, 0), 1.0)[middle, middle] * np.float32(2.5), np.float32)


def noise(table: Floats, a: Floats, b: Floats) -> Floats:
    """Smooth noise of unit strength with features about one unit wide, of the same shape as `a`."""
    shape = a.shape
    row = np.mod(a * 2.0, TABLE).astype(np.float32).reshape(1, -1) if a.ndim == 1 else np.mod(a * 2.0, TABLE)
    column = np.mod(b * 2.0, TABLE).astype(np.float32).reshape(row.shape)
    i, j = row.astype(np.intp) % TABLE, column.astype(np.intp) % TABLE
    fi, fj = row - np.floor(row), column - np.floor(column)
    i1, j1 = (i + 1) % TABLE, (j + 1) % TABLE
    top = table[i, j] * (1 - fj) + table[i, j1] * fj
    low = table[i1, j] * (1 - fj) + table[i1, j1] * fj
    return np.asarray((top * (1 - fi) + low * fi).reshape(shape), np.float32)


def _grain(table: Floats, a: Floats, b: Floats) -> Floats:
    """Texture of a few sizes, about ±1."""
    mix = (
        0.5 * noise(table, a * 0.7, b * 0.7)
        + 0.35 * noise(table, a * 4.0, b * 4.0)
        + 0.3 * noise(table, a * 17, b * 17)
    )
    return np.asarray(mix, np.float32)


def _tone(colour: tuple[float, float, float], level: Floats) -> Floats:
    return np.asarray(np.asarray(colour) * level[:, None], np.float32)


def _paving(colour: tuple[float, float, float], tile: float) -> Paint:
    def paint(x: Floats, z: Floats, table: Floats) -> Floats:
        shade = 1.0 + 0.06 * _grain(table, x, z)
        odd = noise(table, np.floor(x / tile) * 3.7, np.floor(z / tile) * 5.3)
        line = np.minimum(np.mod(x / tile, 1.0), np.mod(z / tile, 1.0)) * tile
        sharp = np.exp(-z / 9.0)
        return _tone(colour, shade * (1.0 + 0.05 * odd) * (1.0 - 0.3 * sharp * (line < 0.025)))

    return paint


def _road(x: Floats, z: Floats, table: Floats) -> Floats:
    colours = _tone((0.36, 0.35, 0.35), 1.0 + 0.10 * _grain(table, x, z))
    crossing = (np.abs(z - 7.6) < 1.9) & (np.mod(x, 1.1) < 0.55)
    lane = (np.abs(z - 12.5) < 0.10) & (np.mod(x, 4.0) < 2.2)
    worn = 0.8 + 0.15 * noise(table, x * 3, z * 3)
    painted = crossing | lane
    colours[painted] = _tone((0.78, 0.80, 0.80), worn[painted])
    kerb = (z < 4.6) | (z > 16.0)
    colours[kerb] = _paving((0.52, 0.54, 0.55), 0.5)(x[kerb], z[kerb], table)
    colours[np.abs(z - 4.6) < 0.10] *= np.float32(0.75)
    return colours


def _grass_with_path(x: Floats, z: Floats, table: Floats) -> Floats:
    blades = 1.0 + 0.28 * _grain(table, x * 2.0, z * 2.0)
    colours = _tone((0.22, 0.40, 0.33), blades)
    colours += _tone((0.04, 0.10, 0.12), noise(table, x * 0.3, z * 0.3))
    bend = x - 0.9 * np.sin(z * 0.22)
    path = np.abs(bend) < 2.3 + 0.12 * noise(table, x * 2, z * 2)
    colours[path] = _tone((0.50, 0.57, 0.62), 1.0 + 0.10 * _grain(table, x, z))[path]
    cross = (np.abs(z - 9.0 - 0.2 * x) < 1.0) & ~path
    colours[cross] = _tone((0.50, 0.57, 0.62), 1.0 + 0.10 * _grain(table, x, z))[cross]
    return colours


def _facade(wall: tuple[float, float, float], bay: float, floor: float, shops: bool) -> Paint:
    """Storeys of windows; shop fronts on the ground floor or a plain plinth."""

    def paint(a: Floats, y: Floats, table: Floats) -> Floats:
        house = np.floor(a / (bay * 3.0))
        tint = noise(table, house * 7.1, house * 3.3)
        colours = _tone(wall, 1.0 + 0.05 * _grain(table, a, y) + 0.10 * tint)
        u, v = np.mod(a / bay, 1.0), np.mod((y - 0.6) / floor, 1.0)
        lit = noise(table, np.floor(a / bay) * 5.7, np.floor(y / floor) * 9.1)
        window = (np.abs(u - 0.5) < 0.27) & (v > 0.22) & (v < 0.80) & (y > floor if shops else y > 0.9)
        frame = (np.abs(u - 0.5) < 0.31) & (v > 0.19) & (v < 0.83) & (y > floor if shops else y > 0.9)
        colours[frame] = _tone((0.80, 0.82, 0.82), np.full(len(a), 0.9, np.float32))[frame]
        glass = _tone((0.40, 0.33, 0.26), 0.85 + 0.35 * lit + 0.3 * v)
        bar = (np.abs(u - 0.5) < 0.015) | (np.abs(v - 0.52) < 0.012)
        colours[window & ~bar] = glass[window & ~bar]
        if shops:
            _shop_fronts(colours, a, y, bay, floor, table)
        return np.clip(colours, 0.02, 1.0)

    return paint


def _shop_fronts(colours: Floats, a: Floats, y: Floats, bay: float, floor: float, table: Floats) -> None:
    u, shop = np.mod(a / (1.5 * bay), 1.0), np.floor(a / (1.5 * bay))
    front = (y < floor * 0.84) & (y > 0.25) & (np.abs(u - 0.5) < 0.45)
    # Behind the glass: a dim room with shelves of goods, and the sky's reflection above.
    item, shelf = np.floor(a / 0.35), np.floor(y / 0.55)
    goods = 0.5 + 0.35 * noise(table, item * 4.3, shelf * 7.7) + 0.15 * noise(table, shop * 3.1, shop * 1.7)
    room = _tone((0.30, 0.34, 0.38), 0.6 + 0.5 * goods + 0.12 * y)
    for channel in range(3):
        room[:, channel] *= 1.0 + 0.13 * noise(table, item * 6.1 + 31 * channel, shelf * 3.9)
    room[np.mod(y, 0.55) < 0.05] *= np.float32(0.6)
    colours[front] = room[front]
    sign = (y >= floor * 0.84) & (y < floor)
    for channel in range(3):
        level = 0.45 + 0.32 * noise(table, shop * 11.3 + channel * 17, shop * 2.9)
        colours[sign, channel] = np.clip(level, 0.08, 0.9)[sign]
    letters = sign & (np.abs(y - floor * 0.92) < 0.10) & (np.abs(u - 0.5) < 0.28) & (noise(table, a * 9.0, shop) > 0.0)
    colours[letters] = 0.88
    colours[front & (np.abs(u - 0.5) > 0.42)] *= np.float32(0.45)


def _brick(a: Floats, y: Floats, table: Floats) -> Floats:
    row = np.floor(y / 0.12)
    column = a / 0.36 + 0.5 * np.mod(row, 2.0)
    mortar = (np.mod(y / 0.12, 1.0) < 0.14) | (np.mod(column, 1.0) < 0.06)
    each = noise(table, np.floor(column) * 3.3, row * 5.1)
    colours = _tone((0.34, 0.40, 0.56), 1.0 + 0.12 * each + 0.05 * _grain(table, a, y))
    colours[mortar] *= np.float32(1.18)
    poster = (np.mod(a, 5.2) < 1.5) & (y > 0.9) & (y < 2.5)
    sheet = np.floor(a / 5.2)
    block = np.floor(np.mod(a, 5.2) / 0.5) + 3.0 * np.floor(y / 0.4)
    for channel in range(3):
        level = (
            0.60
            + 0.16 * noise(table, sheet * 9.1 + 23 * channel, sheet)
            + 0.12 * noise(table, block * 3.3, sheet * 5 + channel)
        )
        colours[poster, channel] = level[poster]
    edge = poster & ((np.mod(a, 5.2) < 0.06) | (np.mod(a, 5.2) > 1.44) | (y < 0.96) | (y > 2.44))
    colours[edge] = 0.2
    band = y > 3.0
    colours[band] = _tone((0.60, 0.62, 0.62), 1.0 + 0.05 * _grain(table, a, y))[band]
    return colours


def _hedge(a: Floats, y: Floats, table: Floats) -> Floats:
    leaves = 0.75 + 0.5 * _grain(table, a * 1.6, y * 1.6) + 0.05 * y
    colours = _tone((0.14, 0.32, 0.24), np.clip(leaves, 0.15, 1.8))
    trunk = (np.abs(np.mod(a + 0.4 * np.sin(y), 3.4) - 1.7) < 0.16) & (y < 2.6)
    colours[trunk] = _tone((0.16, 0.20, 0.25), 0.9 + 0.2 * noise(table, a * 9, y * 2))[trunk]
    return colours


def _concrete(a: Floats, y: Floats, table: Floats) -> Floats:
    colours = _tone((0.48, 0.49, 0.48), 1.0 + 0.08 * _grain(table, a, y))
    seam = (np.mod(a, 2.4) < 0.04) | (np.mod(y, 1.3) < 0.03)
    colours[seam] *= np.float32(0.7)
    stripe = (y > 1.1) & (y < 1.35)
    colours[stripe] = _tone((0.30, 0.50, 0.66), 1.0 + 0.05 * _grain(table, a, y))[stripe]
    lamp = (np.mod(a, 4.8) < 1.2) & (y > 2.75) & (y < 2.95)
    colours[lamp] = 0.95
    return colours


def ceiling(x: Floats, z: Floats, table: Floats) -> Floats:
    """Concrete slabs with a row of lamps."""
    colours = _tone((0.40, 0.41, 0.41), 1.0 + 0.06 * _grain(table, x, z))
    colours[np.mod(z, 1.2) < 0.05] *= np.float32(0.7)
    colours[(np.abs(x) < 0.12) & (np.mod(z, 3.0) < 1.8)] = 0.97
    return colours


def place_of(name: str) -> Place:
    """The surfaces around a camera, by `Camera.place`."""
    blue, pale, dusk = (0.86, 0.70, 0.52), (0.90, 0.88, 0.84), (0.52, 0.44, 0.46)
    grey = (0.84, 0.82, 0.80)
    ochre, cream, stone = (0.46, 0.62, 0.74), (0.66, 0.74, 0.80), (0.52, 0.55, 0.58)
    places = {
        "shops": Place(
            _paving((0.56, 0.60, 0.63), 0.6),
            _facade(ochre, 2.2, 3.4, True),
            46.0,
            16.0,
            -5.2,
            5.6,
            15.0,
            False,
            (blue, pale),
        ),
        "wall": Place(_paving((0.50, 0.51, 0.52), 0.4), _brick, 10.4, 8.0, None, None, 0.0, False, (grey, grey)),
        "park": Place(_grass_with_path, _hedge, 19.0, 5.5, None, None, 0.0, False, (blue, pale)),
        "crossing": Place(_road, _facade(cream, 2.6, 3.3, True), 19.5, 22.0, None, None, 0.0, False, (blue, pale)),
        "square": Place(
            _paving((0.44, 0.50, 0.56), 0.9),
            _facade(stone, 3.0, 3.8, False),
            22.0,
            30.0,
            -14.0,
            None,
            18.0,
            False,
            (dusk, dusk),
        ),
        "passage": Place(
            _paving((0.42, 0.43, 0.44), 0.3),
            _concrete,
            18.0,
            3.2,
            -2.9,
            2.9,
            3.2,
            True,
            ((0.30, 0.30, 0.30), (0.46, 0.46, 0.46)),
        ),
    }
    return places[name]
