"""What surfaces look like: cloth with patterns and folds, skin, faces, hair.

Every function returns a `Material` (see drawing.py): surface coordinates in, BGR colours [K,3] out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from psarm.data.synth.appearance import Appearance, Colour, Garment
from psarm.data.synth.drawing import Floats, Material, Surface


def plain(colour: Colour) -> Material:
    """One colour."""
    tone = np.asarray(colour, np.float32)

    def paint(surface: Surface) -> tuple[Floats, None]:
        return np.broadcast_to(tone, (len(surface.along), 3)), None

    return paint


def skin(colour: Colour, shade: float = 1.0) -> Material:
    """Skin: warmer and darker towards the edges."""
    tone = np.asarray(colour, np.float32) * np.float32(shade)
    edge = tone * np.array([0.82, 0.86, 0.96], np.float32)

    def paint(surface: Surface) -> tuple[Floats, None]:
        mix = (surface.across**2)[:, None]
        return tone * (1 - mix) + edge * mix, None

    return paint


def cloth(garment: Garment, folds: tuple[float, ...], strength: float = 0.07, repeat: float = 1.0) -> Material:
    """A piece of patterned cloth, with folds; `repeat` scales the pattern to the tube's length."""

    def paint(surface: Surface) -> tuple[Floats, None]:
        colours = pattern(garment, surface, repeat)
        return colours * _folds(surface, folds, strength)[:, None], None

    return paint


def hanging(garment: Garment, folds: tuple[float, ...], open_front: bool) -> Material:
    """A skirt or coat tails: pleats that deepen towards the hem, a coat with its front edge."""

    def paint(surface: Surface) -> tuple[Floats, None]:
        around, along = surface.around, surface.along
        colours = pattern(garment, surface, 0.9)
        pleats = np.sin(9.0 * around + folds[2]) + 0.5 * np.sin(17.0 * around + folds[3])
        colours *= (1.0 + 0.11 * along * pleats)[:, None].astype(np.float32)
        if open_front:
            colours[np.abs(around) < 0.03 + 0.10 * np.maximum(0.0, along - 0.4)] *= np.float32(0.45)
        return colours * _folds(surface, folds, 0.06)[:, None], None

    return paint


def collar(garment: Garment) -> Material:
    """A turned-down collar, open at the throat."""
    tone = np.asarray(garment.colour, np.float32) * np.float32(0.9)

    def paint(surface: Surface) -> tuple[Floats, NDArray[np.bool_]]:
        throat = np.abs(surface.around) < 0.35 + 0.35 * (1.0 - surface.along)
        return np.broadcast_to(tone, (len(surface.along), 3)), ~throat

    return paint


def pattern(garment: Garment, surface: Surface, repeat: float = 1.0) -> Floats:
    """Colours [K,3] of a garment's pattern without folds."""
    count = len(surface.along)
    first, second = np.asarray(garment.colour, np.float32), np.asarray(garment.second, np.float32)
    bands = garment.repeat * repeat
    if garment.pattern == "stripes":
        chosen = np.mod(surface.along * bands, 1.0) < 0.42
    elif garment.pattern == "bars":
        chosen = np.mod(surface.around * bands * 0.32, 1.0) < 0.4
    elif garment.pattern == "checks":
        level = (np.mod(surface.along * bands, 1.0) < 0.45).astype(np.float32)
        level += np.mod(surface.around * bands * 0.27, 1.0) < 0.45
        return np.asarray(first + (second - first) * (0.5 * level)[:, None], np.float32)
    elif garment.pattern == "block":
        chosen = surface.along * repeat < 0.40
    elif garment.pattern == "logo" and repeat == 1.0:
        front = (np.abs(surface.around) < 0.55) & (surface.along > 0.26) & (surface.along < 0.48)
        back = (np.abs(surface.around) > np.pi - 0.8) & (surface.along > 0.20) & (surface.along < 0.30)
        chosen = front | back
    else:
        chosen = np.zeros(count, np.bool_)
    return np.where(chosen[:, None], second, first).astype(np.float32)


def upper_front(person: Appearance, strapped: bool) -> Material:
    """The torso's cloth: pattern, neckline or open front, zip, buttons, belt and bag straps."""
    garment, inner = person.upper, np.asarray(person.inner, np.float32)
    skin_tone = np.asarray(person.skin, np.float32)
    dark = np.float32(0.55)

    def paint(surface: Surface) -> tuple[Floats, None]:
        around, along = surface.around, surface.along
        colours = pattern(garment, surface)
        front = np.abs(around)
        if garment.kind in ("jacket", "coat"):
            opening = front < 0.34 - 0.26 * along if garment.kind == "coat" else front < 0.36 - 0.05 * along
            colours[opening] = inner
            colours[(front < 0.43 - 0.22 * along) & ~opening] *= dark
            colours[along < 0.06] *= np.float32(0.8)
        elif garment.kind == "shirt":
            colours[front < 0.035] *= np.float32(0.7)
            colours[(front < 0.5) & (along < 0.09)] *= np.float32(1.12)
        elif garment.kind == "hoodie":
            colours[(front < 0.6) & (along > 0.66) & (along < 0.88)] *= np.float32(0.84)
            colours[(front > 1.9) & (along < 0.20)] *= np.float32(0.82)
        neck = along < 0.045 + 0.075 * np.maximum(0.0, np.cos(around)) ** 3 * (garment.kind in ("tshirt", "dress"))
        if garment.kind != "hoodie":
            colours[neck & (front < 1.3)] = skin_tone
        if garment.kind == "dress":
            colours[(along > 0.70) & (along < 0.75)] *= np.float32(0.7)
        _straps(person, strapped, colours, around, along)
        return colours * _folds(surface, person.folds, 0.06)[:, None], None

    return paint


def _straps(person: Appearance, strapped: bool, colours: Floats, around: Floats, along: Floats) -> None:
    bag = np.asarray(person.bag_colour, np.float32) * np.float32(0.8)
    if strapped and person.bag == "backpack":
        front = np.abs(around)
        colours[(front > 0.50) & (front < 0.78) & (along < 0.55)] = bag
    elif strapped and person.bag == "shoulder":
        # From the right shoulder over the front to the left hip, and back up over the back.
        line = 0.42 + 0.38 * np.sin(around)
        colours[np.abs(along - line) < 0.045] = bag


def face(person: Appearance) -> Material:
    """The head's skin with eyes, brows, nose, mouth, beard and glasses."""
    tone = np.asarray(person.skin, np.float32)
    hair = np.asarray(person.hair, np.float32)

    def paint(surface: Surface) -> tuple[Floats, None]:
        around, along = surface.around, surface.along
        side = np.abs(around)
        colours = np.broadcast_to(tone, (len(along), 3)).copy()
        if person.beard:
            colours[(along > 0.70) & (side < 1.25) & ~((along < 0.80) & (side < 0.25))] = hair * 0.6 + tone * 0.4
        colours[(along > 0.56) & (along < 0.66) & (side < 0.13)] *= np.float32(0.86)
        colours[(np.abs(along - 0.76) < 0.022) & (side < 0.30)] *= np.array([0.62, 0.58, 0.80], np.float32)
        eye = ((side - 0.42) / 0.17) ** 2 + ((along - 0.50) / 0.035) ** 2 < 1.0
        colours[eye] = colours[eye] * np.float32(0.28)
        colours[(np.abs(side - 0.42) < 0.22) & (np.abs(along - 0.435) < 0.018)] = hair * 0.8 + tone * 0.2
        if person.glasses:
            rim = (np.abs(along - 0.50) < 0.06) & (side < 0.72)
            colours[rim] = colours[rim] * np.float32(0.45)
            colours[(np.abs(along - 0.47) < 0.012) & (side < 1.5)] = 0.06
        ear = ((side - 1.60) / 0.22) ** 2 + ((along - 0.55) / 0.10) ** 2 < 1.0
        colours[ear] *= np.array([0.74, 0.76, 0.88], np.float32)
        return colours, None

    return paint


def hair_shell(person: Appearance) -> Material:
    """Hair on the head: a shell that leaves the face free."""
    tone = np.asarray(person.hair, np.float32)
    side_down = {"short": 0.50, "crop": 0.44, "long": 0.98, "bob": 0.92, "bun": 0.56, "ponytail": 0.56}
    back_down = {"short": 0.80, "crop": 0.72, "long": 1.1, "bob": 1.1, "bun": 0.86, "ponytail": 0.86}
    side_end, back_end = side_down[person.hair_style], back_down[person.hair_style]
    phase = person.folds[0]

    def paint(surface: Surface) -> tuple[Floats, NDArray[np.bool_]]:
        around, along = surface.around, surface.along
        side = np.abs(around)
        hairline = 0.27 + 0.05 * np.sin(2.0 * around + phase)
        temples, nape = _ramp(side, 0.85, 1.20), _ramp(side, 1.70, 2.00)
        lower = hairline + (side_end - hairline) * temples + (back_end - side_end) * nape
        strands = 1.0 + 0.16 * np.sin(around * 19.0 + phase + 3.0 * np.sin(along * 5.0))
        return (tone * strands[:, None]).astype(np.float32), along < lower

    return paint


def strands(colour: Colour, phase: float) -> Material:
    """Long hair: streaks along the tube."""
    tone = np.asarray(colour, np.float32)

    def paint(surface: Surface) -> tuple[Floats, None]:
        streaks = 1.0 + 0.18 * np.sin(surface.across * 11.0 + phase + 1.5 * np.sin(surface.along * 4.0))
        return (tone * streaks[:, None]).astype(np.float32), None

    return paint


def trousers(person: Appearance, upper_leg: bool) -> Material:
    """A trouser leg: seams, faded thighs on jeans, creases at knee and ankle."""
    garment, folds = person.lower, person.folds
    tone = np.asarray(garment.colour, np.float32)

    def paint(surface: Surface) -> tuple[Floats, None]:
        around, along = surface.around, surface.along
        colours = np.broadcast_to(tone, (len(along), 3)).copy()
        if garment.kind == "jeans":
            middle = 0.6 if upper_leg else 0.1
            fade = 0.30 * np.exp(-((around / 0.7) ** 2) - ((along - middle) / 0.35) ** 2)
            colours += ((0.75 - colours) * fade[:, None]).astype(np.float32)
        seam = np.abs(np.abs(around) - np.pi / 2) < 0.07
        colours[seam] *= np.float32(0.8)
        knee = 1.0 - 0.10 * np.exp(-(((along - (1.0 if upper_leg else 0.0)) / 0.10) ** 2))
        return colours * (_folds(surface, folds, 0.08) * knee)[:, None].astype(np.float32), None

    return paint


def shoe(colour: Colour) -> Material:
    """A shoe with a pale or dark sole."""
    tone = np.asarray(colour, np.float32)
    sole = np.full(3, 0.78 if float(tone.mean()) > 0.25 else 0.16, np.float32)

    def paint(surface: Surface) -> tuple[Floats, None]:
        return np.where((np.abs(surface.across) > 0.72)[:, None], (sole + tone) / 2, tone).astype(np.float32), None

    return paint


def pack(colour: Colour) -> Material:
    """A bag with a darker flap and pocket."""
    tone = np.asarray(colour, np.float32)

    def paint(surface: Surface) -> tuple[Floats, None]:
        along, back = surface.along, np.abs(surface.around) > np.pi / 2
        level = np.ones(len(along), np.float32)
        level[along < 0.24] = 0.82
        level[np.abs(along - 0.25) < 0.02] = 0.5
        pocket = back & (along > 0.52) & (along < 0.9)
        level[pocket] = 1.14
        level[pocket & (along < 0.555)] = 0.5
        return tone * level[:, None], None

    return paint


def _ramp(value: Floats, low: float, high: float) -> Floats:
    return np.asarray(np.clip((value - low) / (high - low), 0.0, 1.0), np.float32)


def _folds(surface: Surface, phases: tuple[float, ...], strength: float) -> Floats:
    """Brightness [K] of soft folds."""
    around, along = surface.around, surface.along
    waves = np.sin(3.0 * around + 7.0 * along + phases[0]) * np.sin(5.0 * along + phases[1])
    waves += 0.7 * np.sin(6.0 * around - 11.0 * along + phases[2] + 2.0 * np.sin(4.0 * along + phases[3]))
    # Creases are narrow and dark, the cloth between them broad and bright.
    waves -= 1.6 * np.maximum(0.0, np.sin(2.0 * around + 19.0 * along + phases[4] + 1.5 * np.sin(3.0 * around))) ** 6
    return np.asarray(1.0 + strength * waves, np.float32)
