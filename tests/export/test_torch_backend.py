"""The torch backend against ONNX Runtime on the same bundle, stage by stage on the same numbers."""

import dataclasses
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_models import exported_once, small_model

from psarm.errors import BundleError, PsarmError, UsageError
from psarm.export.torch_backend import TorchBackend
from psarm.model.checkpoint import save_model
from psarm.runtime import Bundle
from psarm.runtime.backends.onnxruntime import OnnxRuntimeBackend
from psarm.runtime.manifest import describe_files, read_manifest, write_manifest

KINDS = {"psarm": "paper", "cascaded": "cascaded_psarm", "single-head": "nae"}
"""Each with the name of a small model."""
WEIGHTS = "model.safetensors"
HALF_SIZE = 3e-2
"""Of 16-bit runs: largest error of probabilities and of embeddings' components."""


@pytest.fixture(scope="module", params=KINDS)
def case(request, tmp_path_factory):
    """`kind`, and `bundle` of a small model with its checkpoint in it."""
    return SimpleNamespace(kind=request.param, bundle=Bundle.open(with_weights(tmp_path_factory, KINDS[request.param])))


@pytest.fixture(scope="module")
def psarm_bundle(tmp_path_factory):
    """The small PS-ARM's bundle with its checkpoint."""
    return with_weights(tmp_path_factory, "paper")


def with_weights(factory, name):
    model, bundle = exported_once(factory, name)
    folder = factory.mktemp("torch") / "bundle.psarm"
    shutil.copytree(bundle, folder)
    return add_weights(folder, model)


def add_weights(folder, model):
    save_model(model, folder / WEIGHTS)
    manifest = read_manifest(folder)
    files = {**manifest.files, **describe_files(folder, [WEIGHTS])}
    write_manifest(folder, dataclasses.replace(manifest, weights=WEIGHTS, files=files))
    return folder


def batch(*sizes):
    """Images [N,3,H,W] padded as the runtime does, and their valid sizes."""
    rng = np.random.default_rng(3)
    height, width = (-(-max(side) // 32) * 32 for side in zip(*sizes, strict=True))
    images = np.zeros((len(sizes), 3, height, width), np.float32)
    for image, (h, w) in zip(images, sizes, strict=True):
        image[:, :h, :w] = rng.normal(size=(3, h, w))
    return images, np.asarray(sizes)


def boxes(count):
    rng = np.random.default_rng(4)
    corners = rng.uniform(0, 96, (count, 2, 2)).astype(np.float32)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1) + 1], axis=1), rng.integers(0, 2, count)


@pytest.mark.parametrize("sizes", [[(96, 150)], [(80, 129), (17, 40)], [(30, 17)]], ids=["one", "two", "smallest"])
def test_detect_is_onnx_runtimes(case, sizes):
    with TorchBackend(case.bundle, "fp32", 1) as ours, OnnxRuntimeBackend(case.bundle, "fp32", 1) as theirs:
        actual, expected = ours.run_detect(*batch(*sizes)), theirs.run_detect(*batch(*sizes))
    np.testing.assert_array_equal(actual.counts, expected.counts)
    assert np.ptp(expected.scores[0]) > 1e-3
    np.testing.assert_allclose(actual.scores, expected.scores, atol=1e-5)
    for name in ("boxes", "regions"):
        np.testing.assert_allclose(getattr(actual, name), getattr(expected, name), atol=2e-3)
    np.testing.assert_allclose(actual.features, expected.features, atol=1e-4)


@pytest.mark.parametrize("count", [1, 9])
def test_heads_are_onnx_runtimes(case, count):
    with TorchBackend(case.bundle, "fp32", 1) as ours, OnnxRuntimeBackend(case.bundle, "fp32", 1) as theirs:
        features = np.asarray(ours.run_detect(*batch((96, 150), (64, 128))).features)
        actual, expected = ours.run_reid(features, *boxes(count)), theirs.run_reid(features, *boxes(count))
        np.testing.assert_allclose(actual.boxes, expected.boxes, atol=1e-3)
        np.testing.assert_allclose(actual.embeddings, expected.embeddings, atol=1e-5)
        assert ours.refines == (case.kind == "cascaded")
        if ours.refines:
            refined, wanted = ours.run_refine(features, *boxes(count)), theirs.run_refine(features, *boxes(count))
            np.testing.assert_allclose(refined, wanted, atol=1e-3)


def test_bf16_is_near_fp32_and_not_the_same(case):
    with TorchBackend(case.bundle, "fp32", 1) as full, TorchBackend(case.bundle, "bf16", 1) as half:
        features = np.asarray(full.run_detect(*batch((96, 150))).features)
        drift = np.abs(half.run_detect(*batch((96, 150))).features - features)
        where, images = boxes(5)
        embeddings = [backend.run_reid(features, where, 0 * images).embeddings for backend in (full, half)]
    assert 0 < drift.max() < 0.05 * np.abs(features).max()
    assert 0 < np.abs(embeddings[0] - embeddings[1]).max() < HALF_SIZE
    np.testing.assert_allclose(np.linalg.norm(embeddings[1], axis=1), 1, atol=1e-6)


def test_nobody_to_embed_is_refused_before_the_graph(psarm_bundle):
    with TorchBackend(Bundle.open(psarm_bundle), "fp32", 1) as backend:
        features = backend.run_detect(*batch((96, 150))).features
        with pytest.raises(UsageError, match="needs at least one box"):
            backend.run_reid(features, *boxes(0))


def test_threads_and_other_settings_are_torchs_own_after_a_call(psarm_bundle):
    torch.set_num_threads(3)
    try:
        with TorchBackend(Bundle.open(psarm_bundle), "fp32", 2) as backend:
            assert backend.device == "CPU, 2 threads" or backend.device.startswith("CUDA")
            seen = []
            hook = backend._graphs._graphs["detect"].ordinary.register_forward_pre_hook(
                lambda *_: seen.append((torch.get_num_threads(), torch.backends.cudnn.allow_tf32))
            )
            before = torch.backends.cudnn.allow_tf32
            backend.run_detect(*batch((32, 32)))
            hook.remove()
        assert seen == [(2, False)]
        assert torch.get_num_threads() == 3 and torch.backends.cudnn.allow_tf32 == before
    finally:
        torch.set_num_threads(1)


def test_a_bundle_without_checkpoint_is_refused_with_the_command(small_bundle):
    bundle = Bundle.open(small_bundle.bundle)
    assert TorchBackend.precisions(bundle) == ()
    with pytest.raises(UsageError, match=r"no checkpoint .* psarm export .*--torch-weights"):
        TorchBackend(bundle, "fp32", 1)


def test_a_checkpoint_of_another_model_is_refused(psarm_bundle, tmp_path):
    folder = shutil.copytree(psarm_bundle, tmp_path / "bundle.psarm")
    add_weights(folder, small_model(99))
    with pytest.raises(BundleError, match="is not the model that the bundle's graphs were made from"):
        TorchBackend(Bundle.open(folder), "fp32", 1)


def test_an_unknown_way_to_run_is_named(psarm_bundle, monkeypatch):
    monkeypatch.setattr("psarm.export.torch_backend._device", lambda: "CUDA, no such GPU")
    monkeypatch.setenv("PSARM_TORCH", "fast")
    with pytest.raises(UsageError, match="PSARM_TORCH is 'fast'; needed one of graphs, eager, fused, kernels, compile"):
        TorchBackend(Bundle.open(psarm_bundle), "fp32", 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has fp16")
def test_fp16_is_refused_on_a_cpu(psarm_bundle):
    bundle = Bundle.open(psarm_bundle)
    assert TorchBackend.precisions(bundle) == ("fp32", "bf16")
    with pytest.raises(UsageError, match="no fp16 on CPU, only fp32, bf16"):
        TorchBackend(bundle, "fp16", 1)


def test_too_little_memory_is_one_sentence(psarm_bundle, monkeypatch):
    with TorchBackend(Bundle.open(psarm_bundle), "fp32", 1) as backend:

        def full(*_):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

        monkeypatch.setattr(backend._graphs._graphs["detect"].ordinary, "forward", full)
        with pytest.raises(
            PsarmError, match=r"out of memory in the detect graph on .* with 2 frames at a time; use a smaller"
        ):
            backend.run_detect(*batch((32, 32), (20, 31)))


def test_features_stay_with_torch_between_the_graphs(psarm_bundle):
    with TorchBackend(Bundle.open(psarm_bundle), "fp32", 1) as backend:
        features = backend.run_detect(*batch((96, 150))).features
        where, images = boxes(5)
        held, copied = (backend.run_reid(f, where, 0 * images) for f in (features, np.asarray(features)))
    assert isinstance(features.tensor, torch.Tensor) and features.dtype == np.float32
    np.testing.assert_allclose(held.embeddings, copied.embeddings, atol=1e-6)


def test_a_closed_backend_says_so(psarm_bundle):
    backend = TorchBackend(Bundle.open(psarm_bundle), "fp32", 1)
    backend.close()
    with pytest.raises(PsarmError, match="closed"):
        backend.run_detect(*batch((32, 32)))


def test_probe_says_what_loads_or_what_is_missing(monkeypatch):
    loads, detail = TorchBackend.probe()
    assert loads and detail.startswith(f"torch {torch.__version__}")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    loads, detail = TorchBackend.probe()
    assert not loads and "pip install 'psarm[train]'" in detail
