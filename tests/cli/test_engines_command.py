"""`psarm engines`, with real builds of tiny graphs by TensorRT for RTX."""

import json
import signal

import pytest
from tiny_engines import make_trt_bundle
from toy_bundle import make_toy_bundle

from psarm.cli import engines, export_engines, run
from psarm.errors import UsageError
from psarm.runtime.tensorrt import cache
from psarm.runtime.tensorrt.device import Gpu

pytest.importorskip("tensorrt_rtx_bindings")


@pytest.fixture
def bundle(tmp_path):
    return make_trt_bundle(tmp_path / "toy.psarm")


def left(bundle):
    return [path.name for path in (bundle / "engines").iterdir() if path.name != ".lock"]


def test_all_precisions_of_the_bundle(bundle, capsys):
    assert run(["engines", str(bundle)]) == 0
    first = capsys.readouterr()
    assert first.err.splitlines() == [
        "Building engines: the bundle has none of fp32 for tensorrt_rtx yet.",
        "Building detect in fp32.",
        "Building reid in fp32.",
        "Building engines: the bundle has none of fp16 for tensorrt_rtx yet.",
        "Building detect in fp16.",
        "Building reid in fp16.",
    ]
    assert "6 fp16" in first.out and "1x32x64 to 1x96x160" in first.out and f"Engines: {bundle}/engines/" in first.out
    assert len(left(bundle)) == 2
    assert run(["engines", str(bundle)]) == 0
    again = capsys.readouterr()
    assert again.err == "" and again.out.count("there already") == 4


def test_shapes_and_json(bundle, capsys):
    shapes = ["--min-shapes", "1x3x32x32", "--opt-shapes", "images:1x3x64x96", "--max-shapes", "2x3x96x96"]
    assert run(["engines", str(bundle), "--precision", "fp16", *shapes, "--cc", "12.0", "--cc", "8.6", "--json"]) == 0
    [one] = json.loads(capsys.readouterr().out)
    assert one["built"] and one["target"]["compute_capabilities"] == ["8.6", "12.0"]
    assert one["target"]["frames"] == [{"minimum": [1, 32, 32], "optimum": [1, 64, 96], "maximum": [2, 96, 96]}]
    assert one["files"]["reid"]["layers"]["fp16"] > 0


def test_sizes(bundle, capsys):
    arguments = ["--precision", "fp32", "--sizes", "64x96", "--sizes", "96x64", "--max-batch", "3", "--workspace", "64"]
    assert run(["engines", str(bundle), *arguments]) == 0
    assert "1x64x96 to 3x64x96" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--sizes", "65x96"], "no multiple of 32, to which frames are padded; give 96x96"),
        (["--sizes", "large"], "'large' is not a frame size, HEIGHTxWIDTH as 864x1504"),
        (["--min-shapes", "1x3x64x64"], "1 minimum, 0 optimum and 0 maximum shapes were given"),
        (["--min-shapes", "1x1x64x64", "--opt-shapes", "1x3x64x64", "--max-shapes", "1x3x64x64"], "has 1 channels"),
        (["--min-shapes", "2x3x64x64", "--opt-shapes", "1x3x64x64", "--max-shapes", "2x3x64x64"], "are no range"),
        (["--min-shapes", "1x3x64x64", "--max-batch", "2"], "leave out --sizes, --max-batch"),
        (["--cc", "9.0"], "does not build for compute capability '9.0'; it knows 7.5"),
        (["--precision", ","], "--precision ',' names none; give a comma list"),
        (["--precision", ""], "--precision '' names none"),
        (["--precision", "int8"], "no TensorRT graphs in int8, only fp32, fp16"),
        (["--flavour", "rtx"], "no TensorRT flavour 'rtx'; choose tensorrt or tensorrt_rtx"),
        (["--timing-cache", "times"], "TensorRT for RTX has no timing cache"),
    ],
)
def test_what_cannot_be(bundle, capsys, arguments, sentence):
    assert run(["engines", str(bundle), *arguments]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert not (bundle / "engines").exists() or left(bundle) == []


def test_a_bundle_without_tensorrt_graphs(tmp_path, capsys):
    bundle = make_toy_bundle(tmp_path / "plain.psarm")
    assert run(["engines", str(bundle)]) == 2
    assert "holds no TensorRT graphs; export it with psarm export --trt" in capsys.readouterr().err


def test_a_graph_that_was_tampered_with(bundle, capsys):
    graph = bundle / "tensorrt" / "reid.fp32.onnx"
    content = bytearray(graph.read_bytes())
    content[-20] ^= 1
    graph.write_bytes(content)
    assert run(["engines", str(bundle)]) == 1
    assert "SHA-256 differs" in capsys.readouterr().err


def test_an_export_builds_what_psarm_engines_builds(bundle, capsys):
    options = engines.BuildOptions(sizes=("64x96",))
    export_engines.check_building(options)
    export_engines.build_where_possible(bundle, options, show_table=True)
    assert capsys.readouterr().out.count("1x64x96") == 8
    assert run(["engines", str(bundle), "--sizes", "64x96"]) == 0
    assert capsys.readouterr().out.count("there already") == 4


def test_an_export_is_good_where_its_engines_cannot_be_built(bundle, capsys, monkeypatch):
    hopper = Gpu("NVIDIA H200", "9.0")
    monkeypatch.setattr(cache, "find_gpu", lambda: (hopper, ""))
    export_engines.build_where_possible(bundle, engines.BuildOptions(), show_table=True)
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("No engines were built. TensorRT for RTX 1.")
    assert "does not build for compute capability '9.0'" in said.err and f"psarm engines {bundle}\n" in said.err
    with pytest.raises(UsageError, match=r"capability '9\.0'"):
        export_engines.build_where_possible(bundle, engines.BuildOptions("tensorrt_rtx"), show_table=True)


def fail_in_reid(self, graph, phase):
    if graph == "reid":
        raise KeyboardInterrupt


def terminate_in_reid(self, graph, phase):
    if graph == "reid" and not getattr(self, "terminated", False):
        self.terminated = True  # once: another thread than the main one is here, and goes on for a while
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("interrupt", [fail_in_reid, terminate_in_reid])
def test_ctrl_c_and_sigterm_leave_nothing(bundle, capsys, monkeypatch, interrupt):
    monkeypatch.setattr(engines._Progress, "tell", interrupt)
    assert run(["engines", str(bundle), "--precision", "fp32"]) == 130
    assert "Interrupted." in capsys.readouterr().err
    assert left(bundle) == []
