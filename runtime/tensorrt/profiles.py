"""Which batches of frames engines are built for, and what that means for the inputs of each graph.

N frames, [H,W] their padded size as the detect graph gets it, R boxes of all frames together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psarm.errors import ExportError, UsageError
from psarm.runtime.manifest import Manifest
from psarm.runtime.tensorrt.build import MakeProfiles, Profile, ShapeRange
from psarm.runtime.tensorrt.library import Shape

FEATURE_STRIDE = 16
"""Pixels a cell of the features, in every backbone."""
USUAL_PEOPLE = 32
"""People of a frame that kernels are chosen for."""
FLATTEST = 4
"""The widest frame of the default profiles: this times as wide as high."""

Batch = tuple[int, int, int]  # N, H, W


@dataclass(frozen=True)
class FrameShapes:
    """The batches one profile takes; kernels are chosen for `optimum`."""

    minimum: Batch
    optimum: Batch
    maximum: Batch

    def __post_init__(self) -> None:
        ShapeRange(self.minimum, self.optimum, self.maximum)  # raises where they are no range

    def __str__(self) -> str:
        return " to ".join("x".join(map(str, batch)) for batch in (self.minimum, self.maximum))


def default_frames(manifest: Manifest, max_batch: int = 1) -> tuple[FrameShapes, ...]:
    """Landscape and portrait frames of any size up to 4:1, in batches of 1 to `max_batch`, which may hold both.

    The resizing rule keeps the long side between min_size and max_size and the short one up to min_size, so that two
    profiles take every such frame; kernels are chosen for 16:9. A batch that holds both is padded to the long side of
    either, which a third profile takes where there are batches.
    """
    rule = manifest.preprocessing
    short, long = (_round_up(size, rule.size_divisor) for size in (rule.min_size, rule.max_size))
    flat = max(rule.size_divisor, min(short, rule.max_size // FLATTEST // rule.size_divisor * rule.size_divisor))
    least = max(rule.size_divisor, (rule.min_size - 1) // rule.size_divisor * rule.size_divisor)
    usual = min(short, _round_up(rule.max_size * 9 // 16, rule.size_divisor))
    landscape = FrameShapes((1, flat, least), (1, usual, long), (max_batch, short, long))
    portrait = FrameShapes((1, least, flat), (1, long, usual), (max_batch, long, short))
    if max_batch == 1:
        return landscape, portrait
    return landscape, portrait, FrameShapes((2, least, least), (2, long, long), (max_batch, long, long))


def frames_of_sizes(sizes: Sequence[str], max_batch: int, divisor: int) -> tuple[FrameShapes, ...]:
    """One profile for each padded frame size HxW (864x1504), in batches of 1 to `max_batch`.

    `divisor` is the bundle's, to multiples of which frames are padded. Raises `UsageError` for what is no such size.
    """
    frames = []
    for size in sizes:
        height, width = _numbers(size, 2, "a frame size, HEIGHTxWIDTH as 864x1504")
        frames.append(FrameShapes((1, height, width), (max_batch, height, width), (max_batch, height, width)))
    return _checked(frames, divisor)


def frames_of_shapes(
    minima: Sequence[str], optima: Sequence[str], maxima: Sequence[str], divisor: int
) -> tuple[FrameShapes, ...]:
    """One profile for each n-th minimum, optimum and maximum of `images`, as 1x3x864x1504 or images:1x3x864x1504.

    As `frames_of_sizes`.
    """
    if not len(minima) == len(optima) == len(maxima):
        raise UsageError(
            f"{len(minima)} minimum, {len(optima)} optimum and {len(maxima)} maximum shapes were given; "
            "needed as many of each, one of each makes a profile."
        )
    batches = [[_batch(shape) for shape in shapes] for shapes in (minima, optima, maxima)]
    return _checked([FrameShapes(*three) for three in zip(*batches, strict=True)], divisor)


def graph_profiles(graph: str, frames: Sequence[FrameShapes], detections_per_image: int) -> MakeProfiles:
    """What `build_plan` asks for: the profiles of `graph` from the shapes of its inputs."""

    def make(inputs: Mapping[str, Shape]) -> list[Profile]:
        return [
            {name: _input_range(graph, name, shape, one, detections_per_image) for name, shape in inputs.items()}
            for one in frames
        ]

    return make


def _input_range(graph: str, name: str, shape: Shape, frames: FrameShapes, people: int) -> ShapeRange:
    """The range of one input: sizes that the graph fixes stay, the others follow from the frames."""
    ranges = []
    for (count, height, width), boxes in (
        (frames.minimum, 1),
        (frames.optimum, min(people, USUAL_PEOPLE) * frames.optimum[0]),
        (frames.maximum, people * frames.maximum[0]),
    ):
        sizes = {
            "images": (count, 3, height, width),
            "image_sizes": (count, 2),
            "features": (count, -1, height // FEATURE_STRIDE, width // FEATURE_STRIDE),
            "boxes": (boxes, 4),
            "batch_indices": (boxes,),
        }.get(name, ())
        if len(sizes) != len(shape):
            raise ExportError(
                f"The {graph} graph has an input {name} of shape {list(shape)}, which no psarm graph has; "
                "export the bundle again with this psarm."
            )
        ranges.append(tuple(size if fixed < 0 else fixed for size, fixed in zip(sizes, shape, strict=True)))
    return ShapeRange(*ranges)


def _batch(text: str) -> Batch:
    count, channels, height, width = _numbers(text.removeprefix("images:"), 4, "a shape of images, as 1x3x864x1504")
    if channels != 3:
        raise UsageError(f"{text} has {channels} channels; the detect graph takes 3, as in 1x3x864x1504.")
    return count, height, width


def _checked(frames: Sequence[FrameShapes], divisor: int) -> tuple[FrameShapes, ...]:
    for one in frames:
        for _, *sides in (one.minimum, one.optimum, one.maximum):
            if any(side % divisor for side in sides):
                better = "x".join(str(_round_up(side, divisor)) for side in sides)
                raise UsageError(
                    f"The frame size {sides[0]}x{sides[1]} is no multiple of {divisor}, to which frames are padded; "
                    f"give {better}."
                )
    return tuple(frames)


def _numbers(text: str, count: int, what: str) -> list[int]:
    if not re.fullmatch(r"\d+(x\d+)*", text) or len(numbers := [int(part) for part in text.split("x")]) != count:
        raise UsageError(f"{text!r} is not {what}.")
    return numbers


def _round_up(value: int, divisor: int) -> int:
    return math.ceil(value / divisor) * divisor
