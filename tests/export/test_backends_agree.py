"""OpenVINO against the PyTorch model and ONNX Runtime on small exported models, in every precision that it runs."""

import dataclasses
import shutil

import numpy as np
import onnx
import openvino
import pytest

from psarm.errors import UsageError
from psarm.export import verify_people
from psarm.export.precision.half import half_graph
from psarm.export.tracing import TracedGraph
from psarm.export.verify_people import CASES, compare_embed, compare_people
from psarm.runtime import Bundle, PersonSearch
from psarm.runtime.backends import open_backend
from psarm.runtime.manifest import describe_files, read_manifest, write_manifest

HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
SIZES = [[(96, 150)], [(80, 129), (17, 40), (33, 160)], [(30, 17)]]


@pytest.fixture
def on_openvino(monkeypatch):
    """Let the exporter's verification run the bundle with OpenVINO."""

    def engine(bundle, _, *options):
        return PersonSearch(bundle, "openvino", *options)

    monkeypatch.setattr(verify_people, "PersonSearch", engine)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_people_are_the_models(exported, on_openvino, case):
    comparison = compare_people(exported.model, exported.bundle, case, 5)
    assert comparison.failures() == []
    assert (comparison.compared > 0) == (case.name != "nobody")  # NMS leaves fewer people than proposals


def test_embeddings_of_given_boxes_are_the_models(exported, on_openvino):
    assert compare_embed(exported.model, exported.bundle, 6).failures() == []


def batch(sizes):
    """Images [N,3,H,W] padded as the runtime does, and their valid sizes."""
    rng = np.random.default_rng(3)
    height, width = (-(-max(side) // 32) * 32 for side in zip(*sizes, strict=True))
    images = np.zeros((len(sizes), 3, height, width), np.float32)
    for image, (h, w) in zip(images, sizes, strict=True):
        image[:, :h, :w] = rng.normal(size=(3, h, w))
    return images, np.asarray(sizes)


def boxes(count, images):
    rng = np.random.default_rng(4)
    corners = rng.uniform(0, 96, (count, 2, 2)).astype(np.float32)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1) + 1], axis=1), rng.integers(0, images, count)


@pytest.mark.parametrize("sizes", SIZES, ids=["one", "three", "smallest"])
def test_fp32_graphs_are_onnx_runtimes(exported, sizes):
    bundle = Bundle.open(exported.bundle)
    with (
        open_backend(bundle, "openvino", "fp32", 1)[0] as ours,
        open_backend(bundle, "onnxruntime", "fp32", 1)[0] as theirs,
    ):
        actual, expected = ours.run_detect(*batch(sizes)), theirs.run_detect(*batch(sizes))
        np.testing.assert_array_equal(actual.counts, expected.counts)
        assert np.ptp(expected.scores[0]) > 1e-3
        np.testing.assert_allclose(actual.scores, expected.scores, atol=1e-5)
        np.testing.assert_allclose(actual.boxes, expected.boxes, atol=2e-3)
        features = np.asarray(expected.features)
        np.testing.assert_allclose(actual.features, features, atol=1e-4 * np.abs(features).max())
        for count in (1, 9):
            people, wanted = (one.run_reid(features, *boxes(count, len(sizes))) for one in (ours, theirs))
            np.testing.assert_allclose(people.boxes, wanted.boxes, atol=1e-3)
            np.testing.assert_allclose(people.embeddings, wanted.embeddings, atol=1e-5)


@pytest.fixture(scope="module")
def half_bundle(small_bundle, tmp_path_factory):
    """The small PS-ARM with fp16 graphs beside the fp32 ones."""
    folder = shutil.copytree(small_bundle.bundle, tmp_path_factory.mktemp("half") / "bundle.psarm")
    manifest = read_manifest(folder)
    files = {name: f"{name}.fp16.onnx" for name in manifest.graphs}
    for name, spec in manifest.graphs.items():
        onnx.save(half_graph(TracedGraph(name, onnx.load(folder / f"{name}.onnx"), spec)), folder / files[name])
    described = {**manifest.files, **describe_files(folder, files.values())}
    precisions = {**manifest.precisions, "fp16": files}
    write_manifest(folder, dataclasses.replace(manifest, precisions=precisions, files=described))
    return Bundle.open(folder)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_fp16_graphs_run_on_the_cpu(half_bundle, name):
    with (
        open_backend(half_bundle, name, "fp16", 1)[0] as half,
        open_backend(half_bundle, name, "fp32", 1)[0] as full,
    ):
        assert half.precision == "fp16" and half.device.startswith("CPU, 1 thread")
        features = np.asarray(full.run_detect(*batch(SIZES[1])).features)
        drift = np.abs(np.asarray(half.run_detect(*batch(SIZES[1])).features) - features)
        assert 0 < drift.max() < 0.01 * np.abs(features).max()
        people, wanted = (one.run_reid(features, *boxes(9, 3)) for one in (half, full))
    assert 0 < np.abs(people.embeddings - wanted.embeddings).max() < 0.01
    np.testing.assert_allclose(people.boxes, wanted.boxes, atol=0.2)


def test_auto_goes_by_what_the_bundle_holds(half_bundle):
    for precision in ("auto", "fp32", "fp16"):
        backend, reason = open_backend(half_bundle, precision=precision, threads=1)
        backend.close()
        assert (backend.name, backend.precision) == ("openvino", "fp32" if precision == "auto" else precision)
        assert "passed over: tensorrt: " in reason
    with pytest.raises(UsageError, match=r"holds no int8 graphs, only fp32, fp16; .*--precision fp32,fp16,int8"):
        open_backend(half_bundle, precision="int8")


@pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bf16")
def test_auto_runs_bf16_where_the_cpu_has_it(half_bundle):
    with open_backend(half_bundle, precision="bf16", threads=1)[0] as backend:
        assert (backend.name, backend.precision, backend.device) == ("openvino", "bf16", "CPU, 1 thread")
