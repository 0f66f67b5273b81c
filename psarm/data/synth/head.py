"""Head, hair and hats."""

from __future__ import annotations

from psarm.data.synth import materials
from psarm.data.synth.appearance import Appearance
from psarm.data.synth.body import View, point
from psarm.data.synth.drawing import Tube
from psarm.data.synth.pose import Skeleton

# Fraction of the way from crown to chin, half-width to the side, half-depth front to back.
SKULL = (
    (0.00, 0.012, 0.014),
    (0.05, 0.026, 0.030),
    (0.14, 0.037, 0.043),
    (0.28, 0.044, 0.052),
    (0.45, 0.045, 0.054),
    (0.62, 0.043, 0.050),
    (0.78, 0.037, 0.044),
    (0.90, 0.027, 0.035),
    (1.00, 0.013, 0.022),
)


def head_tubes(person: Appearance, body: Skeleton, view: View, gaze: float) -> list[Tube]:
    """The head with hair and hat, turned by `gaze` against the body."""
    chin, crown = body.chin, body.crown
    tubes = [view.tube(crown, chin, SKULL, materials.face(person), (0.4, 0.5), turn=gaze)]
    if person.hair_style != "bald":
        tubes += _hair(person, body, view, gaze)
    if person.hat != "none":
        tubes += _hat(person, body, view, gaze)
    return tubes


def _hair(person: Appearance, body: Skeleton, view: View, gaze: float) -> list[Tube]:
    style, crown, chin = person.hair_style, body.crown, body.chin
    puff = {"crop": 0.003, "short": 0.006, "bob": 0.010, "long": 0.008}.get(style, 0.005)
    shell = [(at, w + puff, d + puff) for at, w, d in SKULL]
    up = point(0, 0, 0.004 if style == "crop" else 0.007)
    tubes = [view.tube(crown + up, chin, shell, materials.hair_shell(person), (0.5, 0.2), 0.10, gaze)]
    streaks = materials.strands(person.hair, person.folds[0])
    middle = 0.5 * (crown + chin)
    if style == "long":
        fall = [(0.0, 0.044, 0.026), (0.35, 0.050, 0.026), (0.8, 0.044, 0.020), (1.0, 0.026, 0.012)]
        tubes.append(
            view.tube(middle + point(-0.034, 0, 0.01), body.neck + point(-0.062, 0, -0.085), fall, streaks, gloss=0.1)
        )
    elif style == "bob":
        fall = [(0.0, 0.046, 0.030), (1.0, 0.050, 0.030)]
        tubes.append(
            view.tube(middle + point(-0.026, 0, 0), chin + point(-0.034, 0, -0.012), fall, streaks, (1.0, 0.4), 0.1)
        )
    elif style == "bun":
        knot = crown + point(-0.040, 0, -0.012)
        tubes.append(view.tube(knot, knot + point(-0.008, 0, -0.016), [(0, 0.020, 0.020), (1, 0.020, 0.020)], streaks))
    elif style == "ponytail":
        tail = [(0.0, 0.011, 0.011), (0.35, 0.019, 0.017), (1.0, 0.007, 0.007)]
        tubes.append(
            view.tube(crown + point(-0.056, 0, -0.040), body.neck + point(-0.080, 0, -0.05), tail, streaks, gloss=0.1)
        )
    return tubes


def _hat(person: Appearance, body: Skeleton, view: View, gaze: float) -> list[Tube]:
    cloth = materials.plain(person.hat_colour)
    crown, chin = body.crown, body.chin
    down = chin - crown
    cup = [(0.0, 0.024, 0.028), (0.3, 0.043, 0.051), (0.65, 0.051, 0.060), (1.0, 0.052, 0.061)]
    if person.hat == "beanie":
        cuff = materials.plain((0.8 * person.hat_colour[0], 0.8 * person.hat_colour[1], 0.8 * person.hat_colour[2]))
        low = crown + 0.40 * down
        band = [(0.0, 0.053, 0.062), (1.0, 0.053, 0.062)]
        return [
            view.tube(crown + point(0, 0, 0.018), low, cup, cloth, (0.8, 0.1), turn=gaze),
            view.tube(crown + 0.26 * down, low, band, cuff, (0.1, 0.1), turn=gaze),
        ]
    low = crown + 0.30 * down
    tubes = [view.tube(crown + point(0, 0, 0.010), low, cup, cloth, (0.7, 0.1), turn=gaze)]
    if person.hat == "cap":
        visor = [(0.0, 0.036, 0.010), (1.0, 0.026, 0.006)]
        front = low + point(0.048, 0, 0.004)
        tubes.append(view.tube(front, front + point(0.042, 0, -0.012), visor, cloth, (0.3, 0.5), turn=gaze))
    else:
        brim = [(0.0, 0.082, 0.088), (1.0, 0.088, 0.094)]
        tubes.append(view.tube(low + point(0, 0, 0.006), low + point(0, 0, -0.004), brim, cloth, (0.1, 0.1), turn=gaze))
    return tubes
