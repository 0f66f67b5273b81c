"""What a person looks like: body, hair, skin, clothes and what they carry.

Identities come in families of four that share two clothing colours in different arrangements (top and trousers
swapped, stripes for plain, a bag or a hat more), so that a colour histogram alone cannot tell them apart.
Colours are BGR floats in 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

Colour = tuple[float, float, float]

FAMILY = 4

CLOTH: tuple[Colour, ...] = (
    (0.16, 0.15, 0.15),  # black
    (0.86, 0.87, 0.88),  # white
    (0.47, 0.46, 0.45),  # grey
    (0.16, 0.14, 0.66),  # red
    (0.55, 0.28, 0.14),  # blue
    (0.40, 0.23, 0.15),  # navy
    (0.24, 0.46, 0.16),  # green
    (0.20, 0.34, 0.36),  # olive
    (0.16, 0.66, 0.84),  # yellow
    (0.14, 0.42, 0.86),  # orange
    (0.55, 0.33, 0.80),  # pink
    (0.46, 0.18, 0.38),  # purple
    (0.52, 0.66, 0.74),  # beige
    (0.16, 0.26, 0.40),  # brown
    (0.80, 0.66, 0.42),  # sky
    (0.52, 0.52, 0.18),  # teal
)
# Streets are mostly neutral, trousers more than tops.
TOP_WEIGHTS = (9, 11, 8, 9, 8, 7, 6, 5, 5, 5, 5, 4, 6, 4, 5, 4)
BOTTOM_WEIGHTS = (14, 6, 10, 4, 13, 12, 3, 7, 2, 2, 2, 2, 11, 7, 3, 2)
SKIN: tuple[Colour, ...] = (
    (0.58, 0.69, 0.92),
    (0.49, 0.61, 0.87),
    (0.39, 0.52, 0.77),
    (0.28, 0.40, 0.62),
    (0.19, 0.28, 0.46),
    (0.13, 0.19, 0.32),
)
HAIR: tuple[Colour, ...] = (
    (0.08, 0.08, 0.09),
    (0.10, 0.14, 0.20),
    (0.14, 0.22, 0.34),
    (0.34, 0.54, 0.70),
    (0.62, 0.63, 0.64),
    (0.12, 0.20, 0.46),
)
UPPER_KINDS = ("tshirt", "shirt", "jacket", "coat", "hoodie", "dress")
LOWER_KINDS = ("trousers", "jeans", "shorts", "skirt")
PATTERNS = ("plain", "stripes", "bars", "checks", "logo", "block")
HAIR_STYLES = ("short", "crop", "long", "bob", "bun", "ponytail", "bald")
HATS = ("none", "cap", "beanie", "brim")
BAGS = ("none", "backpack", "handbag", "shoulder")


@dataclass(frozen=True)
class Garment:
    """A piece of clothing: its cut, two colours and the pattern they make."""

    kind: str
    colour: Colour
    second: Colour
    pattern: str = "plain"
    repeat: float = 9.0
    """Stripes or checks along the torso."""


@dataclass(frozen=True)
class Appearance:
    """Everything that stays with a person from camera to camera. Lengths are in units of the body height."""

    height: float
    """Metres."""
    build: float
    """Width factor of body and limbs, 1 = average."""
    shoulders: float
    hips: float
    belly: float
    skin: Colour
    hair_style: str
    hair: Colour
    beard: bool
    glasses: bool
    hat: str
    hat_colour: Colour
    upper: Garment
    inner: Colour
    """Shirt under an open jacket."""
    sleeves: str
    """`long` or `short`."""
    lower: Garment
    shoes: Colour
    bag: str
    bag_colour: Colour
    folds: tuple[float, ...]
    """Phases of the cloth folds."""


def sample_family(rng: np.random.Generator) -> list[Appearance]:
    """Four people who wear the same two colours in different arrangements."""
    first, second = _index(rng, TOP_WEIGHTS), _index(rng, BOTTOM_WEIGHTS)
    while second == first:
        second = _index(rng, BOTTOM_WEIGHTS)
    first_colour, second_colour = jitter(rng, CLOTH[first], 0.03), jitter(rng, CLOTH[second], 0.03)
    patterned = str(rng.choice(("stripes", "bars", "checks", "block")))
    arrangements = (
        (first_colour, second_colour, "plain"),
        (second_colour, first_colour, "plain"),
        (first_colour, second_colour, patterned),
        (first_colour, second_colour, "logo"),
    )
    people = []
    for index, (upper, lower, pattern) in enumerate(arrangements):
        person = sample_person(rng)
        top = replace(person.upper, colour=upper, second=lower, pattern=pattern)
        if index == 2:
            top = replace(top, kind=str(rng.choice(("tshirt", "shirt", "hoodie"))))
        bottom = replace(person.lower, colour=top.colour if top.kind == "dress" else lower)
        people.append(replace(person, upper=top, lower=bottom))
    return [people[i] for i in rng.permutation(FAMILY)]


def sample_person(rng: np.random.Generator) -> Appearance:
    """One person with everything drawn at random, colours a little off the palette."""
    feminine = bool(rng.random() < 0.5)
    upper = _garment(rng, _pick(rng, UPPER_KINDS, (26, 16, 18, 11, 16, 13 if feminine else 0)), TOP_WEIGHTS)
    lower = _garment(rng, _pick(rng, LOWER_KINDS, (36, 28, 18, 18 if feminine else 0)), BOTTOM_WEIGHTS)
    if upper.kind == "dress":
        lower = Garment("skirt", upper.colour, upper.second)
    styles = (12, 4, 30, 20, 14, 20, 0) if feminine else (48, 28, 6, 6, 0, 2, 10)
    skin = SKIN[int(rng.integers(len(SKIN)))]
    return Appearance(
        height=float(np.clip(rng.normal(1.66 if feminine else 1.77, 0.07), 1.48, 1.98)),
        build=float(np.clip(rng.normal(0.96 if feminine else 1.04, 0.10), 0.80, 1.35)),
        shoulders=float(rng.normal(0.93 if feminine else 1.04, 0.04)),
        hips=float(rng.normal(1.05 if feminine else 0.97, 0.05)),
        belly=float(np.clip(rng.normal(1.0, 0.12), 0.85, 1.45)),
        skin=jitter(rng, skin, 0.03),
        hair_style=_pick(rng, HAIR_STYLES, styles),
        hair=jitter(rng, HAIR[_index(rng, (34, 24, 18, 10, 8, 6))], 0.02),
        beard=not feminine and bool(rng.random() < 0.25),
        glasses=bool(rng.random() < 0.2),
        hat=_pick(rng, HATS, (70, 14, 9, 7)),
        hat_colour=cloth_colour(rng),
        upper=upper,
        inner=cloth_colour(rng),
        sleeves="long" if upper.kind in ("jacket", "coat", "hoodie") or rng.random() < 0.25 else "short",
        lower=lower,
        shoes=jitter(rng, CLOTH[_index(rng, (40, 22, 8, 5, 5, 5, 1, 1, 1, 1, 1, 1, 2, 7, 1, 1))], 0.03),
        bag=_pick(rng, BAGS, (42, 24, 16, 18)),
        bag_colour=cloth_colour(rng),
        folds=tuple(float(x) for x in rng.uniform(0.0, 2 * np.pi, 6)),
    )


def cloth_colour(rng: np.random.Generator) -> Colour:
    """A clothing colour near one of the palette."""
    return jitter(rng, CLOTH[int(rng.integers(len(CLOTH)))], 0.04)


def jitter(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    """`colour` moved a little, kept inside what cloth and skin reflect."""
    b, g, r = np.clip(np.asarray(colour) + rng.normal(0.0, amount, 3), 0.04, 0.95)
    return float(b), float(g), float(r)


def _garment(rng: np.random.Generator, kind: str, weights: tuple[float, ...]) -> Garment:
    pattern = _pick(rng, PATTERNS, (52, 12, 7, 11, 12, 6))
    colour = jitter(rng, CLOTH[_index(rng, weights)], 0.04)
    return Garment(kind, colour, cloth_colour(rng), pattern, float(rng.uniform(6.0, 12.0)))


def _pick(rng: np.random.Generator, options: tuple[str, ...], weights: tuple[float, ...]) -> str:
    return options[_index(rng, weights)]


def _index(rng: np.random.Generator, weights: tuple[float, ...]) -> int:
    shares = np.asarray(weights, dtype=np.float64)
    return int(rng.choice(len(shares), p=shares / shares.sum()))
