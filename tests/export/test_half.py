"""FP16 graphs: what is half, what stays float32, and that the answers stay close."""

import importlib

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from small_models import VARIANTS, exported_once
from torch import nn

from psarm.errors import ExportError
from psarm.export.precision.half import FLOAT_OWNERS, HALF_OWNERS, half_graph, owner_of, rounded_graph
from psarm.export.tracing import TracedGraph
from psarm.export.verify_half import verify_half
from psarm.runtime.bundle import Bundle

ISLANDS = {"DetectGraph", "ProposalGraph", "RefineGraph", "ReidGraph", "SimAMGraph", "DetectionHeadGraph"}


@pytest.fixture(scope="module", params=["paper", "seqnet"])
def graphs(request, tmp_path_factory):
    """The traced graphs of a small model, by name."""
    return traced(tmp_path_factory, request.param)


def traced(factory, variant):
    assert variant in VARIANTS
    _, bundle = exported_once(factory, variant)
    specs = Bundle.open(bundle).manifest.graphs
    return {name: TracedGraph(name, onnx.load(bundle / f"{name}.onnx"), spec) for name, spec in specs.items()}


def types_of(model):
    """Element type of every value, by inference."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        one.name: one.data_type for one in graph.initializer
    }


def feeds_of(name, features=None):
    rng = np.random.default_rng(3)
    if name == "detect":
        images = rng.normal(size=(2, 3, 96, 160)).astype(np.float32)
        return {"images": images, "image_sizes": np.array([[96, 150], [80, 160]])}
    boxes = np.array([[0.0, 0, 40, 90], [20, 10, 70, 60], [5, 3, 90, 50]], np.float32)
    return {"features": features, "boxes": boxes, "batch_indices": np.array([0, 1, 1])}


def run(model, feeds):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def decibels(expected, actual):
    noise = np.square(expected.astype(np.float64) - actual).sum()
    return 10 * np.log10(np.square(expected.astype(np.float64)).sum() / noise)


def test_weights_and_activations_are_half(graphs):
    for graph in graphs.values():
        half = half_graph(graph)
        onnx.checker.check_model(half, full_check=True)
        types = types_of(half)
        layers = [node for node in half.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
        assert len(layers) > 4
        for node in layers:
            assert {types[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}, node.name
        assert half.ByteSize() < 0.55 * graph.model.ByteSize()


def test_islands_are_float32(graphs):
    seen = set()
    for graph in graphs.values():
        half = half_graph(graph)
        types = types_of(half)
        for node in half.graph.node:
            owner = (owner_of(node) or "").rsplit(".", 1)[-1]
            if owner in ISLANDS or node.op_type in ("RoiAlign", "LayerNormalization"):
                seen |= {owner, node.op_type}
                assert TensorProto.FLOAT16 not in {types[name] for name in (*node.input, *node.output) if name}
    assert seen >= {"DetectGraph", "ProposalGraph", "ReidGraph", "RoiAlign", "TopK", "NonMaxSuppression", "Sqrt"}


@pytest.mark.parametrize("name", sorted(HALF_OWNERS | FLOAT_OWNERS))
def test_modules_that_are_named_exist(name):
    """One that is renamed would go to the other side without a word."""
    module, owner = name.rsplit(".", 1)
    assert issubclass(getattr(importlib.import_module(module), owner), nn.Module)


def test_simam_is_an_island(tmp_path_factory):
    """Its squares overflow, so that it must not become a part of the mixer that cannot be told apart."""
    graph = traced(tmp_path_factory, "paper")["reid"]
    inside = [node.op_type for node in graph.model.graph.node if (owner_of(node) or "").endswith(".SimAMGraph")]
    assert {"ReduceMean", "ReduceSum", "Div", "Sigmoid"} <= set(inside)


def test_nothing_is_rounded_within_an_island(graphs):
    """No cast to half is undone by the node that takes it, and no value is cast twice."""
    for graph in graphs.values():
        nodes = half_graph(graph).graph.node
        casts = [node for node in nodes if node.op_type == "Cast" and node.name.startswith("cast_")]
        made = {node.output[0] for node in casts}
        assert not [node.name for node in casts if node.input[0] in made]
        assert (
            len({(node.input[0], node.attribute[0].i) for node in casts}) >= len(casts) - 1
        )  # features: inner and out
        assert len(casts) < 25


def test_inputs_and_outputs_keep_names_and_types(graphs):
    for graph in graphs.values():
        half = half_graph(graph)
        for before, after in (
            (graph.model.graph.input, half.graph.input),
            (graph.model.graph.output, half.graph.output),
        ):
            assert [str(value) for value in before] == [str(value) for value in after]


def test_features_may_stay_half(graphs):
    detect = half_graph(graphs["detect"], half_features=True)
    reid = half_graph(graphs["reid"], half_features=True)
    for model in (detect, reid):
        onnx.checker.check_model(model, full_check=True)
    features = run(detect, feeds_of("detect"))["features"]
    assert features.dtype == np.float16
    same = run(half_graph(graphs["detect"]), feeds_of("detect"))["features"]
    assert decibels(same, features) > 60
    embeddings = run(reid, feeds_of("reid", features))["embeddings"]
    assert embeddings.dtype == np.float32 and embeddings.shape[0] == 3


def test_answers_stay_close(graphs):
    features = run(graphs["detect"].model, feeds_of("detect"))["features"]
    feeds = feeds_of("reid", features)
    expected = run(graphs["reid"].model, feeds)
    for model in (half_graph(graphs["reid"]), rounded_graph(graphs["reid"])):
        onnx.checker.check_model(model, full_check=True)
        answer = run(model, feeds)
        assert decibels(expected["embeddings"], answer["embeddings"]) > 55
        assert np.abs(expected["refined_boxes"] - answer["refined_boxes"]).max() < 0.05
    for model in (half_graph(graphs["detect"]), rounded_graph(graphs["detect"])):
        assert decibels(features, run(model, feeds_of("detect"))["features"]) > 50


def test_openvino_runs_it(graphs):
    openvino = pytest.importorskip("openvino")
    features = run(graphs["detect"].model, feeds_of("detect"))["features"]
    feeds = feeds_of("reid", features)
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(half_graph(graphs["reid"]).SerializeToString()), "CPU")
    embeddings = compiled(feeds)["embeddings"]
    assert decibels(run(graphs["reid"].model, feeds)["embeddings"], embeddings) > 30  # bfloat16 where the CPU has it


def test_rounded_graph_overflows_where_half_does(tmp_path_factory):
    """It stands for a device with half arithmetic; ONNX Runtime's CPU runs the FP16 graph itself in float32."""
    graph = traced(tmp_path_factory, "seqnet")["reid"]
    feeds = feeds_of("reid", np.full((2, 64, 6, 10), 5e4, np.float32))
    assert np.isfinite(run(half_graph(graph), feeds)["embeddings"]).all()
    assert not np.isfinite(run(rounded_graph(graph), feeds)["embeddings"]).all()


def test_weights_beyond_half_are_refused(tmp_path_factory):
    graph = traced(tmp_path_factory, "seqnet")["reid"]
    layer = next(node for node in graph.model.graph.node if node.op_type == "Conv")
    weight = next(one for one in graph.model.graph.initializer if one.name == layer.input[1])
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 1e6, weight.name))
    with pytest.raises(ExportError, match="beyond half's largest number 65504"):
        half_graph(graph)


@pytest.mark.parametrize("graph, output", [("detect", "features"), ("reid", "embeddings"), ("reid", "refined_boxes")])
@pytest.mark.parametrize("fault, phrase", [("nan", "are no numbers"), ("half of it", r"dB of fp32's, less than 20")])
def test_written_graphs_are_run(graphs, graph, output, fault, phrase):
    """A fault that only running a graph shows."""
    exact = {name: one.model for name, one in graphs.items()}
    half = {name: half_graph(one) for name, one in graphs.items()}
    verify_half(exact, half)
    factor = np.float32(np.nan if fault == "nan" else 0.5)
    broken = half[graph].graph
    for node in broken.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                names[position] = f"{name}.right" if name == output else name
    broken.initializer.append(onnx.numpy_helper.from_array(np.asarray(factor), "factor"))
    broken.node.append(onnx.helper.make_node("Mul", [f"{output}.right", "factor"], [output]))
    with pytest.raises(ExportError, match=f"fp16 form of {graph} leaves half's range or precision: {output}.*{phrase}"):
        verify_half(exact, half)
