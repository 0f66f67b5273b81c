"""INT8 graphs: where pairs stand, what their grids are, which layers stay, and that runtimes really compute in int8."""

import dataclasses
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import exported_once

from psarm.config import load_config
from psarm.errors import ExportError
from psarm.export.precision import ranges, sensitivity
from psarm.export.precision.calibration import MIN_FRAMES, read_calibration
from psarm.export.precision.int8 import quantise
from psarm.export.precision.layers import Layer, find_layers
from psarm.export.precision.measure import MeasuringData, measure_precisions
from psarm.export.precision.qdq import insert_pairs, rounded_activations
from psarm.export.precision.ranges import Histogram, Observer
from psarm.export.precision.sections import Section
from psarm.export.precision.sensitivity import choose_layers
from psarm.export.precision.settings import PrecisionSettings
from psarm.export.verify_inputs import make_frame
from psarm.runtime.backends.openvino import OpenVINOBackend
from psarm.runtime.bundle import Bundle
from psarm.runtime.engine import PersonSearch
from psarm.runtime.images import read_image
from psarm.runtime.manifest import describe_files, write_manifest

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with as many pictures as are needed."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(MIN_FRAMES):
        cv2.imwrite(str(folder / f"{number:02d}.png"), make_frame(96, 150, rng))
    return folder


@pytest.fixture(scope="module", params=["paper", "released", "seqnet"])
def int8(request, tmp_path_factory, pictures):
    """`variant`, the `fp32` graphs, what `quantise` gives, and a bundle whose `int8` is that."""
    _, source = exported_once(tmp_path_factory, request.param)
    return quantised_bundle(request.param, source, pictures, tmp_path_factory.mktemp(request.param))


def quantised_bundle(variant, source, pictures, folder):
    bundle = Bundle.open(source)
    manifest = bundle.manifest
    fp32 = {name: onnx.load(source / f"{name}.onnx") for name in manifest.graphs}
    quantised = quantise(fp32, read_calibration(pictures, manifest.preprocessing), manifest.thresholds)
    precisions = {"fp32": manifest.precisions["fp32"], "int8": {name: f"{name}.int8.onnx" for name in fp32}}
    for name in fp32:
        onnx.save(fp32[name], folder / precisions["fp32"][name])
        onnx.save(quantised.models[name], folder / precisions["int8"][name])
    files = describe_files(folder, [file for graphs in precisions.values() for file in graphs.values()])
    write_manifest(folder, dataclasses.replace(manifest, precisions=precisions, files=files))
    return SimpleNamespace(variant=variant, fp32=fp32, quantised=quantised, bundle=Bundle.open(folder))


def test_inputs_and_outputs_stay(int8):
    for name, model in int8.quantised.models.items():
        onnx.checker.check_model(model, full_check=True)
        assert list(model.graph.input) == list(int8.fp32[name].graph.input)
        assert list(model.graph.output) == list(int8.fp32[name].graph.output)


def test_grids(int8):
    """int8 weights with a scale an output, zero everywhere 0, unsigned only where nothing is negative."""
    for model in int8.quantised.models.values():
        values = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
        dequantise = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
        assert all(not values[node.input[2]].any() for node in dequantise)
        weights = [node for node in dequantise if node.input[0] in values]
        assert weights
        for node in weights:
            axis = next(one.i for one in node.attribute if one.name == "axis")
            assert values[node.input[0]].dtype == np.int8
            assert values[node.input[1]].shape == (values[node.input[0]].shape[axis],)
            assert values[node.input[0]].min() >= -127


def test_what_is_quantised(int8):
    """Convolutions and ARM's products; neither the predictors nor what is behind them."""
    for name, model in int8.quantised.models.items():
        weights = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
        taking = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
        integer = [node for node in taking if all(value in weights for value in node.input[:2])]
        assert len(integer) == int8.quantised.layers[name] >= 5
        assert not {node.op_type for node in integer} & {"Gemm"}
        assert not {"objectness", "deltas"} & {node.output[0] for node in integer}
        assert len(find_layers(int8.fp32[name])) == int8.quantised.layers[name]
    assert int8.quantised.kept == []


def test_signals(int8):
    signals = int8.quantised.snr
    own = [] if int8.variant == "seqnet" else ["map.head_features"]
    names = ["map.objectness", "map.deltas", "map.features", *own, "head.boxes", "head.scores"]
    assert list(signals) == [*names, "reid.refined_boxes", "reid.embeddings"]
    assert min(signals.values()) > 20
    assert int8.quantised.to_dict()["calibration"].startswith(f"all {MIN_FRAMES} pictures of ")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_people_stay(int8, backend, pictures):
    """Every runtime finds in int8 whom ONNX Runtime finds in fp32."""
    if backend == "openvino":
        pytest.importorskip("openvino")
    frame = read_image(pictures / "03.png")
    with (
        PersonSearch(int8.bundle, "onnxruntime", "fp32", 1) as exact,
        PersonSearch(int8.bundle, backend, "int8", 1) as rough,
    ):
        box = np.asarray([[20, 10, 60, 80]], np.float32)
        assert (exact.embed(frame, box) @ rough.embed(frame, box).T).item() > 0.98
        expected, found = (engine.detect(frame).scores for engine in (exact, rough))
    assert abs(len(expected) - len(found)) <= max(3, len(expected) // 3)
    best = min(len(expected), len(found), 3)
    assert np.abs(expected[:best] - found[:best]).max(initial=0) < 0.1


@pytest.mark.parametrize("int8", ["paper"], indirect=True)
@pytest.mark.parametrize("loads", [True, False])
def test_openvino_is_measured_where_it_is_installed(int8, pictures, monkeypatch, loads):
    if loads:
        pytest.importorskip("openvino")
    else:
        status = (False, "openvino is not installed; install it with: pip install 'psarm[openvino]'")
        monkeypatch.setattr(OpenVINOBackend, "probe", staticmethod(lambda: status))
    settings = PrecisionSettings(("fp32", "int8"), calibrate=pictures, compare_frames=5)
    calibration = read_calibration(pictures, int8.bundle.manifest.preprocessing, compare=5)
    data = MeasuringData.read(settings, calibration)
    said = []
    reports = measure_precisions(int8.bundle.path, [], settings, data, said.append)
    assert said[0] == f"comparing int8 with fp32 on 5 pictures of {pictures}, all of which int8 was calibrated on…"
    assert [one.title for one in reports] == ["fp32 on ONNX Runtime", "int8 on ONNX Runtime", "int8 on OpenVINO"][
        : 2 + loads
    ]
    for drift in (one.drift for one in reports[1:]):
        assert (drift.frames, drift.tensor_frames) == (5, 4) and drift.ranks.queries == drift.people.expected > 0
        assert drift.snr["features"] > 15 and drift.people.matched_share > 0.4
    if loads:
        here, there = (one.drift for one in reports[1:])
        assert said[1:] == [] and reports[2].device.startswith("CPU")
        assert (here.snr["deltas"] is None, there.snr["deltas"] is None) == (False, True)
        assert here.snr["features"] != there.snr["features"]
    else:
        assert said[1:] == [f"int8 is measured on ONNX Runtime only, not as openvino runs it: {status[1]}"]


def test_onnxruntime_computes_in_integers(int8, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    path = int8.bundle.graph_path("int8", "detect")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert kinds["QLinearConv"] > 0.6 * int8.quantised.layers["detect"]
    assert kinds["QLinearAdd"] > 0


def test_openvino_computes_in_integers(int8):
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    if "INT8" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no int8")
    compiled = core.compile_model(int8.bundle.graph_path("int8", "detect"), "CPU")
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    layers = [(info["layerType"].astype(str), info["runtimePrecision"].astype(str)) for info in infos]
    heavy = [precision for kind, precision in layers if kind in ("Convolution", "FullyConnected", "MatMul")]
    assert sum(precision in ("u8", "i8") for precision in heavy) == int8.quantised.layers["detect"]


def test_nothing_proposed(small_bundle, pictures):
    """A detect graph that proposes nothing leaves the graphs after it without anything to be calibrated on."""
    models = {name: onnx.load(small_bundle.bundle / f"{name}.onnx") for name in ("detect", "reid")}
    manifest = Bundle.open(small_bundle.bundle).manifest
    for one in models["detect"].graph.initializer:
        if one.name == "rpn_head.bbox_pred.bias":
            shape = tuple(one.dims)
            far = np.tile(np.asarray([1e4, 1e4, 0, 0], np.float32), shape[0] // 4)
            one.CopyFrom(numpy_helper.from_array(far, one.name))
    with pytest.raises(ExportError, match="proposes nothing on the calibration pictures"):
        quantise(models, read_calibration(pictures, manifest.preprocessing), manifest.thresholds)


# Toy graphs against oracles


def toy_graph(rng):
    """Convolution, ReLU, a convolution added to what came in, ReLU, largest of every map; then a product."""
    shapes = {"first.weight": (8, 8, 3, 3), "second.weight": (8, 8, 1, 1), "product": (8, 16)}
    weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    weights["axes"] = np.asarray([2, 3])
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "first.weight"], ["a"], name="conv_a", pads=[1, 1, 1, 1]),
        make("Relu", ["a"], ["b"], name="relu_b"),
        make("Conv", ["b", "second.weight"], ["c"], name="conv_c"),
        make("Add", ["c", "b"], ["d"], name="add_d"),
        make("Relu", ["d"], ["e"], name="relu_e"),
        make("ReduceMax", ["e", "axes"], ["f"], name="max_f", keepdims=0),
        make("MatMul", ["f", "product"], ["y"], name="product_y"),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), weights


def run(model, x, optimise=True):
    options = onnxruntime.SessionOptions()
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def observed(model, layers, xs):
    observer = Observer(model, rounded_activations(model, layers), ["y"])
    for x in xs:
        observer.run({"x": x})
    return observer.histograms


def test_pairs_of_a_toy_graph(monkeypatch):
    monkeypatch.setattr(ranges, "_STEP", 1)  # the noise's few peaks, which are all that is left here, are counted too
    rng = np.random.default_rng(0)
    model, weights = toy_graph(rng)
    layers = find_layers(model)
    assert [(one.name, one.source, one.axis) for one in layers] == [
        ("first", "x", 0),
        ("second", "b", 0),
        ("product_y", "f", 1),
    ]
    assert rounded_activations(model, layers) == ["x", "b", "c", "f"]  # e by what its pooling leaves
    xs = [rng.normal(0, 1, (1, 8, 39, 37)).astype(np.float32) for _ in range(5)]
    histograms = observed(model, layers, xs)

    def rounded(name, value):
        levels = 127 if histograms[name].negative else 255
        scale = np.float32(histograms[name].limit(levels) / levels)
        low = -128 if levels == 127 else 0
        return (np.rint(value / scale).clip(low, levels) * scale).astype(np.float32)

    def rounded_weight(name, axis):
        others = tuple(one for one in range(weights[name].ndim) if one != axis)
        scale = np.abs(weights[name]).max(axis=others, keepdims=True) / np.float32(127)
        return (np.rint(weights[name] / scale) * scale).astype(np.float32)

    def convolve(x, weight):
        import torch

        pad = weight.shape[2] // 2
        return torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(weight), padding=pad).numpy()

    quantised = insert_pairs(model, layers, histograms)
    for x in xs:
        b = rounded("b", np.maximum(convolve(rounded("x", x), rounded_weight("first.weight", 0)), 0))
        c = rounded("c", convolve(b, rounded_weight("second.weight", 0)))
        e = rounded("f", np.maximum(c + b, 0))
        y = rounded("f", e.max(axis=(2, 3))) @ rounded_weight("product", 1)
        assert run(quantised, x, optimise=False) == pytest.approx(y, abs=0.03)
        assert run(quantised, x) == pytest.approx(y, abs=0.03)
        assert run(model, x) == pytest.approx(y, abs=0.6)


def test_layers_left_out_stay_as_they_were():
    rng = np.random.default_rng(1)
    model, _ = toy_graph(rng)
    first = find_layers(model)[:1]
    x = rng.normal(0, 1, (1, 8, 5, 5)).astype(np.float32)
    quantised = insert_pairs(model, first, observed(model, first, [x]))
    nodes = {node.name: node for node in quantised.graph.node}
    assert list(nodes["conv_c"].input) == ["b", "second.weight"]
    assert list(nodes["conv_a"].input) == ["x.dq", "first.weight.dq"]
    assert insert_pairs(model, [], {}).graph == model.graph


@pytest.mark.parametrize("levels", [127, 255])
@pytest.mark.parametrize("kind", ["normal", "outlier", "uniform"])
def test_limits_have_the_least_error(levels, kind):
    rng = np.random.default_rng(3)
    values = np.abs(rng.normal(0, 2, 20_000)).astype(np.float32)
    if kind == "outlier":
        values[0] = 400
    if kind == "uniform":
        values = rng.uniform(0, 3, 20_000).astype(np.float32)
    histogram = Histogram()
    for part in np.split(values, 4):
        histogram.add(part)

    def error(limit):
        scale = limit / levels
        return np.square(np.rint(values / scale).clip(0, levels) * scale - values).sum()

    best = min(error(share * values.max()) for share in np.linspace(0.02, 1, 99))
    assert error(histogram.limit(levels)) < 1.1 * best


def test_histogram_of_zeros_and_signs():
    histogram = Histogram()
    histogram.add(np.zeros(5, np.float32))
    assert histogram.limit(127) == 1.0
    assert not histogram.negative
    histogram.add(np.asarray([0.5, -1e-3], np.float32))
    assert histogram.negative
    assert 0.4 < histogram.limit(127) < 0.51


def test_blocks():
    def block(name):
        return Layer("node", name, "x", "w", "y", 0).block

    assert block("backbone.conv1") == "backbone.conv1"
    assert block("backbone.layer2.0.downsample.0") == "backbone.layer2.0"
    assert block("head.trunk.res5.1.conv2") == "head.trunk.res5.1"
    assert block("head.trunk.mixer.token_mixer.mlp.fc1") == "head.trunk.mixer.token_mixer"


def test_sensitive_blocks_are_left_out():
    """The layer whose inputs hardly fit one grid goes first; further ones only until it is enough."""
    rng = np.random.default_rng(4)
    model, weights = toy_graph(rng)
    one = next(one for one in model.graph.initializer if one.name == "first.weight")
    lopsided = weights["first.weight"] * np.asarray([1e3, *[1] * 7], np.float32)[None, :, None, None]
    one.CopyFrom(numpy_helper.from_array(lopsided, one.name))
    scale = np.asarray([1e-3, *[1] * 7], np.float32)[None, :, None, None]
    xs = [rng.normal(0, 1, (1, 8, 39, 37)).astype(np.float32) * scale for _ in range(4)]
    layers = find_layers(model)
    histograms = observed(model, layers, xs)
    section = Section("toy", model, {"y": "y"}, [{"x": x} for x in xs])
    whole = choose_layers(section, layers, histograms, target=0)
    assert (whole.layers, whole.sensitive) == (layers, [])
    said = []
    enough = choose_layers(section, layers[1:], histograms, target=0).snr["y"] - 0.1
    choice = choose_layers(section, layers, histograms, target=enough, say=said.append)
    assert [found.block for found in choice.sensitive] == ["first"]
    assert choice.sensitive[0].signal == "y"
    assert choice.sensitive[0].snr < whole.snr["y"] + 3
    assert choice.layers == layers[1:]
    assert choice.snr["y"] >= enough > whole.snr["y"] + 3
    assert len(said) == 1
    assert said[0].startswith(f"toy: {whole.snr['y']:.1f} dB")
    nothing = choose_layers(section, layers, histograms, target=500)
    assert nothing.layers == []
    assert len(nothing.sensitive) == len(layers)


def test_ratios_that_are_no_numbers_are_not_enough(monkeypatch):
    """Wherever they stand among the signals."""
    model, _ = toy_graph(np.random.default_rng(5))
    layers = find_layers(model)
    x = np.random.default_rng(6).normal(0, 1, (1, 8, 9, 9)).astype(np.float32)
    histograms = observed(model, layers, [x])
    section = Section("toy", model, {"y": "y"}, [{"x": x}])
    for ratios in ({"a": 30.0, "b": np.nan}, {"a": np.nan, "b": 30.0}):
        monkeypatch.setattr(sensitivity, "snr", lambda expected, actual, ratios=ratios: ratios)
        choice = choose_layers(section, layers, histograms)
        assert choice.layers == []
        assert {one.signal for one in choice.sensitive} == {name for name, ratio in ratios.items() if np.isnan(ratio)}


def test_samples_come_from_every_column():
    """Of a map of RoIs in each preset's size, as it is and halved by res5, every cell is counted."""
    sizes = {load_config(path).model.roi_shape for path in sorted(CONFIGS.glob("*.yaml"))}
    assert len(sizes) > 4
    for height, width in sizes | {(-(-height // 2), -(-width // 2)) for height, width in sizes}:
        cells = height * width
        assert height % ranges._STEP and width % ranges._STEP
        counted = np.arange(0, cells * ranges._STEP, ranges._STEP) % cells
        assert len(set(counted)) == cells
