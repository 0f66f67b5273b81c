"""Growth curves on the toy bundle, and what they predict."""

from types import SimpleNamespace

import numpy as np
import pytest
from toy_bundle import draw_scene

from psarm.benchmarks import BenchSettings, growth, growth_gallery, run_benchmark
from psarm.benchmarks.ceilings import Ceiling
from psarm.benchmarks.growth import too_large
from psarm.benchmarks.growth_gallery import draw_gallery, gallery_curve, search
from psarm.benchmarks.roofline import RooflineModel
from psarm.benchmarks.settings import GROWTHS
from psarm.errors import PsarmError
from psarm.runtime import Bundle


@pytest.fixture
def small(monkeypatch):
    """Curves of few small points, and a machine of which everything is known."""
    monkeypatch.setattr(growth, "PEOPLE", (0, 2, 20))
    monkeypatch.setattr(growth, "SIZES", ((80, 48), (160, 96), (1920, 1080)))
    monkeypatch.setattr(growth, "BATCHES", (1, 3))
    monkeypatch.setattr(growth, "GALLERIES", (10, 1000))
    monkeypatch.setattr(growth, "free_memory", lambda: None)
    monkeypatch.setattr("psarm.benchmarks.growth_gallery.copy_rate", lambda _: 10.0)
    monkeypatch.setattr("psarm.benchmarks.roofline.measure_ceiling", lambda *_: Ceiling(1.0, 1e9, ""))


@pytest.mark.usefixtures("small")
def test_every_curve(dataset, toy_bundle, monkeypatch):
    monkeypatch.setattr("psarm.benchmarks.suite._measure_fresh", lambda *_: [])
    options = {"backends": ("onnxruntime",), "threads": 1, "frames": 2, "growth": GROWTHS}
    report = run_benchmark(BenchSettings(dataset.root, toy_bundle, **options))
    curves = {(curve.kind, curve.name): curve for curve in report.growth}
    names = ["onnxruntime fp32", "onnxruntime fp32, resized", "onnxruntime fp32, full size", "onnxruntime fp32"]
    assert [name for _, name in curves][:4] == names
    people, resized, full, batch, gallery = (
        [(point.label, point.measured_ms is not None, point.predicted_ms is not None) for point in curve.points]
        for curve in report.growth
    )
    assert people == [("0", True, True), ("2", True, True), ("20", False, False)]
    assert "20 people were asked for; the detection stage proposes 16" in report.growth[0].points[2].failure
    assert resized == full == [(size, True, True) for size in ("80x48", "160x96", "1920x1080")]
    assert batch == [("1", True, True), ("3", True, True)]
    assert gallery == [("10", True, True), ("1,000", True, True)]

    model = RooflineModel(Bundle.open(toy_bundle), draw_scene({}), 1)
    points = {point.label: point for point in curves["size", "onnxruntime fp32, full size"].points}
    work = {size: (w // 16) * (h // 16) for size, w, h in (("160x96", 160, 96), ("1920x1080", 1920, 1088))}
    grown = [points[size].predicted_ms for size in ("80x48", "160x96", "1920x1080")]
    assert grown == sorted(grown) and grown[2] == points["1920x1080"].measured_ms  # the point it starts from
    assert model.work(growth.Workload()).frame.macs == work["160x96"] * 12


def test_what_memory_does_not_hold_is_not_tried():
    assert too_large(2, 4 * 2**30, 5 * 2**30) == ""
    assert too_large(2, None, None) == ""
    assert "took up to 4.0 GiB, and 2 times as much may not fit into the 3.0 GiB left" in too_large(2, 2**32, 3 * 2**30)


@pytest.mark.usefixtures("small")
def test_a_batch_too_large_ends_its_curve(dataset, toy_bundle, monkeypatch):
    monkeypatch.setattr(growth, "free_memory", lambda: 0)
    options = {"backends": ("onnxruntime",), "threads": 1, "frames": 1, "quick": True, "growth": ("batch",)}
    [curve] = run_benchmark(BenchSettings(dataset.root, toy_bundle, **options)).growth
    first, second = curve.points
    assert first.measured_ms > 0 and second.failure.startswith("not measured: the steps so far")
    assert curve.explanation == "no prediction: no roofline was measured" and first.predicted_ms is None


@pytest.mark.usefixtures("small")
def test_what_cannot_be_predicted_is_still_told(dataset, toy_bundle, monkeypatch):
    monkeypatch.setattr("psarm.benchmarks.suite._measure_fresh", lambda *_: [])
    work = RooflineModel.work

    def fails_at_one_size(self, workload, rule=None):
        if rule is not None and workload.size == (160, 96):
            raise PsarmError("The detection stage proposes 2 people.")
        return work(self, workload, rule)

    monkeypatch.setattr(RooflineModel, "work", fails_at_one_size)
    options = {"backends": ("onnxruntime",), "threads": 1, "frames": 1, "growth": ("size",)}
    _, full = run_benchmark(BenchSettings(dataset.root, toy_bundle, **options)).growth
    assert [point.measured_ms is not None for point in full.points] == [True] * 3
    assert [point.predicted_ms is not None for point in full.points] == [True, False, True]
    assert full.explanation.endswith("; none at 160x96: The detection stage proposes 2 people")


def test_search_in_blocks_is_the_search_of_everything(monkeypatch):
    monkeypatch.setattr(growth_gallery, "BLOCK", 7)
    rng = np.random.default_rng(0)
    gallery, query = rng.standard_normal((50, 8)).astype(np.float32), rng.standard_normal(8).astype(np.float32)
    for top_k in (1, 5, 60):
        expected = np.argsort(-(gallery @ query))[:top_k]
        np.testing.assert_array_equal(search(query, gallery, top_k), expected)
    drawn = draw_gallery(20, 8)
    np.testing.assert_array_equal(drawn[:7], drawn[7:14])
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, rtol=1e-6)


def test_small_galleries_are_searched_many_times(monkeypatch):
    """Of a search of microseconds, five tell how busy the machine was and nothing else."""
    now, calls = [0.0], []

    def clocked(*_):
        calls.append(1)
        now[0] += taken

    monkeypatch.setattr(growth_gallery, "search", clocked)
    monkeypatch.setattr(growth_gallery, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    for taken, searches in ((2.0, 5), (0.125, 5), (2**-10, 512)):
        calls.clear()
        assert growth_gallery._milliseconds(np.zeros(2), np.zeros((1, 2))) == 1000 * taken
        assert len(calls) == 1 + searches  # the first warms up


def test_a_gallery_beyond_memory_says_so(monkeypatch):
    monkeypatch.setattr(growth_gallery, "free_memory", lambda: 100_000)
    monkeypatch.setattr(growth_gallery, "copy_rate", lambda _: 10.0)
    held, beyond = gallery_curve(16, 1, (1000, 10_000)).points
    assert held.measured_ms > 0 and held.predicted_ms == pytest.approx(64_000 / 10e9 * 1e3)
    assert beyond.failure == "not measured: it takes 0.0 GB, and 0.0 GB of memory are free."
