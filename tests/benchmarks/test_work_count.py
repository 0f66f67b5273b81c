"""Multiply-adds and bytes of graphs, against products by hand."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from toy_bundle import CHANNELS, DIM, draw_scene

from psarm.benchmarks.ceilings import Ceiling
from psarm.benchmarks.roofline import RooflineModel, reasons
from psarm.benchmarks.timing import Timing
from psarm.benchmarks.work_count import Part, Work, WorkCounter, _CountedGraph
from psarm.benchmarks.workloads import Workload
from psarm.errors import PsarmError
from psarm.runtime import Bundle
from psarm.runtime.timing import STAGES


@pytest.mark.parametrize(
    ("node", "given", "constants", "expected"),
    [
        (
            helper.make_node("Conv", ["x", "w"], ["y"], group=2, strides=[2, 2], pads=[1] * 4),
            (2, 4, 6, 8),
            {"w": (6, 2, 3, 3)},
            Part(2 * 6 * 3 * 4 * 2 * 9, 2 * 4 * 6 * 8 + 2 * 6 * 3 * 4, 6 * 2 * 9),
        ),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (2, 3, 5), {"w": (5, 7)}, Part(2 * 3 * 5 * 7, 30 + 42, 35)),
        (helper.make_node("MatMul", ["w", "x"], ["y"]), (2, 3, 5), {"w": (7, 3)}, Part(2 * 7 * 3 * 5, 30 + 70, 21)),
        (helper.make_node("MatMul", ["x", "x"], ["y"]), (4, 4), {}, Part(64, 48, 0)),
        (
            helper.make_node("Gemm", ["x", "w", "b"], ["y"], transA=1, transB=1),
            (5, 3),
            {"w": (7, 5), "b": (7,)},
            Part(3 * 5 * 7, 15 + 21, 35),
        ),
    ],
)
def test_an_operator(tmp_path, node, given, constants, expected):
    values = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in constants.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("z", "x")]
    graph = helper.make_graph([node, helper.make_node("Relu", ["y"], ["z"])], "one", ends[1:], ends[:1], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "one.onnx")
    outputs, part = _CountedGraph(str(tmp_path / "one.onnx")).run({"x": np.ones(given, np.float32)})
    assert part == expected
    assert list(outputs) == ["z"]


def test_a_bundle_by_hand(toy_bundle):
    work = WorkCounter(Bundle.open(toy_bundle)).count(draw_scene({}))
    places = 6 * 10  # 96x160 by 16
    assert work.frame == Part(places * 3 * CHANNELS, places * (3 + CHANNELS), 3 * CHANNELS)
    assert work.person == Part(4 * CHANNELS * DIM, 4 * CHANNELS + DIM, 4 * CHANNELS * DIM)


def test_a_batch_shares_its_weights():
    work = Work(Part(100, 10, 8), Part(5, 2, 4))
    assert work.macs(3) == 115
    assert work.bytes(3, 1, "fp32") == 4 * (10 + 6 + 12)
    assert work.bytes(3, 4, "int8") == 10 + 6 + 12 / 4
    assert work.bytes(0, 1, "fp16") == 2 * (10 + 8)  # nobody: the re-id graph does not run


def test_the_roofline_is_the_longer_of_arithmetic_and_memory(toy_bundle, monkeypatch):
    ceilings = {"slow": Ceiling(1e-3, 1e9, ""), "narrow": Ceiling(1e9, 1e-3, "")}
    monkeypatch.setattr("psarm.benchmarks.roofline.measure_ceiling", lambda backend, *_: ceilings[backend])
    model = RooflineModel(Bundle.open(toy_bundle), draw_scene({}), 1)
    work = model.work(Workload())
    timing = Timing(dict.fromkeys(STAGES, 10.0), 50, 50, 50, 50, 2, 1)
    slow, narrow = (model.of(name, "fp32", "CPU", Workload(), timing) for name in ceilings)
    assert (slow.bound, narrow.bound) == ("arithmetic", "memory")
    assert slow.floor_ms == pytest.approx(work.macs(2) / 1e6 * 1e3)
    assert narrow.floor_ms == pytest.approx(work.bytes(2, 1, "fp32") / 1e6 * 1e3)
    assert slow.share == pytest.approx(slow.floor_ms / 20)  # detect and re-id


def test_one_reason_for_several():
    assert reasons([("a", "x"), ("b", "y"), ("c", "x"), ("a", "x")]) == ["a, c: x", "b: y"]


def test_what_does_not_run_is_told(toy_bundle):
    counter = WorkCounter(Bundle.open(toy_bundle))
    with pytest.raises(PsarmError, match="ONNX Runtime, which counts the work, failed: "):
        counter._graphs["detect"].run({"images": np.zeros(3, np.float32)})
