"""The engine against a torch oracle that runs the toy bundle's arithmetic with torchvision's own operators."""

import cv2
import numpy as np
import pytest
import torch
import toy_bundle as toy
from torch.nn import functional
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import clip_boxes_to_image, nms, remove_small_boxes, roi_align

from psarm.errors import BundleError, PsarmError, UsageError
from psarm.runtime import Bundle, PersonSearch

REDS = [(255, 0, 0), (255, 90, 0), (255, 0, 120), (230, 40, 40), (255, 60, 80)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.open(toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm"))


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def engine(bundle, request):
    with PersonSearch(bundle, request.param, threads=1) as engine:
        yield engine


def random_scene(rng, cells=None):
    cells = rng.choice(8, rng.integers(1, 7), replace=False) if cells is None else cells
    height, width = rng.integers(40, 300, 2).tolist()
    frame = toy.draw_scene({int(cell): REDS[rng.integers(len(REDS))] for cell in cells}, height, width)
    noise = rng.integers(-12, 13, frame.shape)
    return np.clip(frame + noise, 0, 255).astype(np.uint8)


class Oracle:
    """Step by step in torch, one image after the other after a joint transform."""

    def __init__(self, frames, score=0.5, shift=toy.SHIFT):
        self.score = score
        self.shift = torch.from_numpy(shift)
        self.frames = frames
        transform = GeneralizedRCNNTransform(toy.MIN_SIZE, toy.MAX_SIZE, list(toy.MEAN), list(toy.STD)).eval()
        rgb = [torch.from_numpy(np.ascontiguousarray(f[..., ::-1].transpose(2, 0, 1))).float() / 255 for f in frames]
        batch, _ = transform(rgb)
        self.sizes = batch.image_sizes
        mix = torch.from_numpy(toy.MIX)[:, :, None, None]
        self.features = functional.conv2d(functional.avg_pool2d(batch.tensors, 16), mix)

    def detect(self, around=None):
        return [self._detect(number, around) for number in range(len(self.frames))]

    def embed(self, number, boxes):
        resized = resize_boxes(torch.tensor(boxes), self.frames[number].shape[:2], self.sizes[number])
        return self._reid(number, resized)[1]

    def _detect(self, number, around):
        height, width = self.sizes[number]
        valid = toy.PROPOSALS - toy.PADDING
        boxes = torch.from_numpy(toy.FRACTIONS[:valid]) * torch.tensor([width, height, width, height])
        logits = self._crops(number, boxes, 1)[:, 0, 0, 0] * 3 + torch.from_numpy(toy.BIAS[:valid])
        scores = logits.sigmoid()
        keep = torch.where(scores > self.score)[0]
        keep = keep[remove_small_boxes(boxes[keep], 1e-2)]
        keep = keep[nms(boxes[keep], scores[keep], 0.4)[:300]]
        boxes, scores = boxes[keep], scores[keep]
        refined, embeddings = self._reid(number, boxes)
        refined = clip_boxes_to_image(refined, (height, width))
        keep = torch.where(scores > self.score)[0]
        keep = keep[remove_small_boxes(refined[keep], 1e-2)]
        self.flat = len(scores) - len(keep)
        refined, scores, embeddings = refined[keep], scores[keep], embeddings[keep]
        if around is None:
            embeddings = embeddings * scores[:, None]
        else:
            given = resize_boxes(torch.tensor([around]), self.frames[number].shape[:2], (height, width))
            refined = torch.cat([given, refined])
            scores = torch.cat([torch.ones(1), scores])
            embeddings = torch.cat([self._reid(number, given)[1], embeddings])
        keep = nms(refined, scores, 0.5)[:300]
        final = resize_boxes(refined[keep], (height, width), self.frames[number].shape[:2])
        return final.numpy(), scores[keep].numpy(), embeddings[keep].numpy()

    def _reid(self, number, boxes):
        crops = self._crops(number, boxes, 2).flatten(1)
        return boxes + self.shift, functional.normalize(crops @ torch.from_numpy(toy.PROJECTION))

    def _crops(self, number, boxes, size):
        return roi_align(self.features[number : number + 1], [boxes], size, 1 / 16, 2)


def assert_same(people, expected):
    boxes, scores, embeddings = expected
    assert len(people) == len(boxes)
    np.testing.assert_allclose(people.boxes, boxes, atol=1e-3)
    np.testing.assert_allclose(people.scores, scores, atol=1e-5)
    np.testing.assert_allclose(people.embeddings, embeddings, atol=1e-5)


def test_one_frame_equals_the_oracle(engine):
    rng = np.random.default_rng(0)
    for _ in range(25):
        frame = random_scene(rng)
        assert_same(engine.detect(frame), Oracle([frame]).detect()[0])


def test_a_batch_of_odd_sizes_with_an_empty_frame_equals_the_oracle(engine):
    rng = np.random.default_rng(1)
    for _ in range(8):
        frames = [random_scene(rng), random_scene(rng, cells=[]), random_scene(rng), random_scene(rng)]
        results = engine.detect(frames)
        for people, expected in zip(results, Oracle(frames).detect(), strict=True):
            assert_same(people, expected)
        assert len(results[1]) == 0


def test_detect_around_equals_the_oracle_and_puts_the_box_first(engine):
    rng = np.random.default_rng(2)
    for _ in range(15):
        frame = random_scene(rng)
        box = toy.cell_box(int(rng.integers(8)), *frame.shape[:2])
        people = engine.detect_around(frame, box)
        assert_same(people, Oracle([frame]).detect(around=box)[0])
        np.testing.assert_array_equal(people.boxes[0], np.float32(box))
        assert people.scores[0] == 1
        np.testing.assert_allclose(np.linalg.norm(people.embeddings, axis=1), 1, atol=1e-5)


def test_boxes_refined_out_of_the_frame_are_left_out(engine, monkeypatch):
    shift = np.array([90, 0, 90, 0], np.float32)
    run = engine._backend.run_reid
    monkeypatch.setattr(
        engine._backend, "run_reid", lambda *inputs: (o := run(*inputs))._replace(boxes=o.boxes - toy.SHIFT + shift)
    )
    frame, box = toy.draw_scene({0: REDS[0], 3: REDS[1], 7: REDS[2]}), toy.cell_box(3)
    oracle = Oracle([frame], shift=shift)
    assert_same(engine.detect(frame), oracle.detect()[0])
    assert oracle.flat == 2
    assert_same(engine.detect_around(frame, box), oracle.detect(around=box)[0])


def test_detect_around_gives_the_box_whatever_the_threshold(bundle):
    with PersonSearch(bundle, threads=1, score_thresh=1) as engine:
        people = engine.detect_around(toy.draw_scene({0: REDS[0]}), toy.cell_box(0))
    assert people.scores.tolist() == [1] and people.boxes.tolist() == [np.float32(toy.cell_box(0)).tolist()]


def test_detect_around_keeps_the_box_first_beside_a_score_of_one(engine, monkeypatch):
    run = engine._backend.run_detect
    monkeypatch.setattr(
        engine._backend, "run_detect", lambda *inputs: (o := run(*inputs))._replace(scores=np.ones_like(o.scores))
    )
    people = engine.detect_around(toy.draw_scene({0: REDS[0]}), toy.cell_box(6))
    np.testing.assert_allclose(people.boxes[0], toy.cell_box(6), atol=1e-4)
    assert len(people) == 8 and (people.scores == 1).all()


def test_embed_equals_the_oracle_and_has_unit_length(engine):
    rng = np.random.default_rng(3)
    frame = random_scene(rng)
    boxes = [toy.cell_box(cell, *frame.shape[:2]) for cell in (0, 3, 6)]
    embeddings = engine.embed(frame, boxes)
    np.testing.assert_allclose(embeddings, Oracle([frame]).embed(0, boxes), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    assert embeddings.dtype == np.float32


def test_embedding_nobody_and_finding_nobody(engine):
    grey = toy.draw_scene({})
    assert engine.embed(grey, []).shape == (0, toy.DIM)
    assert engine.embed(grey, np.zeros((0, 4))).shape == (0, toy.DIM)
    people = engine.detect(grey)
    assert (people.boxes.shape, people.scores.shape, people.embeddings.shape) == ((0, 4), (0,), (0, toy.DIM))
    assert engine.detect([]) == []
    assert len(engine.detect_around(grey, toy.cell_box(0))) == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (2, 3)])
def test_tiny_and_thin_frames_hold_nobody(engine, shape):
    assert len(engine.detect(np.full((*shape, 3), 120, np.uint8))) == 0


def test_a_lower_threshold_finds_more(bundle):
    frame = toy.draw_scene({0: (255, 0, 0), 1: (150, 80, 80)})
    with PersonSearch(bundle, threads=1, score_thresh=0.01) as low, PersonSearch(bundle, threads=1) as usual:
        assert len(low.detect(frame)) > len(usual.detect(frame)) == 1
        assert_same(low.detect(frame), Oracle([frame], score=0.01).detect()[0])


def test_the_engine_says_what_runs_it_and_where_the_time_went(engine):
    assert engine.backend in ("onnxruntime", "openvino")
    assert (engine.precision, engine.device) == ("fp32", "CPU, 1 thread")
    assert engine.summary.endswith(" fp32 on CPU, 1 thread")
    assert engine.reason.startswith(f"{engine.backend}, CPU, 1 thread, fp32 (as asked; {engine.backend} ")
    engine.detect(toy.draw_scene({0: REDS[0]}))
    assert list(engine.last_timings) == ["preprocess", "detect", "nms", "reid", "post"]
    assert all(seconds > 0 for seconds in engine.last_timings.values())


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        ("street.jpg", "got a str"),
        (np.zeros((4, 4), np.uint8), r"shape \[4,4\]"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \[4,4,4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \[0,4,3\]"),
        (np.zeros((2, 4, 4, 3), np.uint8), "pass a list of frames"),
        (np.zeros((4, 4, 3), np.float32), "got float32"),
        ([np.zeros((4, 4, 3), np.uint8), None], "got a NoneType"),
    ],
)
def test_wrong_frames_are_named(engine, frame, says):
    with pytest.raises(UsageError, match=says):
        engine.detect(frame)


@pytest.mark.parametrize(
    ("boxes", "says"),
    [
        ([1, 2, 3, 4], r"\[n,4\]"),
        ([[1, 2, 3]], r"\[n,4\]"),
        ([[1, 2, np.nan, 4]], "finite"),
        ([[9, 2, 3, 4]], "x1 <= x2"),
        ([[3, 2, 3, 4]], "empty"),
        ([[0, 0, 9, 9], [170, 2, 180, 9]], "Box 1 .* lies outside the 160x96 picture"),
        ([["a", 1, 2, 3]], "numbers"),
    ],
)
def test_wrong_boxes_are_named(engine, boxes, says):
    with pytest.raises(UsageError, match=says):
        engine.embed(toy.draw_scene({}), boxes)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"backend": "nonsense"}, "no backend of that name; available: auto, tensorrt, tensorrt_rtx, openvino, onnx"),
        ({"precision": "int4"}, "no precision of that name; available: auto, fp32, bf16, fp16, int8"),
        ({"precision": "int8"}, "holds no int8 graphs, only fp32; export it with: .* --precision fp32,int8"),
        ({"threads": 0}, "threads is 0"),
        ({"score_thresh": 1.5}, "between 0 and 1"),
    ],
)
def test_options_that_cannot_work_are_named(bundle, options, says):
    with pytest.raises(UsageError, match=says):
        PersonSearch(bundle, **options)


def test_a_closed_engine_says_so(bundle):
    engine = PersonSearch(bundle, threads=1)
    engine.close()
    with pytest.raises(PsarmError, match="closed"):
        engine.detect(toy.draw_scene({}))


def test_a_graph_that_breaks_the_contract_is_refused(bundle, tmp_path, monkeypatch):
    with PersonSearch(bundle, threads=1) as engine:
        run = engine._backend._run
        monkeypatch.setattr(
            engine._backend, "_run", lambda *inputs: {**run(*inputs), "scores": np.zeros((1, 3), np.float32)}
        )
        with pytest.raises(BundleError, match=r"output of the detect graph 'scores' must be .*got \[1, 3\]"):
            engine.detect(toy.draw_scene({}))


def test_opencv_frames_go_straight_in(engine, tmp_path):
    frame = toy.draw_scene({2: (255, 0, 0)})
    cv2.imwrite(str(tmp_path / "frame.png"), frame)
    assert_same(engine.detect(cv2.imread(str(tmp_path / "frame.png"))), Oracle([frame]).detect()[0])
