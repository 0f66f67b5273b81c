"""A bundle in several precisions: settings, what is written, how it is measured, and faults."""

import errno
import json

import numpy as np
import pytest
from small_models import skip_tracing
from tiny_prw import write_tiny_prw

from psarm.errors import ExportError, UsageError
from psarm.export import export_bundle, exporter
from psarm.export.precision import measure
from psarm.export.precision.answers import Answers, people_threshold
from psarm.export.precision.drift import compare, decibels, match_people, people_drift, rank_drift
from psarm.export.precision.settings import PrecisionSettings, parse_precisions
from psarm.model import load_model
from psarm.runtime import PersonSearch
from psarm.runtime.bundle import Bundle
from psarm.runtime.detections import Detections

FP16 = PrecisionSettings(("fp32", "fp16"))


@pytest.fixture
def quick(small_bundle, monkeypatch):
    """Tracing gives back the graphs traced before; yields the model they belong to."""
    skip_tracing(small_bundle.bundle, monkeypatch)
    return small_bundle.model


def people(boxes, scores, embeddings):
    return Detections(np.array(boxes, np.float32), np.array(scores, np.float32), np.array(embeddings, np.float32))


def measured_as(values, folder, monkeypatch):
    """A data set on which each precision has the given mAP; nothing else is verified."""
    monkeypatch.setattr(measure, "_accuracy", lambda engine, *rest: {"search": {"mAP": values[engine.precision]}})
    monkeypatch.setattr(PrecisionSettings, "frames_to_compare", 1)
    monkeypatch.setattr(exporter, "verify_bundle", lambda *arguments: [])
    return write_tiny_prw(folder / "prw", train=1, test=2)


def test_precisions_come_in_one_order_and_with_fp32():
    assert parse_precisions(["fp16"]) == parse_precisions(["fp16", "fp32", "fp16"]) == ("fp32", "fp16")
    assert parse_precisions([]) == ("fp32",)
    assert PrecisionSettings(("fp32", "fp16")).reduced == ("fp16",)


@pytest.mark.parametrize(
    "names, sentence",
    [(["fp8"], "There is no precision 'fp8'; needed some of fp32, fp16, int8."), (["bf16"], "bf16 needs no file")],
)
def test_unknown_precisions(names, sentence):
    with pytest.raises(UsageError, match=sentence):
        parse_precisions(names)


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"precisions": ("fp32", "int8")}, "--calibrate DATA"),
        ({"precisions": ("fp32", "fp16"), "min_map_ratio": 0.9}, "--data-root DIR"),
        ({"precisions": ("fp32", "fp16"), "min_map_ratio": 99.0, "data_root": "x"}, "at most 1"),
        ({"min_map_ratio": 0.9, "data_root": "x"}, "another one with --precision"),
        ({"precisions": ("fp16",)}, "The precisions are fp16; needed fp32, fp16 in this order"),
        ({"precisions": ("fp32", "fp16", "fp16")}, "needed fp32, fp16 in this order"),
    ],
)
def test_settings_that_do_not_go_together(values, sentence):
    with pytest.raises(UsageError, match=sentence):
        PrecisionSettings(**values)


def test_fp16_bundle(quick, tmp_path):
    said = []
    report = export_bundle(quick, tmp_path / "b", say=said.append, settings=FP16, torch_weights=True)
    manifest = Bundle.open(tmp_path / "b").manifest
    assert manifest.precisions == {
        "fp32": {"detect": "detect.onnx", "reid": "reid.onnx"},
        "fp16": {"detect": "detect.fp16.onnx", "reid": "reid.fp16.onnx"},
    }
    assert (
        manifest.weights == "model.safetensors" and load_model(tmp_path / "b" / manifest.weights).config == quick.config
    )
    assert report.sizes.keys() == report.nodes.keys() == {"detect", "reid", "detect.fp16", "reid.fp16"}
    assert report.sizes["detect.fp16"] < 0.55 * report.sizes["detect"]
    assert said[-3:] == [
        "converting to fp16…",
        "running the fp16 graphs…",
        "comparing fp16 with fp32 on 4 frames made up…",
    ]
    fp32, fp16 = report.precisions
    assert (fp32.precision, fp32.drift, fp16.precision, fp16.accuracy) == ("fp32", None, "fp16", None)
    assert all(50 < value < 120 for value in fp16.drift.snr.values())
    assert fp16.drift.people.expected > 4 and fp16.drift.people.matched_share > 0.9
    assert fp16.drift.people.cosine_min > 0.999 and fp16.drift.people.box_max < 0.5
    assert fp16.drift.ranks.queries == fp16.drift.people.expected and fp16.drift.ranks.swapped < 0.02
    json.dumps(report.to_dict(), allow_nan=False)
    with PersonSearch(tmp_path / "b", "onnxruntime", "fp16", 1) as engine:
        assert engine.precision == "fp16"


def test_without_verification_nothing_is_measured(quick, tmp_path):
    report = export_bundle(quick, tmp_path / "b", verify=False, settings=FP16)
    assert report.precisions == [] and (tmp_path / "b" / "reid.fp16.onnx").exists()
    for settings in (
        PrecisionSettings(data_root=tmp_path),
        PrecisionSettings(("fp32", "fp16"), data_root=tmp_path, min_map_ratio=0.9),
    ):
        with pytest.raises(UsageError, match="--data-root is to measure precisions on, which --no-verify leaves out"):
            export_bundle(quick, tmp_path / "c", verify=False, settings=settings)


def test_accuracy_on_a_data_set(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "verify_bundle", lambda *arguments: [])
    root = write_tiny_prw(tmp_path / "prw", train=1, test=3)
    settings = PrecisionSettings(("fp32", "fp16"), data_root=root, compare_frames=1)
    said = []
    report = export_bundle(quick, tmp_path / "b", settings=settings, say=said.append)
    assert "measuring fp32 on ONNX Runtime (1 of 2) on 3 frames and around " in said[-2]
    assert said[-1].startswith("measuring fp16 on ONNX Runtime (2 of 2)") and said[-1].endswith(" s…")
    for one in report.precisions:
        assert {"detection", "search", "search_cbgm"} <= one.accuracy.keys()
        assert 0 <= one.accuracy["search"]["mAP"] <= 1


def test_accuracy_of_fp32_alone(quick, tmp_path, monkeypatch):
    root = measured_as({"fp32": 0.25}, tmp_path, monkeypatch)
    [report] = export_bundle(quick, tmp_path / "b", settings=PrecisionSettings(data_root=root)).precisions
    assert (report.precision, report.drift, report.accuracy) == ("fp32", None, {"search": {"mAP": 0.25}})


def test_few_pictures_are_enough_without_int8(quick, tmp_path, monkeypatch):
    import cv2

    monkeypatch.setattr(exporter, "verify_bundle", lambda *arguments: [])
    (tmp_path / "pictures").mkdir()
    settings = PrecisionSettings(("fp32", "fp16"), calibrate=tmp_path / "pictures")
    with pytest.raises(UsageError, match="holds no pictures; precisions are compared on some of the scenes"):
        export_bundle(quick, tmp_path / "b", settings=settings)
    cv2.imwrite(str(tmp_path / "pictures" / "a.png"), np.full((90, 120, 3), 99, np.uint8))
    said = []
    export_bundle(quick, tmp_path / "b", settings=settings, say=said.append)
    assert said[-1] == f"comparing fp16 with fp32 on 1 picture of {tmp_path / 'pictures'}…"
    root = write_tiny_prw(tmp_path / "prw", train=1, test=3)
    settings = PrecisionSettings(("fp32", "fp16"), calibrate=root)
    assert export_bundle(quick, tmp_path / "c", settings=settings).compared_on == f"3 test frames of {root}"


@pytest.mark.parametrize("found, kept", [(0.5, False), (0.61, True)])
def test_least_share_of_map(quick, tmp_path, monkeypatch, found, kept):
    """0.8 times fp32's 0.75 is 0.6."""
    values = {"fp32": 0.75, "fp16": found}
    root = measured_as(values, tmp_path, monkeypatch)
    settings = PrecisionSettings(("fp32", "fp16"), data_root=root, min_map_ratio=0.8)
    if kept:
        export_bundle(quick, tmp_path / "b", settings=settings)
    else:
        with pytest.raises(
            ExportError, match=r"0.8 does not hold: fp32 has a mAP of 75.00, fp16 on ONNX Runtime has 50.00"
        ):
            export_bundle(quick, tmp_path / "b", settings=settings)
    assert [path.name for path in tmp_path.iterdir() if path != root] == (["b"] if kept else [])


def test_ratio_to_nothing(quick, tmp_path, monkeypatch):
    root = measured_as({"fp32": 0.0, "fp16": 0.0}, tmp_path, monkeypatch)
    settings = PrecisionSettings(("fp32", "fp16"), data_root=root, min_map_ratio=0.8)
    with pytest.raises(ExportError, match="fp32 itself has a mAP of 0"):
        export_bundle(quick, tmp_path / "b", settings=settings)


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("step", ["half_graph", "measure_precisions"])
def test_interrupted_or_out_of_disk(quick, tmp_path, monkeypatch, fault, step):
    def fail(*arguments):
        raise fault

    monkeypatch.setattr(exporter, step, fail)
    monkeypatch.setattr(exporter, "verify_bundle", lambda *arguments: [])
    with pytest.raises(type(fault)):
        export_bundle(quick, tmp_path / "b", settings=FP16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pictures", [0, 2])
def test_too_few_pictures_to_calibrate_on(quick, tmp_path, pictures):
    import cv2

    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(pictures):
        cv2.imwrite(str(folder / f"{number}.png"), np.zeros((8, 8, 3), np.uint8))
    settings = PrecisionSettings(("fp32", "int8"), calibrate=folder)
    with pytest.raises(UsageError, match=rf"{'only 2' if pictures else 'no'} pictures; int8 is calibrated on at least"):
        export_bundle(quick, tmp_path / "b", settings=settings)
    assert list(tmp_path.iterdir()) == [folder]


def test_decibels():
    signal = np.full(10, 10.0, np.float32)
    assert decibels([(signal, signal + 1)]) == pytest.approx(20)
    assert decibels([(signal, signal), (signal, signal)]) == 200
    assert decibels([]) is None and decibels([(np.zeros(3), np.ones(3))]) is None
    for noise in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            decibels([(signal, signal + noise)])


def test_people_are_matched_one_to_one():
    expected = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [50, 50, 60, 60]], np.float32)
    actual = np.array([[21, 0, 31, 10], [0, 1, 10, 11], [0, 0, 9, 10]], np.float32)
    first, second = match_people(expected, actual)
    assert (first.tolist(), second.tolist()) == ([0, 1], [2, 0])
    for a, b in ((expected[:0], actual), (expected, actual[:0])):
        assert [len(rows) for rows in match_people(a, b)] == [0, 0]


def test_drift_of_people():
    expected = people([[0, 0, 10, 10], [20, 0, 30, 10]], [0.9, 0.8], [[1, 0], [0, 1]])
    actual = people([[20, 1, 30, 10]], [0.7], [[0, 3]])
    drift = people_drift([expected], [actual], [match_people(expected.boxes, actual.boxes)])
    assert (drift.expected, drift.found, drift.matched, drift.matched_share) == (2, 1, 1, 0.5)
    assert (drift.box_mean, drift.box_max) == (0.25, 1.0)
    assert drift.score_max == pytest.approx(0.1) and drift.cosine_min == pytest.approx(1)
    nobody = people_drift([expected[:0]], [actual], [match_people(expected.boxes[:0], actual.boxes)])
    assert (nobody.found, nobody.matched_share, nobody.box_mean) == (1, 0.0, None)


def test_drift_of_ranks():
    before = np.array([[0.9, 0.5, 0.1], [0.2, 0.4, 0.9]])
    after = np.array([[0.4, 0.5, 0.1], [0.2, 0.4, 0.9]])
    elsewhere = np.ones((2, 3), bool)
    drift = rank_drift(before, after, elsewhere)
    assert (drift.queries, drift.other_first, drift.swapped) == (2, 1, pytest.approx(1 / 6))
    elsewhere[0, 0] = False
    assert rank_drift(before, after, elsewhere).other_first == 0
    alone = rank_drift(before, after, np.zeros((2, 3), bool))
    assert (alone.queries, alone.swapped) == (0, None)


def test_values_that_are_no_numbers_fail():
    def answers(value):
        tensors = {"features": np.full((1, 2), value, np.float32), "boxes": np.zeros((1, 0, 4), np.float32)}
        tensors |= {"scores": np.zeros((1, 0), np.float32), "counts": np.zeros(1, np.int64)}
        return Answers([tensors], [people(np.zeros((0, 4)), [], np.zeros((0, 2)))], [np.zeros((0, 2), np.float32)])

    drift = compare("fp16", answers(1.0), answers(1.5))
    assert drift.snr["features"] == pytest.approx(10 * np.log10(4)) and drift.snr["embeddings"] is None
    with pytest.raises(ExportError, match="fp16 graphs leave its range: features holds values that are no numbers"):
        compare("fp16", answers(1.0), answers(np.inf))


@pytest.mark.parametrize("tensor", ["embeddings", "people's scores", "people's embeddings"])
def test_people_that_are_no_numbers_fail(tensor):
    def answers(value):
        score, own, vector = (
            value if name == tensor else 0.5 for name in ("people's scores", "people's embeddings", "embeddings")
        )
        found = people([[0, 0, 10, 10]], [score], [[1, own]])
        tensors = {"boxes": np.zeros((1, 0, 4), np.float32), "scores": np.zeros((1, 0), np.float32)}
        tensors["counts"] = np.zeros(1, np.int64)
        return Answers([tensors], [found], [np.array([[1, vector]], np.float32)])

    assert compare("int8", answers(0.5), answers(0.5)).people.matched == 1
    for value in (np.nan, np.inf):
        with pytest.raises(ExportError, match=f"The int8 graphs leave its range: {tensor} holds values"):
            compare("int8", answers(0.5), answers(value))


def test_threshold_where_nobody_is_sure_enough():
    def tensors(*scores):
        return {"scores": np.array([scores], np.float32), "counts": np.array([len(scores)])}

    assert people_threshold([tensors(0.9, 0.1)], 0.5) == 0.5
    assert 0.1 < people_threshold([tensors(0.3, 0.25, 0.1)], 0.5) < 0.25
    assert people_threshold([tensors()], 0.5) == 0.5
