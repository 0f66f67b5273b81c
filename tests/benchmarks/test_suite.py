"""Whole benchmarks on the toy bundle and a tiny torch model, against the metrics computed by hand."""

import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest

from psarm.benchmarks import BenchSettings, contenders, run_benchmark
from psarm.benchmarks.baselines import HISTOGRAM, UNTRAINED
from psarm.benchmarks.compare import compare_reports
from psarm.benchmarks.facts import gather_facts, git_commit
from psarm.benchmarks.histogram import histogram_embeddings
from psarm.data.readers import READERS
from psarm.errors import BundleError, DataError, ImageError, PsarmError, UsageError
from psarm.evaluation import (
    DetectionSet,
    DetectionsFile,
    ImageDetections,
    SearchProtocol,
    evaluate_search,
    ground_truth_detections,
    read_detections,
    score_detections,
)
from psarm.runtime import PersonSearch, read_image
from psarm.runtime.backends.onnxruntime import OnnxRuntimeBackend


def settings(data, bundle=None, **changes):
    chosen = {"data_root": data.root, "bundle": bundle, "threads": 1, "frames": 2, "quick": True}
    return BenchSettings(**{**chosen, "backends": ("onnxruntime",) if bundle else (), **changes})


@pytest.fixture(scope="module")
def by_hand(dataset, toy_bundle):
    """Detections of the toy bundle with contexts, one call a frame and query."""
    with PersonSearch(toy_bundle, "onnxruntime", threads=1) as engine:
        gallery = [engine.detect(read_image(frame.path)) for frame in dataset.gallery]
        queries = [engine.embed(read_image(query.path), query.box[None])[0] for query in dataset.queries]
        contexts = [engine.detect_around(read_image(query.path), query.box) for query in dataset.queries]
        truth = np.concatenate([engine.embed(read_image(frame.path), frame.boxes) for frame in dataset.gallery])
    names = [frame.name for frame in dataset.gallery]
    return DetectionsFile(names, as_set(gallery), np.stack(queries), as_set(contexts)), truth


def with_galleries(dataset):
    """The data set as if its protocol listed four images a query (gallery 100, the default) and two (50)."""
    rng = np.random.default_rng(0)
    galleries = {
        name: [rng.choice(len(dataset.gallery), length, replace=False) for _ in dataset.queries]
        for name, length in (("50", 2), ("100", 4))
    }
    return dataclasses.replace(dataset, galleries=galleries, default_gallery="100", cbgm=(10, 3))


def as_set(people):
    return DetectionSet.from_images([ImageDetections(p.boxes, p.scores, p.embeddings) for p in people])


def test_a_bundles_row_has_the_metrics_of_its_detections(dataset, toy_bundle, by_hand):
    found, truth = by_hand
    report = run_benchmark(settings(dataset, toy_bundle, cbgm=True, gt_boxes=True))
    [row] = report.rows
    assert (row.name, row.precision, row.device, row.ok) == ("onnxruntime", "fp32", "CPU, 1 thread", True)
    assert row.size_bytes == sum((toy_bundle / f"{graph}.onnx").stat().st_size for graph in ("detect", "reid"))
    protocol = SearchProtocol.from_dataset(dataset)
    expected = score_detections(protocol, found)
    boxes = ground_truth_detections(protocol, truth)
    expected["search_gt_boxes"] = evaluate_search(protocol, boxes, found.query_embeddings).to_dict()
    assert set(row.metrics) == set(expected)
    for group, metrics in expected.items():
        assert row.metrics[group] == pytest.approx(metrics, abs=1e-9), group
    assert row.metrics["detection"]["ap"] == 1 and 0.5 < row.metrics["search"]["mAP"] < 1


def test_without_cbgm_no_contexts_are_measured(dataset, toy_bundle, by_hand):
    [row] = run_benchmark(settings(dataset, toy_bundle)).rows
    expected = score_detections(dataset, dataclasses.replace(by_hand[0], context=None))
    assert row.metrics == expected


def test_listed_galleries(dataset, toy_bundle, by_hand, monkeypatch, checkpoint):
    found, truth = by_hand
    listed = with_galleries(dataset)
    monkeypatch.setitem(READERS, "cuhk-sysu", lambda root: listed)
    sizes = ("50", "full")
    changes = {"dataset": "cuhk-sysu", "gallery_sizes": sizes, "cbgm": True, "gt_boxes": True, "baselines": True}
    report = run_benchmark(settings(dataset, toy_bundle, **changes))
    protocol = SearchProtocol.from_dataset(listed)
    expected = score_detections(protocol, found, gallery_sizes=sizes)
    boxes = ground_truth_detections(protocol, truth)
    expected["search_gt_boxes"] = evaluate_search(protocol, boxes, found.query_embeddings).to_dict()
    searches = [f"search{size}{cbgm}" for size in ("", "_50", "_full") for cbgm in ("", "_cbgm")]
    assert set(expected) == {"detection", *searches, "search_cross_camera", "search_gt_boxes"}
    for group, metrics in expected.items():
        assert report.rows[0].metrics[group] == pytest.approx(metrics, abs=1e-9), group
    assert report.rows[0].metrics["search"] != report.rows[0].metrics["search_full"]
    assert [row.name for row in report.rows] == ["onnxruntime", HISTOGRAM, UNTRAINED]
    assert set(report.rows[1].metrics) == {
        group for group in expected if not group.endswith("_cbgm") and group != "search_gt_boxes"
    }
    assert report.facts.dataset.default_gallery == "100"
    [row] = run_benchmark(settings(dataset, checkpoint=checkpoint, dataset="cuhk-sysu", gallery_sizes=("50",))).rows
    assert "search_50" in row.metrics


def test_a_gallery_that_is_not_there_is_known_before_anything_runs(dataset, toy_bundle, monkeypatch):
    monkeypatch.setattr("psarm.benchmarks.contenders.PersonSearch", None)
    with pytest.raises(UsageError, match=r"--gallery-size 100: .*; it has full\.$"):
        run_benchmark(settings(dataset, toy_bundle, gallery_sizes=("full", "100")))


def test_detections_saved_are_those_scored(dataset, toy_bundle, by_hand, tmp_path):
    run_benchmark(settings(dataset, toy_bundle, cbgm=True, save_detections=tmp_path / "found.npz"))
    saved, expected = read_detections(tmp_path / "found.npz"), by_hand[0]
    for mine, theirs in ((saved.gallery, expected.gallery), (saved.context, expected.context)):
        for field in dataclasses.fields(mine):
            np.testing.assert_allclose(getattr(mine, field.name), getattr(theirs, field.name), atol=1e-6)
    np.testing.assert_allclose(saved.query_embeddings, expected.query_embeddings, atol=1e-6)


def test_bundle_beside_pytorch(dataset, matching_bundle, checkpoint):
    report = run_benchmark(settings(dataset, matching_bundle, checkpoint=checkpoint, frames=99))
    torch_row, onnx_row = report.rows
    assert report.reference is torch_row and torch_row.name == "PyTorch"
    assert torch_row.size_bytes == checkpoint.stat().st_size
    assert torch_row.timing.frames == onnx_row.timing.frames == len(dataset.gallery)
    assert report.speed_up(onnx_row) == torch_row.timing.total_ms / onnx_row.timing.total_ms
    difference = onnx_row.metrics["search"]["mAP"] - torch_row.metrics["search"]["mAP"]
    assert report.map_difference(onnx_row) == pytest.approx(difference)
    assert report.speed_up(torch_row) is None and report.map_difference(torch_row) is None
    for row in report.rows:
        assert all(milliseconds >= 0 for milliseconds in row.timing.stages_ms.values())


def test_the_report_is_json_with_everything(dataset, toy_bundle):
    report = run_benchmark(settings(dataset, toy_bundle, precisions=("fp32", "int8")))
    value = json.loads(json.dumps(report.to_dict()))
    assert value["command"].startswith(f"psarm bench {toy_bundle} --dataset prw --data-root {dataset.root}")
    assert value["threads"] == 1
    assert value["dataset"]["gallery_frames"] == 8 and value["dataset"]["queries"] == 4
    assert value["dataset"]["image_sizes"] == ["160x96", "170x120"] or len(value["dataset"]["image_sizes"]) == 1
    assert value["machine"]["cpu"] and value["versions"]["onnxruntime"] and value["date"].endswith("+00:00")
    good, bad = value["rows"]
    assert (good["status"], bad["status"]) == ("ok", "failed")
    assert good["timing"]["fps"] == pytest.approx(1000 / good["timing"]["total_ms"])
    assert good["metrics"]["search"]["top1"] > 0
    assert "holds no int8 graphs" in bad["failure"] and bad["timing"] is None and bad["metrics"] == {}


def test_int8_that_the_bundle_lacks_is_refused_before_backends_are_asked(dataset, toy_bundle, monkeypatch):
    monkeypatch.setattr(contenders, "conditions", lambda *arguments: pytest.fail("asked"))
    with pytest.raises(UsageError, match="holds no int8 graphs, only fp32"):
        run_benchmark(settings(dataset, toy_bundle, backends=(), precisions=("int8",)))


def test_baselines(dataset, matching_bundle, checkpoint, by_hand):
    report = run_benchmark(settings(dataset, matching_bundle, checkpoint=checkpoint, baselines=True))
    rows = {row.name: row for row in report.rows}
    assert list(rows) == ["PyTorch", "onnxruntime", HISTOGRAM, UNTRAINED]
    # The toy bundle is the better of the two, so its boxes are matched.
    boxes = [by_hand[0].gallery.of_image(index) for index in range(len(dataset.gallery))]
    images = [read_image(frame.path) for frame in dataset.gallery]
    gallery = [
        ImageDetections(b.boxes, b.scores, histogram_embeddings(image, b.boxes) * b.scores[:, None])
        for image, b in zip(images, boxes, strict=True)
    ]
    queries = [histogram_embeddings(read_image(query.path), query.box[None])[0] for query in dataset.queries]
    content = DetectionsFile(by_hand[0].gallery_names, DetectionSet.from_images(gallery), np.stack(queries))
    expected = score_detections(dataset, content)
    for group, metrics in expected.items():
        assert rows[HISTOGRAM].metrics[group] == pytest.approx(metrics), group
    assert rows[HISTOGRAM].timing is None and rows[HISTOGRAM].ok
    assert (
        rows[UNTRAINED].ok and rows[UNTRAINED].metrics["search"]["mAP"] < rows["onnxruntime"].metrics["search"]["mAP"]
    )


def test_the_untrained_baseline_needs_a_checkpoint(dataset, toy_bundle):
    rows = run_benchmark(settings(dataset, toy_bundle, baselines=True)).rows
    assert [row.ok for row in rows] == [True, True, False]
    assert "--checkpoint" in rows[-1].failure


def test_a_checkpoint_alone(dataset, checkpoint, tmp_path):
    report = run_benchmark(settings(dataset, checkpoint=checkpoint, save_detections=tmp_path / "found.npz"))
    assert [row.name for row in report.rows] == ["PyTorch"]
    assert score_detections(dataset, read_detections(tmp_path / "found.npz")) == report.rows[0].metrics


def test_a_backend_that_fails_is_a_row_with_its_reason(dataset, toy_bundle, monkeypatch):
    def broken(*_):
        raise PsarmError("The accelerator fell off the bus.")

    monkeypatch.setattr(OnnxRuntimeBackend, "run_reid", broken)
    [row, absent] = run_benchmark(settings(dataset, toy_bundle, backends=("onnxruntime", "tensorrt"))).rows
    assert row.failure == "The accelerator fell off the bus." and row.timing is None
    assert "The backend tensorrt does not load: " in absent.failure


def test_a_backend_that_does_not_open_fails_under_every_workload(dataset, toy_bundle, monkeypatch):
    asked = settings(dataset, toy_bundle, precisions=("fp32",), frames=1, batches=(1, 2))
    old = run_benchmark(asked).to_dict()
    monkeypatch.setattr("psarm.benchmarks.contenders.PersonSearch", unopened)
    new = run_benchmark(asked).to_dict()
    assert [row["workload"]["batch"] for row in new["rows"]] == [1, 2]
    found = compare_reports(old, new)
    assert found.broken == [f"onnxruntime fp32{batch}: Not in this test." for batch in ("", ", batch 2")]
    assert found.unmatched == []


def test_without_choosing_every_backend_and_precision_that_runs_is_a_row(dataset, toy_bundle, monkeypatch):
    runs = {"openvino": ("fp32", "bf16"), "onnxruntime": ("fp32",)}
    monkeypatch.setattr("psarm.benchmarks.contenders.conditions", lambda bundle, name: runs.get(name, ()))
    monkeypatch.setattr("psarm.benchmarks.contenders.PersonSearch", unopened)

    def rows(**changes):
        report = run_benchmark(settings(dataset, toy_bundle, **{"backends": (), **changes}))
        return [(row.name, row.precision, row.requested) for row in report.rows]

    def asked(*choices):
        return [(*choice, True) for choice in choices]

    every = [("openvino", "fp32"), ("openvino", "bf16"), ("onnxruntime", "fp32")]
    assert rows() == [(*choice, False) for choice in every]
    assert rows(precisions=("bf16",)) == asked(("openvino", "bf16"))
    assert rows(precisions=("fp32", "int8")) == asked(every[0], every[2], ("auto", "int8"))
    assert rows(backends=("openvino", "torch")) == asked(*every[:2], ("torch", "auto"))
    assert rows(backends=("auto",)) == asked(("auto", "auto"))
    assert rows(backends=("torch",), precisions=("int8",)) == asked(("torch", "int8"))


def unopened(*_):
    raise PsarmError("Not in this test.")


def test_a_checkpoint_of_another_model_is_refused(dataset, toy_bundle, checkpoint):
    with pytest.raises(BundleError, match="exported from another model"):
        run_benchmark(settings(dataset, toy_bundle, checkpoint=checkpoint))


def test_a_broken_picture_ends_the_benchmark(dataset, toy_bundle, tmp_path):
    root = shutil.copytree(dataset.root, tmp_path / "prw")
    (root / "frames" / dataset.gallery[3].name).write_bytes(b"not a picture")
    with pytest.raises(ImageError, match=dataset.gallery[3].name):
        run_benchmark(settings(dataset, toy_bundle, data_root=root))


def test_a_query_outside_its_picture_ends_the_benchmark(dataset, toy_bundle, tmp_path):
    root = shutil.copytree(dataset.root, tmp_path / "prw")
    (root / "query_info.txt").write_text(f"5 900 900 20 40 {dataset.gallery[0].name}\n")
    with pytest.raises(DataError, match="lies outside"):
        run_benchmark(settings(dataset, toy_bundle, data_root=root))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "nothing to measure"),
        ({"checkpoint": "x", "backends": ("onnxruntime",)}, "give a BUNDLE"),
        ({"bundle": "x", "backends": ("onyx",)}, "no backend of that name"),
        ({"bundle": "x", "threads": 0}, "--threads is 0"),
        ({"bundle": "x", "frames": 0}, "--frames is 0"),
        ({"bundle": "x", "dataset": "market"}, "does not read market"),
    ],
)
def test_settings_that_cannot_be_meant(dataset, changes, sentence):
    with pytest.raises(UsageError, match=sentence):
        run_benchmark(settings(dataset, **changes))


def test_opencv_gets_its_threads_back(dataset, toy_bundle):
    before = cv2.getNumThreads()
    run_benchmark(settings(dataset, toy_bundle))
    assert cv2.getNumThreads() == before


def test_commit_of_a_checkout_only(tmp_path):
    assert git_commit(tmp_path) is None
    (tmp_path / ".git").mkdir()  # looks like one and is none
    assert git_commit(tmp_path) is None


def test_drawn_data_is_recognised(dataset, tmp_path):
    assert not gather_facts(dataset, 1, [dataset.gallery[0].path]).dataset.drawn
    (tmp_path / "synth.json").write_text('{"psarm_version": "0", "settings": {}}')
    drawn = dataclasses.replace(dataset, root=tmp_path)
    assert gather_facts(drawn, 1, [dataset.gallery[0].path]).dataset.drawn
