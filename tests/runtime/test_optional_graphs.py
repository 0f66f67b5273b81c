"""Bundles with a refine graph, or whose re-id graph looks elsewhere than at the boxes, in the same runtime."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
import torch
import toy_bundle as toy
from onnx import TensorProto, helper, numpy_helper
from test_engine import Oracle, assert_same, random_scene
from torchvision.ops import clip_boxes_to_image

from psarm.errors import BundleError, UsageError
from psarm.runtime import Bundle, PersonSearch
from psarm.runtime.manifest import GraphSpec, TensorSpec, describe_files, schema_of, write_manifest

MOVE = np.array([-9, 4, 6, -5], np.float32)  # pixels


def make(directory, refine=False, regions=False):
    """The toy bundle; its refine graph, and its regions, are the boxes moved by MOVE."""
    toy.make_toy_bundle(directory)
    manifest = toy.toy_manifest(directory)
    graphs, files = dict(manifest.graphs), {"detect": "detect.onnx", "reid": "reid.onnx"}
    if refine:
        graphs["refine"] = GraphSpec(graphs["reid"].inputs, {"refined_boxes": TensorSpec("float32", ("R", 4))})
        files["refine"] = "refine.onnx"
        model = onnx.load(directory / "reid.onnx")
        keep = [node for node in model.graph.node if node.output[0] == "refined_boxes"]
        # An input that no node uses would be dropped: let the map take part with weight 0.
        zero = [
            helper.make_node("ReduceSum", ["features"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
            helper.make_node("Cast", ["batch_indices"], ["rows"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["rows", "zero"], ["no_rows"]),
            helper.make_node("Unsqueeze", ["no_rows", "one"], ["no_rows_2d"]),
            helper.make_node("Add", ["boxes", "no_rows_2d"], ["same"]),
            helper.make_node("Add", ["same", "nothing"], ["same_boxes"]),
        ]
        keep[0].input[0] = "same_boxes"
        constants = {"shift": MOVE, "zero": np.array(0, np.float32), "one": np.array([1])}
        rewrite(model, [*zero, *keep], constants, ["refined_boxes"])
        onnx.save(model, directory / "refine.onnx")
    if regions:
        spec = dict(graphs["detect"].outputs)
        spec["regions"] = spec["boxes"]
        graphs["detect"] = GraphSpec(graphs["detect"].inputs, spec)
        model = onnx.load(directory / "detect.onnx")
        model.graph.node.append(helper.make_node("Add", ["boxes", "move"], ["regions"]))
        model.graph.initializer.append(numpy_helper.from_array(MOVE, "move"))
        shape = ["N", toy.PROPOSALS, 4]
        model.graph.output.append(helper.make_tensor_value_info("regions", TensorProto.FLOAT, shape))
        onnx.save(model, directory / "detect.onnx")
    described = describe_files(directory, files.values())
    changes = {"schema": schema_of(graphs), "graphs": graphs, "precisions": {"fp32": files}, "files": described}
    write_manifest(directory, dataclasses.replace(manifest, **changes))
    return directory


def rewrite(model, nodes, constants, outputs):
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    kept = [output for output in model.graph.output if output.name in outputs]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.checker.check_model(model, full_check=True)


class Moved(Oracle):
    """The oracle with a look at moved boxes, clipped first where a graph of its own moved them."""

    def __init__(self, frames, clipped):
        super().__init__(frames)
        self.clipped = clipped
        self.given = False

    def _reid(self, number, boxes):
        if not self.given:
            boxes = boxes + torch.from_numpy(MOVE)
            boxes = clip_boxes_to_image(boxes, self.sizes[number]) if self.clipped else boxes
        self.given = True  # a given box is embedded where it is
        return super()._reid(number, boxes)

    def _detect(self, number, around):
        self.given = False
        return super()._detect(number, around)


@pytest.fixture(scope="module", params=["refine", "regions"])
def moved(request, tmp_path_factory):
    kind = {request.param: True}
    directory = make(tmp_path_factory.mktemp("moved") / "bundle", **kind)
    with PersonSearch(directory, threads=1) as engine:
        yield engine, request.param == "refine"


def test_batches_equal_the_oracle(moved):
    engine, clipped = moved
    rng = np.random.default_rng(5)
    for _ in range(6):
        frames = [random_scene(rng), random_scene(rng, cells=[]), random_scene(rng)]
        for people, expected in zip(engine.detect(frames), Moved(frames, clipped).detect(), strict=True):
            assert_same(people, expected)
    assert len(engine.detect(toy.draw_scene({}))) == 0


def test_a_given_box_is_not_moved(moved):
    engine, clipped = moved
    rng = np.random.default_rng(6)
    for _ in range(6):
        frame = random_scene(rng)
        box = [0.2 * frame.shape[1], 0.1 * frame.shape[0], 0.6 * frame.shape[1], 0.8 * frame.shape[0]]
        [expected] = Moved([frame], clipped).detect(around=box)
        assert_same(engine.detect_around(frame, box), expected)
        np.testing.assert_allclose(engine.embed(frame, [box])[0], expected[2][0], atol=1e-5)


def test_refining_nobody_is_refused_by_the_backend(moved):
    engine, refines = moved
    features = np.zeros((1, toy.CHANNELS, 6, 10), np.float32)
    nobody = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    assert engine._backend.refines is refines
    with pytest.raises(UsageError, match="needs at least one box"):
        engine._backend.run_refine(features, *nobody)


@pytest.mark.parametrize("part", ["refine", "regions"])
def test_an_optional_part_needs_a_schema_that_tells_of_it(tmp_path, part):
    directory = make(tmp_path / "bundle", **{part: True})
    assert Bundle.open(directory).manifest.schema == 2
    path = directory / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 1}))
    with pytest.raises(BundleError, match="schema is 1; needed 2, which tells of its optional parts"):
        Bundle.open(directory)


def test_a_refine_graph_must_have_a_file_and_take_what_detect_gives(tmp_path):
    directory = make(tmp_path / "bundle", refine=True)
    good = Bundle.open(directory).manifest
    files = {"detect": "detect.onnx", "reid": "reid.onnx"}
    for changes, says in (
        ({"precisions": {"fp32": files}}, "a file for the graph 'refine'"),
        ({"graphs": {**good.graphs, "later": good.graphs["reid"]}}, "no graphs but detect, refine, reid"),
        ({"graphs": {**good.graphs, "refine": other_channels(good.graphs["refine"])}}, "what the detect graph gives"),
        ({"graphs": {**good.graphs, "refine": good.graphs["reid"]}}, r"graphs.refine.outputs"),
    ):
        with pytest.raises(BundleError, match=says):
            dataclasses.replace(good, **changes)


def other_channels(spec):
    return GraphSpec({**spec.inputs, "features": TensorSpec("float32", ("N", 5, "h", "w"))}, spec.outputs)
