"""What people carry."""

from __future__ import annotations

from psarm.data.synth import materials
from psarm.data.synth.appearance import Appearance
from psarm.data.synth.body import View, point
from psarm.data.synth.drawing import Tube
from psarm.data.synth.pose import Skeleton


def bag_tubes(person: Appearance, body: Skeleton, view: View) -> list[Tube]:
    """Backpack on the back, handbag in the left hand, shoulder bag on the left hip; none gives no tubes."""
    material = materials.pack(person.bag_colour)
    if person.bag == "backpack":
        back = -0.075 * person.build - 0.038
        boxy = [(0.0, 0.062, 0.026), (0.10, 0.078, 0.040), (0.6, 0.082, 0.050), (1.0, 0.076, 0.048)]
        return [
            view.tube(
                body.neck + point(back, 0, -0.030), body.neck + point(back, 0, -0.235), boxy, material, (0.5, 0.3)
            )
        ]
    if person.bag == "handbag":
        hand = body.arms[0][3]
        size = 0.045 + 0.012 * float(person.folds[5] > 3.0)
        top, low = hand + point(0, 0.004, -0.055), hand + point(0, 0.004, -0.055 - 1.7 * size)
        boxy = [(0.0, 0.016, 0.8 * size), (0.2, 0.022, size), (1.0, 0.024, 1.1 * size)]
        strap = [(0.0, 0.004, 0.005), (1.0, 0.004, 0.005)]
        dark = materials.plain((0.7 * person.bag_colour[0], 0.7 * person.bag_colour[1], 0.7 * person.bag_colour[2]))
        handles = [view.tube(hand, top + point(at, 0, -0.004), strap, dark) for at in (-0.6 * size, 0.6 * size)]
        return [view.tube(top, low, boxy, material, (0.2, 0.15)), *handles]
    if person.bag == "shoulder":
        hip = body.hip + point(-0.01, 0.115 * person.build * person.hips + 0.018, 0.02)
        boxy = [(0.0, 0.020, 0.056), (0.2, 0.026, 0.062), (1.0, 0.026, 0.058)]
        return [view.tube(hip, hip + point(0, 0.004, -0.10), boxy, material, (0.3, 0.25))]
    return []
