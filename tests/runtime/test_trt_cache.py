"""The engine cache, with real builds by TensorRT for RTX: what is built when, kills, and two builds at once."""

import dataclasses
import itertools
import json
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
from tiny_engines import make_trt_bundle

from psarm.errors import BundleError, PsarmError, UsageError
from psarm.runtime.bundle import Bundle
from psarm.runtime.manifest import describe_files, read_manifest, write_manifest
from psarm.runtime.preprocess import resized_size
from psarm.runtime.tensorrt import cache
from psarm.runtime.tensorrt.build import Plan
from psarm.runtime.tensorrt.cache import build_engines, find_engines, make_target
from psarm.runtime.tensorrt.device import Gpu
from psarm.runtime.tensorrt.flavour import TENSORRT, TENSORRT_RTX, Flavour
from psarm.runtime.tensorrt.profiles import default_frames, frames_of_sizes

pytest.importorskip("tensorrt_rtx_bindings")

ADA = Gpu("NVIDIA L4", "8.9")
BUILD = """
import sys, time
from pathlib import Path
from psarm.runtime.bundle import Bundle
from psarm.runtime.tensorrt import cache, engine_files
from psarm.runtime.tensorrt.flavour import TENSORRT_RTX

def stop(*_):
    print("here", flush=True)
    while not Path(sys.argv[2], "go").exists():
        time.sleep(0.02)

bundle = Bundle.open(sys.argv[1])
if sys.argv[3] == "writing":
    engine_files.write_json = stop
target = cache.make_target(bundle, TENSORRT_RTX, "fp32")
on_phase = stop if sys.argv[3] == "building" else lambda graph, phase: None
print(cache.build_engines(bundle, TENSORRT_RTX, target, say=print, on_phase=on_phase)[1], flush=True)
"""


@pytest.fixture
def bundle(tmp_path):
    return Bundle.open(make_trt_bundle(tmp_path / "toy.psarm"))


def build(bundle, precision="fp32", frames=None, named=(), **more):
    said = []
    target = make_target(bundle, TENSORRT_RTX, precision, frames, named)
    engines, built = build_engines(bundle, TENSORRT_RTX, target, say=said.append, **more)
    return engines, built, said


def engines_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != cache.LOCK)


def test_engines_are_built_once(bundle):
    engines, built, said = build(bundle)
    assert built
    assert said == ["Building engines: the bundle has none of fp32 for tensorrt_rtx yet."]
    assert sorted(path.name for path in engines.path.iterdir()) == ["detect.plan", "engine.json", "reid.plan"]
    assert engines.path == bundle.path / "engines" / engines.target.key
    assert engines.files["detect"].profiles == 2
    again, built, said = build(bundle)
    assert (again, built, said) == (engines, False, [])
    Bundle.open(bundle.path)  # is still a bundle


def test_fp16_engines_hold_half_layers(bundle):
    engines, _, _ = build(bundle, "fp16")
    assert engines.files["detect"].layers["fp16"] > 0 < engines.files["reid"].layers["fp16"]


def test_what_the_json_says(bundle):
    engines, _, _ = build(bundle, named=("8.9", "8.6"))
    said = json.loads((engines.path / "engine.json").read_text())
    assert said["target"]["compute_capabilities"] == ["8.6", "8.9"]
    assert said["target"]["graphs"]["detect"] == bundle.manifest.files["tensorrt/detect.fp32.onnx"].sha256
    assert said["files"]["detect"]["layers"] == engines.files["detect"].layers


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "1.0"}, "the library's version is .* and those there were built with 1.0"),
        ({"compute_capabilities": ("8.6",)}, "the compute capabilities are none by name and those .* for 8.6"),
        ({"graphs": {"detect": "0", "reid": "0"}}, "the bundle's graphs have changed"),
        ({"frames": ()}, "those there have other profiles"),
    ],
)
def test_the_reason_for_a_build_is_told(bundle, change, reason):
    engines, _, _ = build(bundle)
    said = json.loads((engines.path / "engine.json").read_text())
    said["target"] |= change
    (engines.path / "engine.json").write_text(json.dumps(said))
    _, built, said = build(bundle)
    assert built
    assert len(said) == 1 and re.match(f"Building engines: {reason}", said[0])


def test_other_graphs_are_other_engines(bundle):
    first, _, _ = build(bundle)
    file = bundle.path / "tensorrt/reid.fp32.onnx"
    file.write_bytes((bundle.path / "tensorrt/reid.fp16.onnx").read_bytes())
    manifest = read_manifest(bundle.path)
    files = manifest.files | describe_files(bundle.path, ["tensorrt/reid.fp32.onnx"])
    write_manifest(bundle.path, dataclasses.replace(manifest, files=files))
    second, built, _ = build(Bundle.open(bundle.path))
    assert built and second.path != first.path


def test_a_damaged_plan_is_built_again(bundle):
    engines, _, _ = build(bundle)
    (engines.path / "reid.plan").write_bytes(b"short")
    with pytest.raises(BundleError, match=r"reid\.plan is missing or damaged"):
        engines.read_plan("reid")
    again, built, said = build(bundle)
    assert built and again.whole
    assert "is damaged" in said[0]


def test_a_rebuild_is_told(bundle):
    build(bundle)
    _, built, said = build(bundle, rebuild=True)
    assert built and said == ["Building engines: as asked."]


def test_engines_that_fit_are_found(bundle):
    engines, _, _ = build(bundle, named=("8.6", "8.9"))
    assert find_engines(bundle, TENSORRT_RTX, "fp32", ADA) == engines


def test_engines_that_do_not_fit_are_refused_with_the_command(bundle):
    command = f"psarm engines {bundle.path} --flavour tensorrt_rtx --precision fp32"
    with pytest.raises(BundleError, match=f"has no fp32 engines of TensorRT for RTX; build them with: {command}"):
        find_engines(bundle, TENSORRT_RTX, "fp32", ADA)
    engines, _, _ = build(bundle, named=("12.0",))
    with pytest.raises(
        BundleError, match=r"for compute capability 12.0 and this GPU is NVIDIA L4 \(.* 8.9\); build .*"
    ):
        find_engines(bundle, TENSORRT_RTX, "fp32", ADA)
    said = json.loads((engines.path / "engine.json").read_text())
    said["target"]["version"] = "1.0"
    (engines.path / "engine.json").write_text(json.dumps(said))
    with pytest.raises(BundleError, match=r"for version 1\.0 of the library and 1\.\S+ is installed; build .*"):
        find_engines(bundle, TENSORRT_RTX, "fp32", ADA)


def test_a_precision_the_bundle_lacks(bundle):
    with pytest.raises(UsageError, match=r"graphs in int8, only fp32, fp16; TensorRT's form .* in fp32 and fp16 only"):
        make_target(bundle, TENSORRT_RTX, "int8")


def test_the_advice_for_a_precision_that_can_be_exported(bundle):
    only = {"fp32": bundle.manifest.tensorrt["fp32"]}
    plain = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, tensorrt=only))
    with pytest.raises(UsageError, match=r"in fp16, only fp32; export it with --trt --precision fp16\.$"):
        make_target(plain, TENSORRT_RTX, "fp16")


@pytest.fixture
def quick(monkeypatch):
    """Plans that no library built."""
    monkeypatch.setattr(cache, "build_plan", lambda *_: Plan(b"plan", {"fp32": 1}, (), 0.1))


def used(bundle):
    return find_engines(bundle, TENSORRT_RTX, "fp32", ADA)


def test_what_was_asked_for_last_is_used(bundle, quick):
    small = frames_of_sizes(["64x96"], 1, 32)
    first, _, _ = build(bundle)
    second, _, _ = build(bundle, frames=small)
    assert used(bundle) == second
    again, built, said = build(bundle)
    assert (built, said) == (False, []) and again.path == first.path and again.created > second.created
    assert used(bundle) == again
    assert build(bundle, frames=small)[0] == used(bundle) and used(bundle).path == second.path


def test_engines_of_a_bundle_that_is_read_only_now_are_not_built_again(bundle, quick, monkeypatch, tmp_path):
    monkeypatch.setenv("PSARM_CACHE", str(tmp_path / "cache"))
    first, _, _ = build(bundle)
    away = tmp_path / "cache" / "engines" / "elsewhere"
    away.mkdir(parents=True)
    monkeypatch.setattr(cache, "_writable_folder", lambda bundle, say: away)
    monkeypatch.setattr(cache, "_folders", lambda bundle: [bundle.path / "engines", away])
    assert build(bundle) == (first, False, [])
    assert engines_in(away) == []
    build(bundle, frames=frames_of_sizes(["64x96"], 1, 32))
    copied, built, said = build(bundle)
    assert (built, said) == (False, []) and copied.path == away / first.target.key and copied.whole
    assert used(bundle) == copied


def test_tensorrt_builds_for_nothing_without_a_gpu(bundle, monkeypatch):
    monkeypatch.setattr(Flavour, "load", lambda self: types.SimpleNamespace(__version__="10.4.0"))
    monkeypatch.setattr(cache, "find_gpu", lambda: (None, "the NVIDIA driver sees no GPU"))
    with pytest.raises(PsarmError, match=r"TensorRT cannot build here, .*: the NVIDIA driver sees no GPU\.$"):
        make_target(bundle, TENSORRT, "fp32")


def test_tensorrt_engines_are_of_one_gpu(bundle, quick, monkeypatch):
    """Of the same compute capability, but another name."""
    monkeypatch.setattr(Flavour, "load", lambda self: types.SimpleNamespace(__version__="10.4.0"))
    said = []
    for gpu in (Gpu("NVIDIA L40S", "8.9"), ADA):
        monkeypatch.setattr(cache, "find_gpu", lambda gpu=gpu: (gpu, ""))
        if gpu == ADA:
            with pytest.raises(BundleError) as caught:
                find_engines(bundle, TENSORRT, "fp32", gpu)
            assert re.search(
                r"were built for NVIDIA L40S \(compute capability 8.9\) and this GPU is NVIDIA L4 \(compute capability "
                rf"8.9\); build them again with: psarm engines {bundle.path} --flavour tensorrt --precision fp32\.$",
                str(caught.value),
            )
        engines, built = build_engines(bundle, TENSORRT, make_target(bundle, TENSORRT, "fp32"), say=said.append)
        assert built and find_engines(bundle, TENSORRT, "fp32", gpu) == engines
    assert len(engines_in(bundle.path / "engines")) == 2, "those of the other GPU stay"
    assert said[1] == "Building engines: this GPU is NVIDIA L4 and those there were built for NVIDIA L40S."


@pytest.mark.parametrize("change", [{"files": []}, {"files": {}}, {"target": []}, {"created": None}, None])
def test_an_engine_json_that_says_nothing_is_not_there(bundle, quick, change):
    engines, _, _ = build(bundle)
    info = engines.path / "engine.json"
    if change == {"created": None}:
        info.unlink()
        info.mkdir()  # cannot be read, whoever asks
    elif change is None:
        info.write_bytes(b"\xff\xfe\x00")
    else:
        info.write_text(json.dumps(json.loads(info.read_text()) | change))
    with pytest.raises(BundleError, match="has no fp32 engines of TensorRT for RTX"):
        used(bundle)
    assert build(bundle)[1] and used(bundle).whole


def test_what_a_killed_replacement_left_is_removed(bundle, quick):
    engines, _, _ = build(bundle)
    (engines.path.parent / f".{engines.path.name}.abc.old" / engines.path.name).mkdir(parents=True)
    build(bundle, rebuild=True)
    assert engines_in(engines.path.parent) == [engines.path.name]


def test_engine_json_of_a_later_psarm_is_left_alone(bundle):
    engines, _, _ = build(bundle)
    (engines.path / "engine.json").write_text('{"schema": 99}')
    later = engines.path.rename(engines.path.with_name("later"))
    _, built, _ = build(bundle)
    assert built and (later / "engine.json").is_file()


def test_a_bundle_that_cannot_be_written_to(bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("PSARM_CACHE", str(tmp_path / "cache"))
    (bundle.path / "engines").mkdir()
    real = Path.touch

    def touch(path, *more):  # root may write everywhere, so the system is not asked
        if path.is_relative_to(bundle.path):
            raise PermissionError(13, "Permission denied", str(path))
        real(path, *more)

    monkeypatch.setattr(Path, "touch", touch)
    engines, built, said = build(bundle)
    assert built and engines.path.is_relative_to(tmp_path / "cache" / "engines")
    assert "cannot be written to (Permission denied): engines go to" in said[0]
    assert build(bundle)[:2] == (engines, False)
    assert find_engines(bundle, TENSORRT_RTX, "fp32", ADA) == engines


def start(bundle, tmp_path, where):
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(bundle.path), str(tmp_path), where], stdout=subprocess.PIPE, text=True
    )


def wait_until_here(process):
    lines = iter(process.stdout.readline, "")
    assert "here\n" in lines, "it ended before"


@pytest.mark.parametrize("where", ["building", "writing"])
def test_a_killed_build_leaves_nothing(bundle, tmp_path, where):
    folder = bundle.path / "engines"
    with start(bundle, tmp_path, where) as process:
        wait_until_here(process)
        assert (engines_in(folder) != []) == (where == "writing")
        process.send_signal(signal.SIGKILL)
    assert not list(folder.glob("[!.]*/engine.json"))
    engines, built, _ = build(bundle)
    assert built
    assert engines_in(folder) == [engines.path.name], "what the killed one left is gone"


def test_of_two_builds_at_once_one_waits(bundle, tmp_path):
    with start(bundle, tmp_path, "building") as first:
        wait_until_here(first)
        with start(bundle, tmp_path, "none") as second:
            said = second.stdout.readline()
            (tmp_path / "go").touch()
            first_end, second_end = first.communicate()[0], second.communicate()[0]
    assert said == f"Another process builds engines in {bundle.path / 'engines'}: waiting for it.\n"
    assert (first_end.splitlines()[-1], second_end.splitlines()[-1]) == ("True", "False")


@pytest.mark.parametrize("rule", [(900, 1500), (288, 512), (96, 160), (480, 640)])
def test_default_profiles_take_batches_of_both_orientations(bundle, rule):
    preprocessing = dataclasses.replace(bundle.manifest.preprocessing, min_size=rule[0], max_size=rule[1])
    profiles = default_frames(dataclasses.replace(bundle.manifest, preprocessing=preprocessing), 3)
    shapes = [(60, 90), (90, 60), (40, 150), (150, 40), (77, 77), (108, 192), (64, 48)]
    for chosen in itertools.product(shapes, repeat=3):
        sizes = [resized_size(*shape, *rule) for shape in set(chosen)]
        height, width = (-(-max(side) // 32) * 32 for side in zip(*sizes, strict=True))
        batch = (len(sizes), height, width)
        assert any(
            all(a <= b <= c for a, b, c in zip(one.minimum, batch, one.maximum, strict=True)) for one in profiles
        ), chosen


def test_default_profiles_take_every_size_of_the_rule(bundle):
    rule = dataclasses.replace(bundle.manifest.preprocessing, min_size=900, max_size=1500)
    manifest = dataclasses.replace(bundle.manifest, preprocessing=rule)
    landscape, portrait, mixed = default_frames(manifest, 4)
    assert (mixed.minimum, mixed.optimum, mixed.maximum) == ((2, 896, 896), (2, 1504, 1504), (4, 1504, 1504))
    assert len(default_frames(manifest)) == 2
    assert (landscape.minimum, landscape.optimum, landscape.maximum) == ((1, 352, 896), (1, 864, 1504), (4, 928, 1504))
    assert (portrait.minimum, portrait.optimum, portrait.maximum) == ((1, 896, 352), (1, 1504, 864), (4, 1504, 928))
