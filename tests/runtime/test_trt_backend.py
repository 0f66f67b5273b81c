"""The TensorRT backends around doubles of the GPU and the engines: what they do with shapes, buffers and results."""

import errno
import os
import tempfile
import types

import numpy as np
import pytest
from device_double import ContextsDouble, DeviceDouble
from tiny_engines import make_trt_bundle
from toy_bundle import CHANNELS, DIM, cell_box, draw_scene

from psarm.errors import BundleError, PsarmError, UsageError
from psarm.runtime import PersonSearch
from psarm.runtime.bundle import Bundle
from psarm.runtime.tensorrt import backend, runner
from psarm.runtime.tensorrt.backend import TensorRTBackend, usual_rows
from psarm.runtime.tensorrt.contexts import Contexts
from psarm.runtime.tensorrt.runner import DeviceArray

RED, GREEN = (200, 20, 20), (20, 200, 20)
DETECT = [
    {"images": ((1, 3, 32, 32), (2, 3, 96, 160)), "image_sizes": ((1, 2), (2, 2))},
    {"images": ((1, 3, 32, 32), (2, 3, 160, 96)), "image_sizes": ((1, 2), (2, 2))},
]
REID = [
    {
        "features": ((1, CHANNELS, 2, 2), (2, CHANNELS, 6, 10)),
        "boxes": ((1, 4), (12, 4)),
        "batch_indices": ((1,), (12,)),
    },
    {
        "features": ((1, CHANNELS, 2, 2), (2, CHANNELS, 10, 6)),
        "boxes": ((1, 4), (12, 4)),
        "batch_indices": ((1,), (12,)),
    },
]


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A bundle whose "engines" are its ONNX graphs on a double of a GPU."""
    made = types.SimpleNamespace(
        device=DeviceDouble(), engines={}, half=(), bundle=make_trt_bundle(tmp_path / "toy.psarm")
    )

    def contexts(flavour, graph, plan, compiled, command):
        made.engines[graph] = ContextsDouble(
            made.bundle / f"{graph}.onnx", DETECT if graph == "detect" else REID, made.half
        )
        return made.engines[graph]

    engines = types.SimpleNamespace(path=tmp_path, read_plan=lambda graph: b"plan")
    monkeypatch.setattr(backend, "CudaDevice", lambda: made.device)
    monkeypatch.setattr(backend, "find_engines", lambda *_: engines)
    monkeypatch.setattr(backend, "Contexts", contexts)
    monkeypatch.setattr(TensorRTBackend, "probe", classmethod(lambda cls: (True, "a double")))
    return made


def opened(world):
    return TensorRTBackend(Bundle.open(world.bundle), "fp32")


def images(count=1, height=96, width=160, seed=0):
    random = np.random.default_rng(seed)
    return random.standard_normal((count, 3, height, width)).astype(np.float32), np.array([[height, width]] * count)


def test_people_are_those_of_onnxruntime(world):
    frames = [
        draw_scene({0: RED, 5: (210, 60, 40)}),
        draw_scene({1: RED}),
        draw_scene({}, 160, 96),
        draw_scene({3: RED}),
    ]
    with PersonSearch(world.bundle, "onnxruntime") as plain, PersonSearch(world.bundle, "tensorrt") as engine:
        assert engine.summary == "TensorRT fp32 on NVIDIA L4, compute capability 8.9"
        for batch in ([frames[0]], frames[:2], [frames[2]], [frames[3]], frames[:2], [frames[0]]):
            for ours, theirs in zip(engine.detect(batch), plain.detect(batch), strict=True):
                np.testing.assert_array_equal(ours.boxes, theirs.boxes)
                np.testing.assert_array_equal(ours.scores, theirs.scores)
                np.testing.assert_allclose(ours.embeddings, theirs.embeddings, atol=1e-6)
        boxes = [cell_box(cell) for cell in (0, 1, 2, 3, 4) * 5]  # more than the engine takes at a time
        ours, theirs = (one.embed(frames[0], boxes) for one in (engine, plain))
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert world.device.launches > 0


def test_features_stay_on_the_device(world):
    with opened(world) as engine:
        first = engine.run_detect(*images())
        assert isinstance(first.features, DeviceArray)
        assert first.features.shape == (1, CHANNELS, 6, 10)
        values = np.asarray(first.features)
        assert values.shape == first.features.shape and values.dtype == np.float32
        engine.run_reid(first.features, np.array([[0, 0, 30, 30]], np.float32), np.zeros(1, np.int64))
        engine.run_detect(*images(seed=1))
        with pytest.raises(PsarmError, match="features are gone: they stay on the GPU only until the next frames"):
            engine.run_reid(first.features, np.array([[0, 0, 30, 30]], np.float32), np.zeros(1, np.int64))
        with pytest.raises(PsarmError, match="features are gone"):
            np.asarray(first.features)


def test_half_features_are_taken_as_they_are(world):
    world.half = ("features",)
    with opened(world) as engine:
        outputs = engine.run_detect(*images())
        assert outputs.features.dtype == np.float16
        reid = engine.run_reid(outputs.features, np.array([[0, 0, 30, 30]], np.float32), np.zeros(1, np.int64))
        assert reid.embeddings.dtype == np.float32


def test_one_context_and_one_recording_a_shape(world):
    with opened(world) as engine:
        for seed in range(4):
            engine.run_detect(*images(seed=seed))
        assert len(world.engines["detect"].made) == 1
        assert world.device.launches == 3
        engine.run_detect(*images(count=2))
        engine.run_detect(*images(height=160, width=96))
        assert [context.profile for context in world.engines["detect"].made] == [0, 0, 1]


def test_results_are_copies(world):
    with opened(world) as engine:
        first = engine.run_detect(*images())
        boxes = first.boxes.copy()
        engine.run_detect(images()[0], np.array([[64, 64]]))
        np.testing.assert_array_equal(first.boxes, boxes)


def test_old_shapes_make_way(world, monkeypatch):
    monkeypatch.setattr(runner, "SHAPES_KEPT", 2)
    with opened(world) as engine:
        for width in (32, 64, 96, 128, 160, 32):
            engine.run_detect(*images(width=width))
        assert len(world.engines["detect"].made) == 6
        addresses = len(world.device.memory)
        engine.run_detect(*images(width=64))
        assert len(world.device.memory) == addresses


def test_closing_frees_everything(world):
    engine = opened(world)
    outputs = engine.run_detect(*images())
    engine.run_reid(outputs.features, np.array([[0, 0, 30, 30]], np.float32), np.zeros(1, np.int64))
    engine.close()
    assert world.device.memory == {} and world.device.pinned == [] and world.device.closed
    assert all(one.closed for one in world.engines.values())
    with pytest.raises(PsarmError, match="closed"):
        engine.run_detect(*images())


def test_out_of_memory_asks_for_a_smaller_batch_and_leaves_nothing(world):
    with opened(world) as engine:
        world.device.free_bytes = 300_000
        with pytest.raises(PsarmError, match="memory ran out; use a smaller batch"):
            engine.run_detect(*images(count=2))
        assert len(world.device.memory) == 2 and world.device.pinned == [], "only the scratch memory is left"
        engine.run_detect(*images())
    world.device.free_bytes = 10
    with pytest.raises(PsarmError, match="memory ran out"):
        opened(world)
    assert world.device.memory == {}


def test_a_batch_the_engine_does_not_take(world):
    with opened(world) as engine:
        with pytest.raises(
            UsageError, match=r"takes images of 1x3x32x32 to 2x3x96x160 or .*, got 3x3x96x160; use a sm"
        ):
            engine.run_detect(*images(count=3))
        with pytest.raises(UsageError, match="got 1x3x160x160"):
            engine.run_detect(*images(height=160))


def test_a_failing_engine_is_told(world):
    with opened(world) as engine:
        world.engines["detect"].fails = True
        with pytest.raises(PsarmError, match="The detect engine failed: it gave no reason"):
            engine.run_detect(*images())


def test_without_a_recording_it_runs_and_says_so(world):
    world.device.records = False
    with opened(world) as engine:
        with pytest.warns(
            UserWarning, match="detect engine runs without a CUDA graph: CUDA failed: operation not perm"
        ):
            first = engine.run_detect(*images())
        again = engine.run_detect(*images())
        np.testing.assert_array_equal(first.scores, again.scores)


def test_images_whose_proposals_are_not_exact_are_told(world, monkeypatch):
    with opened(world) as engine:
        plain = runner.EngineRunner.run
        monkeypatch.setattr(
            runner.EngineRunner, "run", lambda self, feeds: plain(self, feeds) | {"exact": np.array([True, False])}
        )
        with pytest.warns(UserWarning, match="In 1 of 2 images"):
            engine.run_detect(*images(count=2))


def test_a_build_that_takes_their_place_while_they_are_read(world, monkeypatch):
    read = []

    def read_plan(graph):
        read.append(graph)
        if read == ["detect", "reid"]:
            raise BundleError("reid.plan is missing or damaged.")
        return b"plan"

    engines = types.SimpleNamespace(path=world.bundle, read_plan=read_plan)
    monkeypatch.setattr(backend, "find_engines", lambda *_: engines)
    opened(world).close()
    assert read == ["detect", "reid"] * 2


def test_engines_of_other_graphs_are_refused(world):
    world.half = ("scores",)
    with pytest.raises(
        UsageError, match=r"detect engine has float16 \[-1, 18\] for scores, the bundle's graph float32"
    ):
        opened(world)
    assert world.device.memory == {} and world.device.closed


@pytest.mark.parametrize(("count", "rows"), [(1, 8), (8, 8), (9, 16), (16, 16), (300, 512)])
def test_usual_rows(count, rows):
    assert usual_rows(count) == rows


def test_without_a_gpu_each_backend_says_why(tmp_path):
    loads, why = backend.TensorRTForRTXBackend.probe()
    assert not loads
    assert "TensorRT for RTX 1." in why and "is installed, but " in why
    with pytest.raises(PsarmError, match="No GPU to run on: "):
        backend.TensorRTForRTXBackend(Bundle.open(make_trt_bundle(tmp_path / "toy.psarm")), "fp32")


def test_embeddings_have_the_bundles_size(world):
    with opened(world) as engine:
        outputs = engine.run_detect(*images(count=2))
        boxes = np.tile(np.array([[0, 0, 30, 30]], np.float32), (29, 1))
        reid = engine.run_reid(outputs.features, boxes, np.arange(29) % 2)
        assert reid.boxes.shape == (29, 4) and reid.embeddings.shape == (29, DIM)
        np.testing.assert_allclose(reid.embeddings[0], reid.embeddings[28], atol=1e-6)
        assert not np.allclose(reid.embeddings[0], reid.embeddings[1])


def test_contexts_refuse_a_plan_nobody_can_load(tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings")
    from psarm.runtime.tensorrt.flavour import TENSORRT_RTX

    with pytest.raises(
        (BundleError, PsarmError), match=r"TensorRT for RTX 1\.\S+ does not take the engine of the reid graph"
    ):
        Contexts(TENSORRT_RTX, "reid", b"no plan", tmp_path / "compiled", "psarm engines b")


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_kernels_that_cannot_be_kept_are_told(tmp_path, monkeypatch, code):
    made = object.__new__(Contexts)
    made._cache, made._compiled = (
        types.SimpleNamespace(serialize=lambda: b"kernels"),
        tmp_path / "key" / "reid.compiled",
    )
    made.close()
    assert not made._compiled.parent.exists(), "engines that were deleted stay so"
    made._compiled.parent.mkdir()
    made.close()
    assert made._compiled.read_bytes() == b"kernels"

    def refuse(**_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.warns(UserWarning, match=rf"key cannot be written to \({os.strerror(code)}\): the next start"):
        made.close()


def test_what_fails_on_closing_keeps_no_memory(world):
    def fail():
        raise PsarmError("It cannot be closed.")

    engine = opened(world)
    engine.run_detect(*images())
    world.engines["reid"].close = fail
    with pytest.raises(PsarmError, match=r"^It cannot be closed"):
        engine.close()
    assert world.device.memory == {} and world.device.closed
