"""What `psarm doctor` prints and exits with, on machines with and without working backends."""

import json
import types

import pytest
from tiny_engines import make_trt_bundle
from toy_bundle import make_toy_bundle

from psarm.cli import run
from psarm.cli.doctor import _auto_lines, _lacking, _ready
from psarm.machine import PACKAGES, package_versions
from psarm.runtime import backends
from psarm.runtime.backends import BACKENDS, BackendStatus, probe_backend
from psarm.runtime.bundle import Bundle
from psarm.runtime.tensorrt import backend as trt_backend
from psarm.runtime.tensorrt.backend import TensorRTForRTXBackend
from psarm.runtime.tensorrt.device import Gpu
from psarm.runtime.tensorrt.flavour import Flavour


@pytest.fixture
def broken_backends(monkeypatch):
    statuses = [
        BackendStatus("onnxruntime", False, "libfoo.so.1 [not] found"),
        BackendStatus("openvino", False, "absent"),
    ]
    monkeypatch.setattr(backends, "probe_backends", lambda: statuses)


def test_tables_show_versions_machine_and_backends(capsys):
    assert run(["doctor"]) == 0
    shown = capsys.readouterr().out
    for part in ("Versions", "python", "psarm", "torch", "Machine", "processor", "GiB", "GPU", "Backends", "openvino"):
        assert part in shown


def test_json_is_one_object(capsys):
    assert run(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["versions"] == package_versions()
    assert report["machine"]["threads"] >= 1
    loads = {backend["name"]: backend["loads"] for backend in report["backends"]}
    assert loads["onnxruntime"] is True
    assert all(backend["detail"] for backend in report["backends"])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm")


def test_what_runs_a_bundle(bundle, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run(["doctor", str(bundle), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    runs = {backend["name"]: backend["precisions"] for backend in report["backends"]}
    assert list(runs) == list(BACKENDS)
    assert runs["onnxruntime"] == ["fp32"] and "fp32" in runs["openvino"] and runs["torch"] == []
    assert report["auto"].startswith("openvino, CPU, 1 thread,") and "passed over: tensorrt: " in report["auto"]
    assert run(["doctor", str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert "runs the bundle in" in shown and "nothing: the bundle holds nothing for it" in shown  # torch
    taken, _, others = report["auto"].partition("; passed over: ")
    assert shown.endswith(f"auto takes {taken}).\nIt passed over {others.removesuffix(')')}.\n")
    openvino = next(one for one in report["backends"] if one["name"] == "openvino")
    assert f"openvino: {openvino['detail']}\n" in shown
    assert max(len(line) for line in shown.partition("Backends")[2].splitlines() if line.startswith(("┃", "│"))) <= 80


def test_what_auto_takes():
    assert _auto_lines("") == []
    assert _auto_lines("openvino, CPU, fp32 (as asked; x)") == ["auto takes openvino, CPU, fp32 (as asked; x)."]
    assert _auto_lines("openvino, CPU, fp32 (the fastest, on CPU (A: fp32); passed over: b: why; c: none (d))") == [
        "auto takes openvino, CPU, fp32 (the fastest, on CPU (A: fp32)).",
        "It passed over b: why; c: none (d).",
    ]


def test_engines_that_are_not_there_yet(tmp_path, capsys, monkeypatch):
    bundle = make_trt_bundle(tmp_path / "toy.psarm")
    monkeypatch.setattr(TensorRTForRTXBackend, "probe", classmethod(lambda cls: (True, "a double")))
    monkeypatch.setattr(Flavour, "load", lambda self: types.SimpleNamespace(__version__="1.7"))
    monkeypatch.setattr(trt_backend, "find_gpu", lambda: (Gpu("NVIDIA L4", "8.9"), ""))
    statuses = [probe_backend(name) for name in ("onnxruntime", "tensorrt_rtx")]
    monkeypatch.setattr(backends, "probe_backends", lambda: statuses)
    assert run(["doctor", str(bundle), "--json"]) == 0
    plain, rtx = json.loads(capsys.readouterr().out)["backends"]
    text = f"no engine for this GPU; run psarm engines {bundle} --flavour tensorrt_rtx"
    assert (plain["precisions"], plain["lacks"]) == (["fp32"], {})
    assert (rtx["precisions"], rtx["lacks"]) == ([], {"fp32": text, "fp16": text})
    mixed = {"fp32": None, "fp16": text, "bf16": None}
    assert (_ready(mixed), _lacking(mixed)) == ("fp32, bf16", [f"fp16: {text}"])
    assert run(["doctor", str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert f"tensorrt_rtx in fp32, fp16: {text}\n" in shown and "nothing yet" in shown
    opened = Bundle.open(bundle)
    assert backends.runnable(opened, "tensorrt_rtx") == ()
    assert backends.conditions(opened, "tensorrt_rtx") == {"fp32": text, "fp16": text}


def test_a_bundle_that_is_none(tmp_path, capsys):
    assert run(["doctor", str(tmp_path)]) == 1
    assert "is not a bundle: it holds no manifest.json" in capsys.readouterr().err
    assert run(["doctor", str(tmp_path / "gone")]) == 2


@pytest.mark.parametrize("as_json", [True, False])
def test_a_damaged_bundle_hides_nothing_of_the_machine(tmp_path, capsys, as_json):
    bundle = make_toy_bundle(tmp_path / "toy.psarm")
    graph = bundle / "reid.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    assert run(["doctor", str(bundle), *["--json"] * as_json]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith(f"Error: {graph} is not the file its manifest describes") and shown.err.count("\n") == 1
    if as_json:
        assert [one["name"] for one in json.loads(shown.out)["backends"]] == list(BACKENDS)
    else:
        assert "Backends" in shown.out and "onnxruntime" in shown.out and "runs the bundle in" not in shown.out


def test_no_backend_loads(broken_backends, capsys):
    assert run(["doctor"]) == 1
    shown = capsys.readouterr()
    assert "libfoo.so.1 [not] found" in shown.out  # not taken for rich markup
    assert shown.err == "Error: No backend loads on this machine; install one with: pip install onnxruntime.\n"


def test_no_backend_loads_json(broken_backends, capsys):
    assert run(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [backend["loads"] for backend in report["backends"]] == [False, False]


def test_a_missing_package_is_said_so(monkeypatch, capsys):
    monkeypatch.setitem(PACKAGES, "torch", ("no-such-distribution",))
    run(["doctor"])
    shown = capsys.readouterr().out.partition("Machine")[0]
    [line] = [line for line in shown.splitlines() if line.startswith("│ torch ")]
    assert "not installed" in line
