"""The form for TensorRT: the same answers as the ordinary graphs, `exact` told truly, nothing that depends on data."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from small_models import EVERY, exported_once, small_model, traced_for_tensorrt_once
from test_proposals import make_rpn, maps, torchvision_proposals

from psarm.export.graphs import DetectGraph, RefineGraph, ReidGraph
from psarm.export.precision.half import half_graph
from psarm.export.proposals import ProposalGraph
from psarm.export.static_proposals import StaticProposalGraph
from psarm.export.tensorrt_form import detect_form, head_form
from psarm.runtime.tensorrt.build import build_plan
from psarm.runtime.tensorrt.flavour import TENSORRT_RTX
from psarm.runtime.tensorrt.profiles import FrameShapes, graph_profiles

SIZES = [(96, 150), (80, 129), (17, 40)]
FORBIDDEN = {"RoiAlign", "NonMaxSuppression", "NonZero", "Loop", "If", "Scan", "Compress", "Unique", "ScatterND"}
KINDS = ["nae_arm", "seqnet", "psarm_24x8_released", "cascaded_psarm_resnet101", "psarm_convnext"]


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_modules_equal_the_ordinary_ones(name):
    """In float64, for every kind of head and backbone."""
    model = small_model(1, **EVERY[name]).double()
    images = torch.randn(3, 3, 96, 160, dtype=torch.float64)
    ordinary, form = DetectGraph(model), detect_form(DetectGraph(model), model.rpn)
    assert form.outputs == [*ordinary.outputs, "exact"]
    expected = dict(zip(ordinary.outputs, ordinary(images, torch.tensor(SIZES)), strict=False))
    actual = dict(zip(form.outputs, form(images, torch.tensor(SIZES)), strict=False))
    assert actual["exact"].tolist() == [True, True, True]
    for output, values in expected.items():
        torch.testing.assert_close(actual[output], values, rtol=0, atol=1e-11)
    indices = torch.tensor([2, 0, 0, 1, 2, 0])
    boxes = actual["boxes"][indices, torch.arange(6)]
    heads = [RefineGraph(model, 0)] * (len(model.roi_heads.reid_heads) > 1) + [ReidGraph(model)]
    for head in heads:
        wanted = head(actual["features"], boxes, indices)
        torch.testing.assert_close(
            head_form(head)(actual["features"], boxes, indices), wanted, rtol=0, atol=1e-11, msg=name
        )


def proposals_of(rpn, objectness, deltas, sizes, **limits):
    """The static selection's counts and flags, after it has proven itself on every image that it calls exact."""
    graph = StaticProposalGraph(rpn, **limits)
    proposals, counts, candidates, exact = graph(objectness, deltas, torch.tensor(sizes))
    assert candidates.shape == (len(sizes), min(graph.wanted, limits.get("candidates", 2000)), 4)
    assert exact.dtype == torch.bool
    height, width = objectness.shape[2:]
    expected = torchvision_proposals(rpn, objectness, deltas, sizes, height, width)
    ordinary, _, _ = ProposalGraph(rpn)(objectness, deltas, torch.tensor(sizes))
    for image in torch.where(exact)[0].tolist():
        assert counts[image] == len(expected[image])
        assert torch.equal(proposals[image], ordinary[image])
    return counts, exact


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("candidates", [150, 100, 60])
def test_exact_is_told_truly(candidates, seed):
    """The fewer candidates, the fewer images are exact; the last image is so small that few survive."""
    rpn = make_rpn(post_nms_top_n_test=30)
    sizes = [(96, 160), (90, 151), (33, 160), (20, 20)]
    counts, exact = proposals_of(rpn, *maps(rpn, 4, 6, 10, seed), sizes, candidates=candidates)
    assert (exact | (counts < 30) | (candidates < 150)).all()
    if candidates == 150:
        assert exact.all()
    else:
        assert exact[0] and not exact[3]


def test_as_many_as_wanted_are_exact_though_few_survive():
    rpn = make_rpn()
    objectness, deltas = maps(rpn, 2, 6, 10, seed=0)
    deltas[0, 0::4] = -1000.0  # every box of the first image far to the left
    counts, exact = proposals_of(rpn, objectness, deltas, [(96, 160), (96, 160)])
    assert counts.tolist() == [0, 40] and exact.tolist() == [True, True]


@pytest.mark.parametrize("height, width", [(2, 2), (1, 4), (1, 1)])
def test_fewer_anchors_than_candidates(height, width):
    """36, 36 and 9 anchors: all are looked at, however few candidates there may be."""
    rpn = make_rpn()
    sizes = [(16 * height, 16 * width), (16 * height - 5, 16 * width - 1)]
    counts, exact = proposals_of(rpn, *maps(rpn, 2, height, width, 0), sizes, candidates=36)
    assert exact.all() and counts.max() <= 36


def test_one_anchor_more_than_candidates_is_not_exact():
    rpn = make_rpn()
    _, exact = proposals_of(rpn, *maps(rpn, 1, 2, 2, 0), [(32, 32)], candidates=35)
    assert exact.tolist() == [False]


def test_too_few_sweeps_are_told():
    """As long as those that are settled are not P already."""
    sizes = [(96, 160)] * 3
    for limit, sweeps, truth in ((150, 1, False), (150, 20, True), (5, 1, True)):
        rpn = make_rpn(post_nms_top_n_test=limit)
        _, exact = proposals_of(rpn, *maps(rpn, 3, 6, 10, seed=0), sizes, sweeps=sweeps)
        assert exact.tolist() == [truth] * 3


def test_published_settings():
    """6000 candidates wanted, 2000 looked at: the first 300 are the same."""
    rpn = make_rpn(pre_nms_top_n_test=6000, post_nms_top_n_test=300)
    counts, exact = proposals_of(rpn, *maps(rpn, 1, 28, 40, seed=1), [(448, 630)])
    assert counts.tolist() == [300] and exact.tolist() == [True]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """Sessions of the ordinary graphs and of the form for TensorRT, by name, and the form's traced graphs."""
    _, bundle = exported_once(tmp_path_factory, "paper")
    traced = traced_for_tensorrt_once(tmp_path_factory)
    ordinary = {graph.name: session((bundle / f"{graph.name}.onnx").read_bytes()) for graph in traced}
    return ordinary, {graph.name: session(graph.model.SerializeToString()) for graph in traced}, traced


def session(data):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run(one, feeds):
    names = [output.name for output in one.get_outputs()]
    return dict(zip(names, one.run(names, feeds), strict=True))


@pytest.mark.parametrize(
    "height, width, sizes",
    [(96, 160, [(96, 150)]), (160, 96, [(150, 96), (96, 33)]), (64, 64, [(64, 64), (40, 61), (1, 1)])],
)
def test_onnx_equals_the_ordinary_graphs(graphs, height, width, sizes):
    """Batches of several sizes; then one box, and many of all images in any order."""
    ordinary, form, _ = graphs
    rng = np.random.default_rng(height)
    feeds = {
        "images": rng.normal(size=(len(sizes), 3, height, width)).astype(np.float32),
        "image_sizes": np.array(sizes, dtype=np.int64),
    }
    expected, actual = run(ordinary["detect"], feeds), run(form["detect"], feeds)
    assert list(actual) == [*expected, "exact"]
    assert actual["exact"].dtype == bool and actual["exact"].all()
    np.testing.assert_array_equal(actual["counts"], expected["counts"])
    np.testing.assert_allclose(actual["boxes"], expected["boxes"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(actual["scores"], expected["scores"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(actual["features"], expected["features"], rtol=0, atol=1e-5)
    for count in (1, 57):
        corners = np.sort(rng.uniform(-20, 180, size=(count, 2, 2)).astype(np.float32), axis=1)
        indices = rng.integers(len(sizes), size=count)
        feeds = {"features": expected["features"], "boxes": corners.reshape(count, 4), "batch_indices": indices}
        wanted, people = run(ordinary["reid"], feeds), run(form["reid"], feeds)
        np.testing.assert_allclose(people["refined_boxes"], wanted["refined_boxes"], rtol=0, atol=1e-3)
        np.testing.assert_allclose(people["embeddings"], wanted["embeddings"], rtol=0, atol=1e-5)


def test_nothing_depends_on_data_or_needs_a_plugin(graphs):
    *_, traced = graphs
    for graph in traced:
        onnx.checker.check_model(graph.model, full_check=True)
        assert not FORBIDDEN & {node.op_type for node in graph.model.graph.node}
        assert {node.domain for node in graph.model.graph.node} == {""}
        inputs = {size for spec in graph.spec.inputs.values() for size in spec.shape}
        for name, spec in graph.spec.outputs.items():
            assert all(isinstance(size, int) or size in inputs | {"H/16", "W/16"} for size in spec.shape), name
    assert traced[0].spec.outputs["exact"].shape == ("N",)


LANDSCAPE = FrameShapes((1, 64, 96), (1, 96, 160), (2, 96, 160))
PORTRAIT = FrameShapes((1, 96, 64), (2, 160, 96), (4, 160, 96))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_engines_are_built(graphs, precision, tmp_path):
    """Every graph, parsed and compiled for two profiles by TensorRT for RTX, with no plugin and no stand-in."""
    pytest.importorskip("tensorrt_rtx_bindings")
    *_, traced = graphs
    for graph in traced:
        model = graph.model if precision == "fp32" else half_graph(graph, half_features=True)
        onnx.save(model, tmp_path / f"{graph.name}.onnx")
        profiles = graph_profiles(graph.name, (LANDSCAPE, PORTRAIT), detections_per_image=40)
        plan = build_plan(TENSORRT_RTX, tmp_path / f"{graph.name}.onnx", precision, profiles)
        assert len(plan.profiles) == 2 and len(plan.data) > 100_000
        assert ("fp16" in plan.layers) == (precision == "fp16")
