"""What a runtime compiled is kept, gives the same numbers to the bit, and is compiled again where it is damaged."""

import os
import threading
import time
import zlib

import numpy as np
import onnx
import openvino
import pytest
import toy_bundle as toy
from small_models import exported_once
from toy_int8 import quantise_conv

from psarm.errors import BundleError, UsageError
from psarm.runtime import Bundle, PersonSearch
from psarm.runtime.backends import compiled_cache, ort_providers
from psarm.runtime.backends import openvino as openvino_backend
from psarm.runtime.manifest import read_manifest, write_manifest

HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
BACKENDS = ["onnxruntime", "openvino"]
FRAME = toy.draw_scene({1: (250, 20, 30), 6: (220, 60, 20)})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.open(toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm"))


@pytest.fixture
def kept(monkeypatch, tmp_path):
    monkeypatch.setenv("PSARM_CACHE", str(tmp_path))
    return lambda: sorted(path for path in (tmp_path / "compiled").glob("*"))


@pytest.fixture
def compiled(monkeypatch):
    """Paths that were compiled, whatever the backend."""
    paths = []
    compile_openvino, open_session = openvino_backend._compile, ort_providers.open_session

    def count_openvino(path, *arguments):
        paths.append(path)
        return compile_openvino(path, *arguments)

    def count_onnxruntime(model, *arguments, **options):
        if isinstance(model, str) and not options.get("optimised"):
            paths.append(model)
        return open_session(model, *arguments, **options)

    monkeypatch.setattr(openvino_backend, "_compile", count_openvino)
    monkeypatch.setattr(ort_providers, "open_session", count_onnxruntime)
    return paths


def answers(bundle, backend, precision="fp32", frame=FRAME, threads=1):
    with PersonSearch(bundle, backend, precision, threads=threads) as engine:
        people = engine.detect(frame)
    assert len(people)
    return people


def assert_same(a, b):
    for name in ("boxes", "scores", "embeddings"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_second_engine_compiles_nothing(bundle, kept, compiled, backend):
    first = answers(bundle, backend)
    assert len(compiled) == len(kept()) == 2
    content = [path.read_bytes() for path in kept()]
    assert_same(answers(bundle, backend), first)
    assert_same(answers(bundle, backend, threads=2), first)
    assert len(compiled) == 2 and [path.read_bytes() for path in kept()] == content


@pytest.mark.parametrize(
    ("backend", "precision"),
    [
        *(("onnxruntime", "fp32"), ("openvino", "fp32")),
        pytest.param("openvino", "bf16", marks=pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bf16")),
    ],
)
def test_a_model_answers_the_same_to_the_bit_with_and_without(
    tmp_path_factory, monkeypatch, kept, compiled, backend, precision
):
    small = Bundle.open(exported_once(tmp_path_factory, "paper")[1])
    frame = np.random.default_rng(0).integers(0, 256, (70, 120, 3), dtype=np.uint8)

    def outputs():
        with PersonSearch(small, backend, precision, threads=1, score_thresh=0) as engine:
            people = engine.detect(frame)
            boxes = np.array([[3, 4, 50, 60], [20, 10, 90, 70]], np.float32)
            return people, engine.embed(frame, boxes)

    found = [outputs(), outputs()]
    assert len(compiled) == len(kept()) == 2
    monkeypatch.setenv("PSARM_COMPILED_CACHE", "0")
    found.append(outputs())
    assert len(compiled) == 4
    for people, embeddings in found[1:]:
        assert len(people)
        assert_same(people, found[0][0])
        np.testing.assert_array_equal(embeddings, found[0][1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_int8_answers_the_same_to_the_bit(tmp_path, monkeypatch, kept, compiled, backend):
    path = toy.make_toy_bundle(tmp_path / "int8.psarm")
    model = onnx.load(path / "detect.onnx")
    quantise_conv(model)
    onnx.save(model, path / "detect.onnx")
    write_manifest(path, toy.toy_manifest(path))  # the fp32 graphs of this bundle are int8: that is the graph's affair
    found = [answers(path, backend) for _ in range(2)]
    assert len(compiled) == len(kept()) == 2
    monkeypatch.setenv("PSARM_COMPILED_CACHE", "0")
    for people in found:
        assert_same(answers(path, backend), people)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_damaged_is_compiled_again(bundle, kept, compiled, backend):
    first = answers(bundle, backend)
    good = kept()[0].read_bytes()
    middle = len(good) // 2
    changed = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
    junk = b"no graph"
    foreign = junk + compiled_cache._trailer(zlib.crc32(junk))  # whole, but of another library
    for damaged in (changed, good[:middle], b"", good + b"more", foreign):
        kept()[0].write_bytes(damaged)
        compiled.clear()
        assert_same(answers(bundle, backend), first)
        assert len(compiled) == 1
        assert len(kept()[0].read_bytes()) == len(good)
        assert_same(answers(bundle, backend), first)
        assert len(compiled) == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_switched_off_it_writes_nothing(bundle, kept, compiled, monkeypatch, backend):
    monkeypatch.setenv("PSARM_COMPILED_CACHE", "0")
    answers(bundle, backend)
    answers(bundle, backend)
    assert len(compiled) == 4 and kept() == []


@pytest.mark.parametrize("backend", ["onnxruntime", "auto"])
@pytest.mark.parametrize("text", ["no", "-1", "nan", "4 GiB"])
def test_a_limit_that_is_no_number(bundle, monkeypatch, text, backend):
    monkeypatch.setenv("PSARM_COMPILED_CACHE", text)
    with pytest.raises(UsageError, match=f"PSARM_COMPILED_CACHE is '{text}'; needed the gibibytes"):
        PersonSearch(bundle, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cache_that_may_only_be_read_is_used(bundle, kept, compiled, monkeypatch, capsys, backend):
    first = answers(bundle, backend)
    compiled.clear()

    def refuse(path):
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "utime", refuse)
    assert_same(answers(bundle, backend), first)
    assert compiled == [] and capsys.readouterr().err == ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_beyond_the_limit_is_not_kept(bundle, kept, monkeypatch, backend):
    answers(bundle, backend)
    before = kept()
    smallest = min(file.size for file in bundle.manifest.files.values())
    monkeypatch.setenv("PSARM_COMPILED_CACHE", str((smallest - 1) / 2**30))
    monkeypatch.setattr(compiled_cache, "__version__", "another psarm")
    answers(bundle, backend)
    assert kept() == before


def test_nothing_kept(bundle, kept, compiled):
    with compiled_cache.nothing_kept():
        answers(bundle, "onnxruntime")
    assert kept() == [] and len(compiled) == 2
    answers(bundle, "onnxruntime")
    assert len(kept()) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_where_nothing_can_be_written_it_says_so_and_runs(bundle, tmp_path, monkeypatch, capsys, backend):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("PSARM_CACHE", str(file))
    answers(bundle, backend)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "cannot be kept in" in lines[0] and "PSARM_COMPILED_CACHE=0" in lines[0]
    answers(bundle, backend)  # said once a process and folder
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_home_folder(bundle, monkeypatch, compiled, backend):
    monkeypatch.setattr(compiled_cache, "cache_folder", lambda: None)
    answers(bundle, backend)
    assert len(compiled) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_circumstances_other_files(bundle, kept, monkeypatch, backend):
    answers(bundle, backend)
    monkeypatch.setattr(compiled_cache, "cpu_identity", lambda: "another CPU")
    answers(bundle, backend)
    assert len(kept()) == 4
    monkeypatch.setattr(compiled_cache, "__version__", "another psarm")
    answers(bundle, backend)
    assert len(kept()) == 6
    monkeypatch.setattr(compiled_cache, "FORMAT", 0)
    answers(bundle, backend)
    assert len(kept()) == 8
    library = "openvino" if backend == "openvino" else "onnxruntime"
    monkeypatch.setattr(f"{library}.__version__", "another version")
    answers(bundle, backend)
    assert len(kept()) == 10


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_manifest_that_was_changed_is_noticed(bundle, tmp_path, kept, backend):
    answers(bundle, backend)
    path = toy.make_toy_bundle(tmp_path / "changed.psarm")
    manifest = read_manifest(path)
    manifest.graphs["detect"].outputs["counts"] = toy.TensorSpec("float32", ("N",))
    write_manifest(path, manifest)
    with pytest.raises(BundleError, match="counts"):
        PersonSearch(path, backend)


def test_a_damaged_graph_leaves_nothing_behind(tmp_path, kept, capsys):
    path = toy.make_toy_bundle(tmp_path / "damaged.psarm")
    (path / "detect.onnx").write_bytes(b"no graph")
    write_manifest(path, toy.toy_manifest(path))
    for backend in BACKENDS:
        with pytest.raises(BundleError, match="is not an ONNX graph"):
            PersonSearch(path, backend)
    assert kept() == [] and capsys.readouterr().err == ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_at_once(bundle, kept, backend):
    expected, found = answers(bundle, backend), []
    for path in kept():
        path.unlink()
    barrier = threading.Barrier(4)

    def run():
        barrier.wait()
        found.append(answers(bundle, backend))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(kept()) == 2
    for people in found:
        assert_same(people, expected)


def test_the_least_recently_used_go(tmp_path):
    now = time.time()
    for age, name in enumerate("edcba"):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (now, now - age))
    for age, name in ((7200, ".a.1.tmp"), (60, ".a.2.tmp")):  # of a killed process, and of one that is at work
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (now, now - age))
    compiled_cache._prune(tmp_path, 30)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.2.tmp", "c", "d", "e"]
    compiled_cache._prune(tmp_path / "gone", 30)
    (tmp_path / "large").write_bytes(bytes(31))  # goes alone, not with all the rest
    compiled_cache._prune(tmp_path, 30)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.2.tmp", "c", "d", "e"]


def test_use_makes_it_recent(bundle, kept, monkeypatch):
    answers(bundle, "onnxruntime")
    for path in kept():
        os.utime(path, (0, 0))
    old = kept()
    answers(bundle, "onnxruntime")
    assert all(path.stat().st_mtime > time.time() - 60 for path in old)
    answers(bundle, "openvino")
    new = set(kept()) - set(old)
    monkeypatch.setenv("PSARM_COMPILED_CACHE", str((sum(path.stat().st_size for path in new) + 10) / 2**30))
    for path in new:
        path.unlink()
    answers(bundle, "openvino")
    assert not set(old) & set(kept())


def test_what_does_not_load_is_said_and_compiled_anew(tmp_path, capsys):
    graph = compiled_cache.CompiledGraph(tmp_path / "graph", 1e9)

    def make(path):
        path.write_bytes(b"good")
        return "compiled"

    def load(path):
        raise RuntimeError("of another build")

    assert graph.load_or_compile(load, make) == "compiled" and capsys.readouterr().err == ""
    assert graph.load_or_compile(lambda path: "loaded", make) == "loaded"
    assert graph.load_or_compile(load, make) == "compiled"
    said = capsys.readouterr().err.replace("\n", " ")
    assert "does not load (of another build); it is compiled anew" in said
