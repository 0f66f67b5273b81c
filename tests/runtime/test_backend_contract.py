"""What holds for every backend that runs here: checked inputs, whole batches, and faults in one sentence."""

import dataclasses
import shutil

import numpy as np
import onnx
import pytest
import toy_bundle as toy
from toy_int8 import quantise_conv

from psarm.errors import BundleError, PsarmError, UsageError
from psarm.runtime import Bundle, PersonSearch
from psarm.runtime.backends import open_backend
from psarm.runtime.manifest import describe_files, read_manifest, write_manifest

RED = (255, 0, 0)
TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.open(toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm"))


@pytest.fixture(params=list(TITLES))
def name(request):
    return request.param


@pytest.fixture
def backend(bundle, name):
    with open_backend(bundle, name, threads=1)[0] as backend:
        yield backend


@pytest.fixture
def outputs(backend):
    return backend.run_detect(np.zeros((1, 3, 32, 32), np.float32), np.array([[32, 32]]))


def test_inputs_are_checked_before_the_graph_runs(backend, outputs):
    images, sizes = np.zeros((1, 3, 32, 32), np.float32), np.array([[32, 32]])
    with pytest.raises(UsageError, match="'images' must be float32, got float64"):
        backend.run_detect(images.astype(np.float64), sizes)
    with pytest.raises(UsageError, match=r"'images' must be .* got \[3, 32, 32\]"):
        backend.run_detect(images[0], sizes)
    with pytest.raises(UsageError, match=r"'image_sizes' must be \['N', 2\] = \[1, 2\], got \[2, 2\]"):
        backend.run_detect(images, np.repeat(sizes, 2, axis=0))
    boxes = np.array([[0, 0, 9, 9]], np.float32)
    with pytest.raises(UsageError, match="at least one box"):
        backend.run_reid(outputs.features, boxes[:0], np.zeros(0, np.int64))
    with pytest.raises(UsageError, match=r"'batch_indices' must be \['R'\] = \[1\], got \[2\]"):
        backend.run_reid(outputs.features, boxes, np.zeros(2, np.int64))
    with pytest.raises(UsageError, match="'features' must be float32, got float16"):
        backend.run_reid(np.asarray(outputs.features).astype(np.float16), boxes, np.zeros(1, np.int64))


def test_arrays_of_any_layout_go_in(backend, outputs):
    images = np.random.default_rng(0).standard_normal((2, 64, 96, 3), np.float32).transpose(0, 3, 1, 2)
    images.flags.writeable = False
    sizes = np.asfortranarray([[64, 96], [50, 60]])
    plain = backend.run_detect(images.copy(order="C"), sizes.copy(order="C"))
    strided = backend.run_detect(images, sizes)
    for one, other in zip(plain, strided, strict=True):
        np.testing.assert_array_equal(one, other)


def test_outputs_stay_what_they_were_after_further_calls(backend):
    rng = np.random.default_rng(1)
    boxes, indices = np.array([[0, 0, 20, 20]], np.float32), np.zeros(1, np.int64)
    first = backend.run_detect(rng.standard_normal((1, 3, 64, 64), np.float32), np.array([[64, 64]]))
    reid = backend.run_reid(first.features, boxes, indices)
    kept = [np.array(part) for part in (*first, *reid)]
    for size in (64, 96):
        other = backend.run_detect(rng.standard_normal((1, 3, size, size), np.float32), np.array([[size, size]]))
        backend.run_reid(other.features, boxes, indices)
    for part, copy in zip((*first, *reid), kept, strict=True):
        np.testing.assert_array_equal(part, copy)
    np.testing.assert_array_equal(backend.run_reid(first.features, boxes, indices).embeddings, reid.embeddings)


def test_features_as_an_array_do_as_well(backend, outputs):
    boxes = (np.array([[0, 0, 20, 20]], np.float32), np.zeros(1, np.int64))
    kept, copied = backend.run_reid(outputs.features, *boxes), backend.run_reid(np.asarray(outputs.features), *boxes)
    np.testing.assert_array_equal(kept.embeddings, copied.embeddings)


@pytest.fixture
def calls(name, bundle, monkeypatch):
    """An engine, and the graphs it has run so far."""
    with PersonSearch(bundle, name, threads=1) as engine:
        seen = []
        run = engine._backend._run
        monkeypatch.setattr(engine._backend, "_run", lambda graph, feeds: (seen.append(graph), run(graph, feeds))[1])
        yield engine, seen


def test_a_batch_is_one_call_per_stage(calls):
    engine, seen = calls
    frames = [
        toy.draw_scene({0: RED, 5: RED}),
        toy.draw_scene({}, 50, 70),
        toy.draw_scene({3: RED}, 200, 111),
        toy.draw_scene({1: RED}),
    ]
    people = engine.detect(frames)
    assert seen == ["detect", "reid"]
    assert [len(each) for each in people] == [2, 0, 2, 1]
    seen.clear()
    for frame, expected in zip(frames, people, strict=True):
        np.testing.assert_allclose(engine.detect(frame).boxes, expected.boxes, atol=1e-3)
    assert seen == ["detect", "reid", "detect", "detect", "reid", "detect", "reid"]  # nobody: nothing to embed


def test_frames_without_people_need_no_reid_graph(calls):
    engine, seen = calls
    assert [len(people) for people in engine.detect([toy.draw_scene({})] * 3)] == [0, 0, 0]
    assert engine.detect([]) == []
    assert seen == ["detect"]


def test_more_people_than_fit(name, bundle):
    limits = dataclasses.replace(bundle.manifest.thresholds, detections_per_image=2)
    fewer = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, thresholds=limits))
    frames = [toy.draw_scene(dict.fromkeys(range(6), RED)), toy.draw_scene({4: RED}), toy.draw_scene({})]
    with PersonSearch(bundle, name, threads=1) as every, PersonSearch(fewer, name, threads=1) as best:
        everybody, some = every.detect(frames), best.detect(frames)
    assert [len(people) for people in everybody] == [6, 1, 0]
    assert [len(people) for people in some] == [2, 1, 0]
    np.testing.assert_allclose(some[0].scores, everybody[0].scores[:2], atol=1e-6)


def test_a_closed_engine_says_so(bundle, name):
    engine = PersonSearch(bundle, name, threads=1)
    engine.close()
    engine.close()
    with pytest.raises(PsarmError, match="closed; make a new PersonSearch"):
        engine.detect(toy.draw_scene({}))


def fail(backend, monkeypatch, graph, message, kind=RuntimeError):
    def failing(called, feeds):
        if called == graph:
            raise kind(message)
        return run(called, feeds)

    run = backend._run
    monkeypatch.setattr(backend, "_run", failing)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Failed to allocate memory for requested buffer of size 1099511627776", RuntimeError),
        ("Exception from src/inference/src/cpp/core.cpp:117:\nstd::bad_alloc\n\n", RuntimeError),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", RuntimeError),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", RuntimeError),
        ("", MemoryError),
    ],
)
@pytest.mark.parametrize("graph", ["detect", "reid"])
def test_out_of_memory(name, bundle, monkeypatch, graph, message, kind):
    frame = toy.draw_scene({0: RED})
    with PersonSearch(bundle, name, threads=1) as engine:
        fail(engine._backend, monkeypatch, graph, message, kind)
        start = f"{TITLES[name]} ran out of memory in the {graph} graph on CPU, 1 thread with "
        with pytest.raises(PsarmError) as caught:
            engine.detect([frame] * 3)
        assert str(caught.value) == start + "3 frames at a time; use a smaller batch."
        with pytest.raises(PsarmError) as caught:
            engine.detect(frame)
        assert str(caught.value).startswith(start + "a single frame; free some memory, or export a model of a smaller")


def test_out_of_memory_before_the_graphs(bundle, name, monkeypatch):
    def full(*_):
        raise MemoryError("Unable to allocate 8.00 PiB for an array")

    monkeypatch.setattr("psarm.runtime.backends.base.make_batch", full)
    with PersonSearch(bundle, name, threads=1) as engine, pytest.raises(PsarmError, match=r"3 frames .* smaller batch"):
        engine.detect([toy.draw_scene({})] * 3)


def change_graph(bundle, folder, graph, change):
    """A copy of the bundle with another graph that its manifest agrees with."""
    shutil.copytree(bundle.path, folder)
    model = onnx.load(folder / f"{graph}.onnx")
    change(model)
    onnx.save(model, folder / f"{graph}.onnx")
    write_manifest(
        folder,
        dataclasses.replace(read_manifest(folder), files=describe_files(folder, ["detect.onnx", "reid.onnx"])),
    )
    return Bundle.open(folder)


def rename_input(model):
    model.graph.node[0].input[2] = model.graph.input[2].name = "image_indices"


def change_width(model):
    projection = next(tensor for tensor in model.graph.initializer if tensor.name == "projection")
    projection.CopyFrom(onnx.numpy_helper.from_array(toy.PROJECTION[:, :5].copy(), "projection"))
    model.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 5


def change_type(model):
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    cast = onnx.helper.make_node("Cast", ["raw"], ["refined_boxes"], to=onnx.TensorProto.DOUBLE)
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.append(cast)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (rename_input, "has the inputs boxes, features, image_indices; its manifest says batch_indices, boxes"),
        (change_width, r"embeddings is float32 \[.*, 5\], its manifest says float32 \['R', 8\]"),
        (change_type, "refined_boxes is float64"),
    ],
)
def test_a_graph_other_than_the_manifest_describes(bundle, name, tmp_path, change, says):
    with pytest.raises(BundleError, match=says):
        PersonSearch(change_graph(bundle, tmp_path / "toy.psarm", "reid", change), name)


@pytest.mark.parametrize("part", [0, 0.3, 0.9])
def test_a_truncated_graph_is_one_sentence(bundle, name, tmp_path, part):
    folder = shutil.copytree(bundle.path, tmp_path / "toy.psarm")
    graph = folder / "reid.onnx"
    graph.write_bytes(graph.read_bytes()[: int(part * graph.stat().st_size)])
    files = describe_files(folder, ["detect.onnx", "reid.onnx"])
    write_manifest(folder, dataclasses.replace(read_manifest(folder), files=files))
    with pytest.raises(
        BundleError, match=rf"reid\.onnx is not an ONNX graph that {TITLES[name]} .* can load"
    ) as caught:
        PersonSearch(folder, name)
    assert "\n" not in str(caught.value)


def test_a_tampered_graph_is_refused_before_any_backend(bundle, name, tmp_path):
    folder = shutil.copytree(bundle.path, tmp_path / "toy.psarm")
    data = bytearray((folder / "reid.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "reid.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"reid\.onnx is not the file its manifest describes \(SHA-256 differs\)"):
        PersonSearch(folder, name)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_precision_the_bundle_lacks(bundle, name, precision):
    with pytest.raises(UsageError) as caught:
        PersonSearch(bundle, name, precision)
    more = " --calibrate DATA" if precision == "int8" else ""
    assert str(caught.value) == (
        f"The bundle {bundle.path} holds no {precision} graphs, only fp32; "
        f"export it with: psarm export CHECKPOINT --out DIR --precision fp32,{precision}{more}."
    )


@pytest.fixture(scope="module")
def int8_bundle(bundle, tmp_path_factory):
    folder = shutil.copytree(bundle.path, tmp_path_factory.mktemp("int8") / "toy.psarm")
    model = onnx.load(folder / "detect.onnx")
    quantise_conv(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "detect.int8.onnx")
    files = describe_files(folder, ["detect.onnx", "reid.onnx", "detect.int8.onnx"])
    precisions = {**bundle.manifest.precisions, "int8": {"detect": "detect.int8.onnx", "reid": "reid.onnx"}}
    write_manifest(folder, dataclasses.replace(read_manifest(folder), precisions=precisions, files=files))
    return Bundle.open(folder)


def test_int8_graphs(int8_bundle, name):
    frame = toy.draw_scene({0: RED, 6: (255, 90, 0)})
    with (
        PersonSearch(int8_bundle, name, "int8", 1) as rounded,
        PersonSearch(int8_bundle, name, threads=1) as exact,
    ):
        assert (rounded.precision, exact.precision) == ("int8", "fp32")
        people, wanted = rounded.detect(frame), exact.detect(frame)
    np.testing.assert_allclose(people.boxes, wanted.boxes, atol=1)
    error = np.abs(people.embeddings - wanted.embeddings).max()
    assert 0 < error < 0.05
