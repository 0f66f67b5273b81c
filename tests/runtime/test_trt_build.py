"""Engines of tiny graphs, really built by TensorRT for RTX (no GPU is needed for that)."""

import threading

import numpy as np
import pytest
from onnx import helper
from tiny_engines import write, write_conv, write_topk

from psarm.errors import ExportError, UsageError
from psarm.runtime.tensorrt.build import BuildSettings, ShapeRange, build_plan
from psarm.runtime.tensorrt.flavour import TENSORRT_RTX

pytest.importorskip("tensorrt_rtx_bindings")

SMALL = {"x": ShapeRange((1, 3, 32, 32), (1, 3, 32, 64), (2, 3, 64, 64))}
LARGE = {"x": ShapeRange((1, 3, 64, 64), (2, 3, 64, 64), (4, 3, 128, 128))}


def build(graph, precision="fp32", profiles=(SMALL,), **more):
    return build_plan(TENSORRT_RTX, graph, precision, lambda shapes: profiles, **more)


def test_two_profiles_make_one_engine(tmp_path):
    seen, phases = [], []
    graph = write_conv(tmp_path / "conv.onnx")

    def profiles(shapes):
        seen.append(shapes)
        return [SMALL, LARGE]

    plan = build_plan(TENSORRT_RTX, graph, "fp32", profiles, on_progress=phases.append)

    assert seen == [{"x": (-1, 3, -1, -1)}]
    assert plan.profiles == (SMALL, LARGE)
    assert len(plan.data) > 10_000
    assert set(plan.layers) == {"fp32"}
    assert "Optimizing graph" in phases


def test_an_fp16_engine_holds_half_layers(tmp_path):
    plan = build(write_conv(tmp_path / "conv.onnx", half=True), "fp16")
    assert plan.layers["fp16"] > 0


def test_an_fp32_graph_is_no_fp16_engine(tmp_path):
    graph = write_conv(tmp_path / "conv.fp16.onnx")
    with pytest.raises(ExportError, match=r"conv\.fp16\.onnx is no fp16 graph: only 0 of its 1 convolutions"):
        build(graph, "fp16")


def test_an_engine_without_half_layers_is_refused_after_the_build(tmp_path):
    relu = [helper.make_node("Relu", ["x"], ["y"])]
    graph = write(tmp_path / "relu.onnx", relu, {"x": ["N", 3, "H", "W"]}, {"y": ["N", 3, "H", "W"]}, {})
    with pytest.raises(ExportError, match=r"relu\.onnx holds no fp16 layer \(its layers: 1 fp32\)"):
        build(graph, "fp16")


def test_named_gpus(tmp_path):
    graph = write_conv(tmp_path / "conv.onnx")
    plan = build(graph, settings=BuildSettings(workspace_mb=64, compute_capabilities=("8.6", "8.9", "12.0")))
    assert plan.data
    with pytest.raises(UsageError, match=r"compute capability '7\.0'; it knows 7\.5, 8\.0"):
        build(graph, settings=BuildSettings(compute_capabilities=("7.0",)))


def test_no_timing_cache_with_rtx(tmp_path):
    with pytest.raises(UsageError, match="TensorRT for RTX has no timing cache"):
        build(write_conv(tmp_path / "conv.onnx"), settings=BuildSettings(timing_cache=tmp_path / "cache"))


def test_a_node_the_parser_does_not_know_is_named(tmp_path):
    nodes = [helper.make_node("Det", ["x"], ["y"], name="determinant")]
    graph = write(tmp_path / "det.onnx", nodes, {"x": ["N", 3, 3]}, {"y": ["N"]}, {})
    with pytest.raises(ExportError, match=r"does not take the graph det\.onnx: its node 'determinant' \(Det\)"):
        build(graph)


def test_mixed_types_are_told(tmp_path):
    nodes = [helper.make_node("Add", ["x", "w"], ["y"], name="mixed")]
    graph = write(tmp_path / "mixed.onnx", nodes, {"x": ["N", 3]}, {"y": ["N", 3]}, {"w": np.ones(3, np.float16)})
    with pytest.raises(ExportError, match=r"'mixed' \(Add\) is refused: .*types Float and Half"):
        build(graph)


def test_what_the_builder_refuses_is_told(tmp_path):
    graph = write_topk(tmp_path / "topk.onnx", 6000)
    profile = {"x": ShapeRange((1, 8000), (1, 8000), (2, 8000))}
    with pytest.raises(ExportError, match=r"could not build topk\.onnx: .*the_best: K exceeds .* \(3840"):
        build(graph, profiles=[profile])


def test_no_onnx_file(tmp_path):
    file = tmp_path / "words.onnx"
    file.write_text("these are words")
    with pytest.raises(ExportError, match=r"words\.onnx: .*export the bundle again"):
        build(file)


def test_shapes_that_are_no_range():
    with pytest.raises(UsageError, match="2x3, 1x3, 4x3 are no range"):
        ShapeRange((2, 3), (1, 3), (4, 3))
    with pytest.raises(UsageError, match="no range"):
        ShapeRange((0, 3), (1, 3), (4, 3))


def test_an_input_the_profile_forgets(tmp_path):
    with pytest.raises(ExportError, match="x is missing dimensions in profile 0"):
        build(write_conv(tmp_path / "conv.onnx"), profiles=[{}])


def test_a_failing_listener_stops_the_build(tmp_path):
    def listen(phase):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(write_conv(tmp_path / "conv.onnx"), on_progress=listen)
    assert build(write_conv(tmp_path / "conv.onnx")).data, "the library still works"


def test_the_listener_is_told_from_another_thread(tmp_path):
    threads = set()
    build(write_conv(tmp_path / "conv.onnx"), on_progress=lambda phase: threads.add(threading.current_thread()))
    assert threading.main_thread() not in threads
