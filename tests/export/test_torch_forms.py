"""What the torch backend does on a GPU, computed on a CPU: CUDA graphs are played by a double that runs again."""

import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_models import small_model

from psarm.export import torch_graphs
from psarm.export.device_frames import FrameUploader
from psarm.export.fused_convolutions import FusedBlock, fuse_convolutions
from psarm.export.graphs import DetectGraph, ReidGraph
from psarm.export.manifest_of import preprocessing_of
from psarm.export.operators import nms_mask
from psarm.export.recordings import LIMIT, Recorder, Recording
from psarm.export.static_nms import ProductNms
from psarm.export.static_proposals import StaticProposalGraph
from psarm.export.torch_graphs import TorchGraphs, pad_rows, usual_rows
from psarm.export.torch_half import half_form
from psarm.model.checkpoint import save_model
from psarm.model.fingerprint import embedding_fingerprint
from psarm.runtime.preprocess import make_batch

SIZES = torch.tensor([[96, 150], [60, 128]])
KINDS = {
    "psarm": {},
    "released": {"arm_layout": "released", "backbone": "resnet50", "width": 0.125},
    "nae": {"variant": "nae"},
    "cascaded": {"variant": "cascaded_psarm"},
    "transformer": {"variant": "seqnet_transformer"},
    "spatio_channel": {"variant": "seqnet_spatio_channel"},
}


def record_by_running_again(function, inputs, pool=None):
    own = tuple(given.clone() for given in inputs)
    outputs = tuple(value.clone() for value in function(*own))

    def replay():
        for value, new in zip(outputs, function(*own), strict=True):
            value.copy_(new)

    return Recording(own, outputs, replay)


def images(count=2, seed=3):
    batch = torch.randn(count, 3, 96, 160, generator=torch.Generator().manual_seed(seed))
    for image, (height, width) in zip(batch, SIZES.tolist(), strict=False):
        image[:, height:] = 0
        image[:, :, width:] = 0
    return batch


def some_boxes(count):
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(4)) * 90
    return torch.cat([corners.amin(1), corners.amax(1) + 1], 1), torch.arange(count) % 2


@pytest.fixture(scope="module", params=["psarm", "cascaded"])
def folder(request, tmp_path_factory):
    """What `TorchGraphs` wants of a bundle."""
    model = small_model(**KINDS[request.param])
    path = tmp_path_factory.mktemp("graphs")
    save_model(model, path / "model.safetensors")
    embedding = SimpleNamespace(fingerprint=embedding_fingerprint(model))
    return SimpleNamespace(path=path, manifest=SimpleNamespace(embedding=embedding), model=model)


@pytest.fixture
def recorded(folder, monkeypatch):
    monkeypatch.setattr(torch_graphs, "record_cuda", record_by_running_again)
    return TorchGraphs(folder, "model.safetensors", "fp32", 1, "graphs")


def run_detect(graphs, seed):
    return graphs.run("detect", {"images": images(seed=seed).numpy(), "image_sizes": SIZES.numpy()})


def test_recorded_detection_is_the_eager_one(folder, recorded):
    eager = TorchGraphs(folder, "model.safetensors", "fp32", 1, "eager")
    for seed in (3, 3, 5):  # eager, then recorded, then replayed on other numbers
        found, expected = run_detect(recorded, seed), run_detect(eager, seed)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(np.asarray(found[name]), np.asarray(value), atol=1e-4, err_msg=name)
    assert len(recorded._recorders["detect"]._kept) == 1 and not eager._recorders


def test_features_outlive_the_next_replay(recorded):
    first = [run_detect(recorded, seed)["features"] for seed in (3, 3)][1]
    before = np.asarray(first).copy()
    run_detect(recorded, 5)
    np.testing.assert_array_equal(np.asarray(first), before)


@pytest.mark.parametrize("count", [1, 9])
def test_padded_heads_are_the_unpadded_ones(folder, recorded, count):
    eager = TorchGraphs(folder, "model.safetensors", "fp32", 1, "eager")
    features = run_detect(eager, 3)["features"]
    boxes, numbers = some_boxes(count)
    feeds = {"features": features, "boxes": boxes.numpy(), "batch_indices": numbers.numpy()}
    for name in eager._graphs.keys() - {"detect"}:
        wanted = eager.run(name, feeds)
        for _ in range(3):
            found = recorded.run(name, feeds)
            for key, value in wanted.items():
                assert found[key].shape == value.shape
                np.testing.assert_allclose(found[key], value, atol=1e-4)
        [shapes] = recorded._recorders[name]._kept
        assert shapes[1][0] == (usual_rows(count), 4)


def test_what_the_static_form_may_have_missed_is_computed_again(folder, recorded, monkeypatch):
    expected = run_detect(recorded, 3)
    monkeypatch.setattr(StaticProposalGraph, "_is_exact", lambda self, kept, final, anchors: anchors < 0)
    monkeypatch.setattr(StaticProposalGraph, "_first", lambda self, boxes, kept: (boxes[:, :40] * 0, kept.sum(1) * 0))
    found = run_detect(recorded, 3)
    np.testing.assert_array_equal(found["boxes"], expected["boxes"])


def test_usual_rows_waste_little():
    numbers = [usual_rows(count) for count in range(1, 400)]
    assert numbers[0] == 8 and usual_rows(20) == 24 and usual_rows(100) == 112 and usual_rows(300) == 320
    assert all(count <= usual < max(8 + count, 1.26 * count) for count, usual in enumerate(numbers, 1))
    assert len(set(numbers)) < 30
    values = torch.arange(22.0).reshape(11, 2)
    padded = pad_rows(values)
    assert padded[:11].equal(values) and padded[11:].equal(values[:1].expand(5, 2))


def test_shapes_are_recorded_when_they_come_again_and_the_oldest_forgotten():
    recorder = Recorder(lambda x: (2 * x,), "It", record_by_running_again)
    for size in range(1, LIMIT + 2):
        assert recorder.find(torch.ones(size)) is None
        assert recorder.find(torch.full((size,), 3.0))(torch.full((size,), 4.0))[0].equal(torch.full((size,), 8.0))
    assert len(recorder._kept) == LIMIT
    kept = recorder.find(torch.ones(2))
    assert kept is recorder.find(torch.ones(2)) and kept is not None


def test_what_cannot_be_recorded_says_why_once():
    tries = []

    def refuse(function, inputs):
        tries.append(inputs)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    recorder = Recorder(lambda x: (x,), "The detect graph", refuse)
    assert recorder.find(torch.ones(2, 3)) is None
    with pytest.warns(UserWarning, match="The detect graph on 2x3 runs without a CUDA graph, .*not permitted"):
        assert recorder.find(torch.ones(2, 3)) is None
    assert recorder.find(torch.ones(2, 3)) is None and len(tries) == 1
    assert recorder.refused == "RuntimeError: operation not permitted when stream is capturing"


@pytest.mark.parametrize("kind", KINDS)
def test_half_form_is_near_float32_and_gives_float32(kind):
    model = small_model(**KINDS[kind])
    halved = copy.deepcopy(model)
    detect, reid = DetectGraph(model).eval(), ReidGraph(model).eval()
    half_detect, half_reid = DetectGraph(halved).eval(), ReidGraph(halved).eval()
    half_form(half_detect, torch.bfloat16)
    half_form(half_reid, torch.bfloat16)
    boxes, numbers = some_boxes(5)
    with torch.inference_mode():
        features = detect(images(), SIZES)[3]
        found = half_detect(images(), SIZES)
        (_, expected), (refined, embeddings) = reid(features, boxes, numbers), half_reid(features, boxes, numbers)
    assert all(value.dtype == torch.float32 for value in (*found[:2], found[3], refined, embeddings))
    assert 0 < (found[3] - features).abs().max() < 0.05 * features.abs().max()
    assert 0 < (embeddings - expected).abs().max() < 0.05
    in_half = [p for p in (*half_detect.parameters(), *half_reid.parameters()) if p.dtype == torch.bfloat16]
    assert sum(p.numel() for p in in_half) > 0.9 * sum(
        p.numel() for g in (half_detect, half_reid) for p in g.parameters()
    )


@pytest.mark.parametrize("kind", ["psarm", "released"])
def test_fused_convolutions_are_the_model_s(kind):
    model = small_model(**KINDS[kind])
    plain, fused = DetectGraph(model).eval().double(), DetectGraph(copy.deepcopy(model)).eval().double()
    fuse_convolutions(fused)
    assert sum(isinstance(part, FusedBlock) for part in fused.modules()) == (8 if kind == "psarm" else 16)
    with torch.inference_mode():
        expected, found = plain(images().double(), SIZES), fused(images().double(), SIZES)
    for one, other in zip(found[:4], expected[:4], strict=True):
        torch.testing.assert_close(one, other)
    assert fused.backbone.relu.__class__.__name__ == "Identity"


def test_nms_by_products_is_torchvisions():
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(3, 120, 2, generator=generator) * 50
    boxes = torch.cat([corners, corners + 10 + 30 * torch.rand(3, 120, 2, generator=generator)], dim=2)
    valid = torch.rand(3, 120, generator=generator) > 0.1
    kept, final = ProductNms(0.5, 20)(boxes, valid)
    assert final.all() and 3 < kept.sum() < 300
    assert kept.equal(nms_mask(boxes, valid, 0.5, 120))


@pytest.mark.parametrize("shapes", [[(90, 200)], [(90, 200)] * 2, [(90, 200), (61, 43), (300, 400)], [(1, 7)]])
def test_frames_are_resized_as_on_the_host(shapes):
    rule = preprocessing_of(small_model().config)
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    expected = make_batch(frames, rule)
    uploader = FrameUploader(rule, torch.device("cpu"))
    for _ in range(2):
        found, sizes = uploader(frames)
        np.testing.assert_array_equal(sizes, expected.image_sizes)
        np.testing.assert_allclose(found.numpy(), expected.images, atol=2e-3)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_uploaded_frames_go_through_the_graph(recorded, folder):
    rule = preprocessing_of(folder.model.config)
    frames = [np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)] * 2
    batch = make_batch(frames, rule)
    expected = recorded.run("detect", dict(zip(("images", "image_sizes"), dataclasses.astuple(batch), strict=True)))
    uploaded, sizes = recorded.upload(frames, rule)
    found = recorded.run("detect", {"images": uploaded, "image_sizes": sizes})
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-3)
