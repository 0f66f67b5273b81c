"""The parts of verification: errors and limits, matching, thresholds in gaps, inputs, near ties."""

import copy
import math

import numpy as np
import pytest
import torch
from small_models import small_model

from psarm.errors import ExportError
from psarm.export import verify_people
from psarm.export.comparison import Comparison, largest_error, match_boxes, worst
from psarm.export.verify import verify_bundle
from psarm.export.verify_graphs import compare_detect, detect_runner
from psarm.export.verify_inputs import batch_cases, border_boxes, make_frame
from psarm.export.verify_people import PeopleCase, compare_embed, compare_people, score_gap
from psarm.runtime.detections import Detections


def test_failures_name_what_is_over_its_limit():
    assert Comparison("reid", "x", 3, boxes=0.01, scores=1e-4, embeddings=None).failures() == []
    failed = Comparison("reid", "x", 3, boxes=0.5, scores=2e-4, embeddings=math.nan, problem="two people more")
    assert failed.failures() == [
        "two people more",
        "boxes differ by 0.5 px (limit 0.01 px)",
        "scores differ by 0.0002 (limit 0.0001)",
        "embeddings differ by nan (limit 0.0001)",
    ]


def test_largest_error():
    assert largest_error(np.array([1.0, 2.0]), torch.tensor([1.5, 2.25])) == 0.5
    assert largest_error(np.zeros((0, 4)), torch.zeros(0, 4)) == 0
    assert math.isnan(largest_error(np.array([math.nan]), np.array([0.0])))
    assert math.isnan(worst(0.0, math.nan))
    with pytest.raises(ValueError, match="shapes"):
        largest_error(np.zeros(2), np.zeros(3))


def test_match_boxes_undoes_any_order():
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 100, (9, 4)).astype(np.float32)
    order = rng.permutation(9)
    assert match_boxes(boxes[order] + np.float32(0.01), boxes).tolist() == order.tolist()
    assert match_boxes(boxes[:0], boxes[:0]).tolist() == []


@pytest.mark.parametrize(
    "least, most, threshold", [(0, 0, 0.95), (1, 1, 0.85), (1, 3, 0.55), (2, 9, 0.55), (4, 4, 0.1)]
)
def test_score_gap(least, most, threshold):
    scores = torch.tensor([0.3, 0.9, 0.8, 0.2])
    above = int((scores > score_gap(scores, least, most)).sum())
    assert least <= above <= most
    assert score_gap(scores, least, most) == pytest.approx(threshold)


def test_inputs_are_what_they_say():
    rng = np.random.default_rng(0)
    frame = make_frame(33, 57, rng)
    assert (frame.shape, frame.dtype) == ((33, 57, 3), np.uint8)
    assert frame.std() > 20
    for case in batch_cases(rng):
        assert case.images.shape[2] % 32 == case.images.shape[3] % 32 == 0
        for image, (height, width) in zip(case.images, case.sizes, strict=True):
            assert not image[:, height:].any() and not image[:, :, width:].any()
    boxes = border_boxes((90, 150), (96, 160), rng)
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert boxes[:, 2].max() == 160 and boxes[:, 0].min() == 0


def test_every_stage_of_detect_is_looked_at(small_bundle, monkeypatch):
    """A wrong number in any one tensor of the graph's answer is found."""
    runner = detect_runner(small_bundle.bundle)
    case = batch_cases(np.random.default_rng(0))[0]
    assert not compare_detect(small_bundle.model, runner, case).failures()
    run = runner.run
    for name in ("boxes", "scores", "objectness", "deltas", "candidates", "proposals"):

        def tampered(name=name, **inputs):
            outputs = run(**inputs)
            outputs[name] = outputs[name].clone()
            outputs[name].view(-1)[0] += 0.5
            return outputs

        monkeypatch.setattr(runner, "run", tampered)
        assert compare_detect(small_bundle.model, runner, case).failures(), name

    def fewer(**inputs):
        outputs = run(**inputs)
        return {**outputs, "counts": outputs["counts"] - 1}

    monkeypatch.setattr(runner, "run", fewer)
    problem = compare_detect(small_bundle.model, runner, case).problem
    assert problem is not None and "torchvision 40" in problem


def test_another_model_fails_in_every_graph(small_bundle):
    other = small_model(9)
    with pytest.raises(ExportError) as failure:
        verify_bundle(other, small_bundle.bundle)
    for part in ("detect, one image", "reid, 3 images", "embeddings differ by"):
        assert part in str(failure.value)
    assert compare_embed(other, small_bundle.bundle, 0).failures()


def test_weights_that_are_not_numbers_fail(small_bundle):
    broken = copy.deepcopy(small_bundle.model)
    with torch.no_grad():
        broken.roi_heads.embedding_head.res5[0].bias[0] = math.nan
    with pytest.raises(ExportError, match="embeddings differ by nan") as failure:
        verify_bundle(broken, small_bundle.bundle)
    assert "hold NaN" in str(failure.value) and "--no-verify" not in str(failure.value)


@pytest.fixture
def unsure(monkeypatch):
    """How many first draws give a wrong answer; PyTorch is made to be unsure of these."""

    def prepare(wrong, sure):
        compare = verify_people._compare
        calls = []

        def tampered(case, actual, expected):
            calls.append(case)
            if len(calls) <= wrong:
                actual = [Detections(d.boxes[:0], d.scores[:0], d.embeddings[:0]) for d in actual]
            return compare(case, actual, expected)

        monkeypatch.setattr(verify_people, "_compare", tampered)
        monkeypatch.setattr(verify_people, "_is_sure", lambda *arguments: sure)

    return prepare


def test_an_input_on_a_near_tie_is_drawn_again(small_bundle, unsure):
    unsure(wrong=2, sure=False)
    comparison = compare_people(small_bundle.model, small_bundle.bundle, PeopleCase("few", 1, (2, 9)), 0)
    assert comparison.redrawn == 2 and comparison.compared >= 1 and not comparison.failures()


def test_a_difference_where_pytorch_is_sure_is_a_failure(small_bundle, unsure):
    unsure(wrong=1, sure=True)
    comparison = compare_people(small_bundle.model, small_bundle.bundle, PeopleCase("few", 1, (2, 9)), 0)
    assert comparison.redrawn == 0 and "0 people in frame 0" in comparison.failures()[0]


def test_near_ties_without_end_are_a_failure(small_bundle, unsure):
    unsure(wrong=99, sure=False)
    comparison = compare_people(small_bundle.model, small_bundle.bundle, PeopleCase("few", 1, (2, 9)), 0)
    assert "near ties" in comparison.failures()[0]


def test_pytorch_is_sure_where_its_answer_stays():
    images, rng = [torch.zeros(3, 20, 20)], np.random.default_rng(0)

    def steady(given):
        return [{"boxes": torch.tensor([[1.0, 2.0, 9.0, 9.0]])}]

    def hanging(given):
        return [{"boxes": torch.tensor([[1.0, 2.0, 9.0, 9.0]])[: int(given[0].sum() <= 0)]}]

    assert verify_people._is_sure(steady, images, steady(images), rng)
    assert not verify_people._is_sure(hanging, images, hanging(images), rng)
