"""The whole bundle, frames to people, against the PyTorch model.

Score thresholds are put into gaps between the model's scores, so that nobody, one person or a few are left. An input
still says nothing about the graphs where PyTorch's own answer hangs on a near tie (two overlapping proposals whose
scores are equal to the sixth digit, say). Where an answer differs and PyTorch itself finds other people once the pixels
move by as little as rounding, the input is drawn again, and the report says so; where PyTorch is sure of its answer, a
difference is a failure.

n people of a frame. Frames are uint8 [h,w,3] BGR, boxes xyxy in frame pixels.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from psarm.export.comparison import LIMITS, Comparison, largest_error, match_boxes, worst
from psarm.export.verify_inputs import border_boxes, make_frame
from psarm.model.person_search import PersonSearchModel
from psarm.runtime.detections import Detections
from psarm.runtime.engine import PersonSearch

Frame = NDArray[np.uint8]
People = dict[str, Tensor]

DRAWS = 6
"""Inputs tried before giving up on finding one whose answer does not hang on a near tie."""
NUDGES = (1e-6, 3e-6, 1e-5, 1e-5)
"""How far pixels (0..1) are moved to see whether PyTorch is sure of its answer."""


@dataclass(frozen=True)
class PeopleCase:
    """How many people should be left of how many frames."""

    name: str
    frames: int
    people: tuple[int, int]
    """Least and most proposals above the score threshold."""
    around: bool = False
    """Compare `detect_around` (a query's context) in place of `detect`."""


CASES = (
    PeopleCase("nobody", 1, (0, 0)),
    PeopleCase("one person", 1, (1, 1)),
    PeopleCase("few people, 3 frames", 3, (4, 20)),
    PeopleCase("around a given box", 1, (2, 10), around=True),
)


@torch.no_grad()
def compare_people(model: PersonSearchModel, bundle: Path, case: PeopleCase, seed: int) -> Comparison:
    """One case, with new frames while the answer hangs on a near tie."""
    comparison, conclusive = _attempt(model, bundle, case, seed, 0)
    while not conclusive and comparison.redrawn + 1 < DRAWS:
        comparison, conclusive = _attempt(model, bundle, case, seed, comparison.redrawn + 1)
    if conclusive:
        return comparison
    return replace(comparison, problem=f"the model's own answers hang on near ties for {DRAWS} inputs in a row")


@torch.no_grad()
def compare_embed(model: PersonSearchModel, bundle: Path, seed: int) -> Comparison:
    """`embed` of boxes at the borders of one frame."""
    rng = np.random.default_rng(seed)
    [size] = _frame_sizes(model, 1, rng)
    frame = make_frame(*size, rng)
    boxes = border_boxes(size, size, rng)
    with PersonSearch(bundle, "onnxruntime", "fp32", torch.get_num_threads()) as engine:
        actual = engine.embed(frame, boxes.numpy())
    [expected] = model.embed([_image(frame)], [boxes])
    return Comparison("bundle", "given boxes", len(boxes), embeddings=largest_error(actual, expected))


def score_gap(scores: Tensor, least: int, most: int) -> float:
    """The middle of the widest gap of the scores [P] that leaves `least` to `most` of them above it."""
    ordered = torch.cat([scores.new_ones(1), scores.sort(descending=True).values, scores.new_zeros(1)])
    gaps = (ordered[:-1] - ordered[1:])[least : most + 1]  # gap k leaves k scores above it
    best = least + int(gaps.argmax())
    return float((ordered[best] + ordered[best + 1]) / 2)


def _attempt(model: PersonSearchModel, bundle: Path, case: PeopleCase, seed: int, draw: int) -> tuple[Comparison, bool]:
    """The case on the `draw`-th input, and whether that says something about the graphs."""
    rng = np.random.default_rng([seed, draw])
    sizes = _frame_sizes(model, case.frames, rng)
    frames = [make_frame(*size, rng) for size in sizes]
    height, width = sizes[0]
    given = torch.tensor([[0.3 * width, 0.2 * height, 0.6 * width, 0.9 * height]])
    images = [_image(frame) for frame in frames]
    reference = copy.deepcopy(model)
    reference.roi_heads.score_thresh = score_gap(_head_scores(model, images), *case.people)

    def answer(images: list[Tensor]) -> list[People]:
        return reference.detect_around(images, given) if case.around else reference.detect(images)

    expected = answer(images)
    threads, threshold = torch.get_num_threads(), reference.roi_heads.score_thresh
    with PersonSearch(bundle, "onnxruntime", "fp32", threads, threshold) as engine:
        actual = [engine.detect_around(frames[0], given[0].numpy())] if case.around else engine.detect(frames)
    comparison = replace(_compare(case.name, actual, expected), redrawn=draw)
    return comparison, not comparison.failures() or _is_sure(answer, images, expected, rng)


def _compare(case: str, actual: list[Detections], expected: list[People]) -> Comparison:
    errors, compared = dict.fromkeys(LIMITS, 0.0), 0
    for frame, (found, wanted) in enumerate(zip(actual, expected, strict=True)):
        count = len(wanted["boxes"])
        if len(found) != count:
            problem = f"{len(found)} people in frame {frame}, the model finds {count}"
            return Comparison("bundle", case, count, problem=problem)
        order = match_boxes(found.boxes, wanted["boxes"].numpy())
        for name in errors:
            error = largest_error(getattr(found, name), wanted[name].numpy()[order])
            errors[name] = worst(errors[name], error)
        compared += count
    return Comparison("bundle", case, compared, errors["boxes"], errors["scores"], errors["embeddings"])


def _is_sure(
    answer: Callable[[list[Tensor]], list[People]],
    images: list[Tensor],
    expected: list[People],
    rng: np.random.Generator,
) -> bool:
    """Whether PyTorch finds the same people, within a pixel, after each of a few nudges of the pixels."""
    for size in NUDGES:
        nudges = [torch.from_numpy(rng.uniform(-size, size, image.shape)).float() for image in images]
        nudged = answer([image + nudge for image, nudge in zip(images, nudges, strict=True)])
        for people, wanted in zip(nudged, expected, strict=True):
            boxes, before = people["boxes"].numpy(), wanted["boxes"].numpy()
            if len(boxes) != len(before) or largest_error(boxes, before[match_boxes(boxes, before)]) > 1:
                return False
    return True


def _head_scores(model: PersonSearchModel, images: list[Tensor]) -> Tensor:
    """Scores of the first head for every proposal of all images."""
    batch, _ = model.transform(images)
    features = model.backbone(batch.tensors)
    proposals, _ = model.rpn(batch, OrderedDict(map=features))
    return model.roi_heads.score(features, proposals)[0]


def _frame_sizes(model: PersonSearchModel, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Odd sizes around the model's: wide, tall, and a flat panorama."""
    short, long = model.config.min_size, model.config.max_size
    shapes = [(0.8 * short, 0.9 * long), (1.1 * short, 0.7 * short), (0.3 * short, 0.9 * long)][:count]
    return [(max(16, int(h * rng.uniform(0.9, 1))), max(16, int(w * rng.uniform(0.9, 1)))) for h, w in shapes]


def _image(frame: Frame) -> Tensor:
    """The PyTorch model's input [3,h,w], RGB in 0..1."""
    return torch.from_numpy(frame[..., ::-1].copy()).permute(2, 0, 1) / 255
