"""`psarm export` as a user types it."""

import dataclasses
import json
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from tiny_prw import write_tiny_prw

from psarm.cli import run
from psarm.errors import MissingExtraError
from psarm.model.checkpoint import read_checkpoint, save_checkpoint


def test_table_with_errors_and_limits(quick, checkpoint, tmp_path, capsys):
    assert run(["export", str(checkpoint), "--out", str(tmp_path / "b.psarm")]) == 0
    shown = capsys.readouterr()
    for part in ("detect", "reid", "bundle", "nodes", "few people, 3 frames", "smallest image", "limit", "1.0e-02"):
        assert part in shown.out
    assert f"psarm detect {tmp_path / 'b.psarm'}" in shown.out
    assert shown.err.splitlines() == [
        "tracing detect…",
        "tracing reid…",
        "verifying detect…",
        "verifying reid…",
        "verifying the whole bundle…",
    ]


@pytest.mark.parametrize("name", ["visits", None])
def test_the_next_command_is_for_the_data_set_of_the_checkpoint(quick, checkpoint, tmp_path, capsys, name):
    about = {"name": name, "train_frames": 3, "identities": 7} if name else None
    save_checkpoint(dataclasses.replace(read_checkpoint(checkpoint), dataset=about), tmp_path / "m.safetensors")
    assert run(["export", str(tmp_path / "m.safetensors"), "--out", str(tmp_path / "b"), "--no-verify"]) == 0
    shown = capsys.readouterr().out
    assert f"or psarm bench {tmp_path / 'b'} --dataset {name or 'NAME'} --data-root DIR\n" in shown


def test_json_is_one_object(quick, checkpoint, tmp_path, capsys):
    arguments = ["export", str(checkpoint), "--out", str(tmp_path / "b"), "--no-verify", "--json"]
    assert run(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bundle"] == str(tmp_path / "b")
    assert report["limits"] == {"boxes": 1e-2, "scores": 1e-4, "embeddings": 1e-4}
    assert (report["verification"], report["dataset"]) == ([], None)
    assert report["nodes"].keys() == report["bytes"].keys() == {"detect", "reid"}


def test_without_verification_the_output_says_so(quick, checkpoint, tmp_path, capsys):
    assert run(["export", str(checkpoint), "--out", str(tmp_path / "b"), "--no-verify"]) == 0
    assert "Not compared with the PyTorch model" in capsys.readouterr().out


def test_a_bundle_is_replaced_only_when_asked(quick, checkpoint, tmp_path, capsys):
    arguments = ["export", str(checkpoint), "--out", str(tmp_path / "b"), "--no-verify"]
    assert run(arguments) == 0
    assert run(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run([*arguments, "--overwrite"]) == 0


def one_line(capsys):
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err and captured.out == ""
    return captured.err.strip().splitlines()[-1]


def test_missing_checkpoint(tmp_path, capsys):
    assert run(["export", str(tmp_path / "none.pth"), "--out", str(tmp_path / "b")]) == 2
    assert "does not exist" in one_line(capsys)


@pytest.mark.parametrize("content", [b"", b"no weights here", b"\x80\x04junk"])
def test_file_that_is_no_checkpoint(content, tmp_path, capsys):
    (tmp_path / "x.pth").write_bytes(content)
    assert run(["export", str(tmp_path / "x.pth"), "--out", str(tmp_path / "b")]) == 1
    assert "x.pth" in one_line(capsys)
    assert not (tmp_path / "b").exists()


def test_checkpoint_of_another_architecture(tmp_path, capsys):
    torch.save({"model": {"fc.weight": torch.zeros(2, 2)}}, tmp_path / "x.pth")
    assert run(["export", str(tmp_path / "x.pth"), "--out", str(tmp_path / "b")]) == 1
    assert "another architecture" in one_line(capsys)


def test_target_that_is_no_bundle(checkpoint, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    assert run(["export", str(checkpoint), "--out", str(tmp_path / "photos"), "--overwrite"]) == 2
    assert "not a psarm bundle" in one_line(capsys)
    assert (tmp_path / "photos" / "a.jpg").exists()


def test_missing_extra(checkpoint, tmp_path, capsys, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnxscript" else find(name))
    assert run(["export", str(checkpoint), "--out", str(tmp_path / "b")]) == 2
    assert "pip install 'psarm[export]'" in one_line(capsys)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_leave_nothing(quick, checkpoint, tmp_path, capsys, monkeypatch, number):
    from psarm.export import exporter

    def interrupt(*arguments):
        assert list(tmp_path.glob(".b.*.tmp"))
        signal.raise_signal(number)

    monkeypatch.setattr(exporter, "verify_bundle", interrupt)
    assert run(["export", str(checkpoint), "--out", str(tmp_path / "b")]) == 130
    assert "Interrupted" in one_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_precisions_are_measured_and_shown(quick, checkpoint, tmp_path, capsys):
    assert run(["export", str(checkpoint), "--out", str(tmp_path / "b"), "--precision", "fp16,fp32"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "detect.fp16",
        "What the precisions change on 4 frames ",
        "Compared on 4 frames made up; signal to noise on 4.",
        "embeddings, signal to noise dB",
        "pairs that swap ranks",
    ):
        assert part in shown


def test_accuracy_of_precisions(quick, checkpoint, tmp_path, capsys):
    root = write_tiny_prw(tmp_path / "prw", train=1, test=2)
    arguments = ["--precision", "fp16", "--data-root", str(root), "--dataset", "prw", "--torch-weights"]
    assert run(["export", str(checkpoint), "--out", str(tmp_path / "b"), *arguments]) == 0
    shown = capsys.readouterr().out
    assert "Accuracy, percent, and difference to fp32" in shown and "top-1 CBGM" in shown and "(+0.00)" in shown
    assert (tmp_path / "b" / "model.safetensors").exists()
    assert f"Compared on 2 frames of {root}; signal to noise on 2." in shown
    assert "fp16 on ONNX Runtime: CPU" in shown and "rounded to half after every operator." in shown


@pytest.mark.parametrize("as_json", [True, False])
def test_what_was_measured_is_shown_where_a_precision_loses_too_much(
    quick, checkpoint, tmp_path, capsys, monkeypatch, as_json
):
    from psarm.export import exporter
    from psarm.export.precision import measure

    values = {"fp32": 0.75, "fp16": 0.5}

    def accuracy(engine, *arguments):
        figures = {"mAP": values[engine.precision], "top1": 1.0}
        return {"detection": {"ap": 1.0}, "search": figures, "search_cbgm": figures}

    monkeypatch.setattr(exporter, "verify_bundle", lambda *arguments: [])
    monkeypatch.setattr(measure, "_accuracy", accuracy)
    root = write_tiny_prw(tmp_path / "prw", train=1, test=2)
    arguments = ["--precision", "fp16", "--data-root", str(root), "--min-map-ratio", "0.9", "--compare-frames", "1"]
    assert run(["export", str(checkpoint), "--out", str(tmp_path / "b"), *arguments, *["--json"] * as_json]) == 1
    shown = capsys.readouterr()
    assert shown.err.endswith(
        "Error: --min-map-ratio 0.9 does not hold: fp32 has a mAP of 75.00, fp16 on ONNX Runtime has 50.00, 0.6667 of "
        "it; nothing was written.\n"
    )
    assert list(tmp_path.iterdir()) == [root]
    if as_json:
        report = json.loads(shown.out)
        assert report["bundle"] is None and report["precisions"][1]["accuracy"]["search"]["mAP"] == 0.5
        assert report["precisions"][1]["drift"]["frames"] == 1
    else:
        assert "What the precisions change on 1 frame " in shown.out and "50.00 (-25.00)" in shown.out
        assert "Bundle:" not in shown.out and "Next:" not in shown.out


def test_accuracy_of_fp32_alone(quick, checkpoint, tmp_path, capsys, monkeypatch):
    from psarm.export import exporter

    monkeypatch.setattr(exporter, "verify_bundle", lambda *arguments: [])
    root = write_tiny_prw(tmp_path / "prw", train=1, test=2)
    assert run(["export", str(checkpoint), "--out", str(tmp_path / "b"), "--data-root", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "Accuracy, percent" in shown and "top-1 CBGM" in shown
    assert "difference to fp32" not in shown and "What the precisions change" not in shown


def test_who_is_found_by_which_precision_and_what_a_dash_means(capsys):
    from psarm.cli.export_tables import show_export
    from psarm.export import ExportReport
    from psarm.export.precision.drift import Drift, PeopleDrift, RankDrift
    from psarm.export.precision.measure import PrecisionReport

    def shown(deltas):
        snr = {"features": 31.0, "objectness": deltas, "deltas": deltas, "scores": 21.0, "embeddings": 28.0}
        people = PeopleDrift(12, 13, 12, *(0.5,) * 6)
        drift = Drift(snr, people, RankDrift(12, 1, 0.01), 4, 4)
        precisions = [
            PrecisionReport("fp32", "fp32 on ONNX Runtime", "CPU", None, None),
            PrecisionReport("int8", "int8 on OpenVINO", "CPU", drift, None),
        ]
        show_export(ExportReport(None, {}, {}, [], precisions, None, "4 test frames of x", None))
        printed = capsys.readouterr().out
        rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in printed.splitlines() if "│" in line]
        return printed, {row[0]: row[-1] for row in rows}

    printed, rows = shown(None)
    assert rows["people found by fp32"] == rows["people found by both"] == "12"
    assert rows["people found by this precision"] == "13" and rows["both, of all found by either %"] == "92.3"
    assert "Compared on 4 test frames of x; signal to noise on 4.\n–: OpenVINO gives a graph's outputs; obj" in printed
    assert "–: OpenVINO" not in shown(18.0)[0]


def test_what_int8_left_in_float_is_said():
    from psarm.cli.export_tables import _quantised
    from psarm.export.precision.int8 import KeptLayer, Quantised

    layers, signals = {"detect": 30, "reid": 9}, {"map.features": 31.0, "head.scores": 20.4}
    assert _quantised(Quantised({}, layers, [], signals, "16 of the 20 pictures of x")).splitlines() == [
        "int8: 30 layers of detect, 9 layers of reid; calibrated on 16 of the 20 pictures of x; the worst signal, "
        "head.scores, has 20.4 dB.",
        "Left in float for accuracy: nothing.",
    ]
    kept = [
        KeptLayer("detect", f"head.res5.0.conv{n}", "head.res5.0 alone leaves scores 18.2 dB", 18.2) for n in (1, 2)
    ]
    said = _quantised(Quantised({}, layers, kept, signals, "x")).splitlines()[1]
    assert said == "Left in float for accuracy: detect: head.res5.0 alone leaves scores 18.2 dB (2 layers)."


def test_what_is_not_verified_is_not_compared_and_torch_is_not_loaded_to_say_so(tmp_path):
    (tmp_path / "no.pth").write_bytes(b"")
    arguments = ["export", str(tmp_path / "no.pth"), "--out", str(tmp_path / "b"), "--no-verify"]
    arguments += ["--precision", "fp16", "--compare-frames", "3"]
    code = f"import sys; from psarm.cli import run; print(run({arguments}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "2 False\n", done
    assert done.stderr == (
        "Error: --compare-frames is to measure precisions on, which --no-verify leaves out; drop one of them.\n"
    )


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--data-root", ".", "--no-verify"], "which --no-verify leaves out"),
        (["--precision", "fp16", "--compare-frames", "3", "--no-verify"], "which --no-verify leaves out"),
        (["--compare-frames", "3"], "--compare-frames has nothing to compare with fp32"),
        (["--precision", "fp16,int4"], "There is no precision 'int4'"),
        (["--precision", "fp16", "--min-map-ratio", "0.9"], "--data-root DIR"),
        (["--precision", "int8"], "--calibrate DATA"),
        (["--calibrate", "."], "--calibrate has nothing to do for fp32"),
        (["--dataset", "prw"], "--data-root, which is not given"),
        (["--max-batch", "2"], "they go with --trt"),
        (["--precision", "fp16", "--data-root", "nowhere"], "does not exist"),
    ],
)
def test_options_that_cannot_be(checkpoint, tmp_path, capsys, arguments, sentence):
    assert run(["export", str(checkpoint), "--out", str(tmp_path / "b"), *arguments]) == 2
    assert sentence in one_line(capsys)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("pictures, found", [(0, "holds no pictures"), (2, "holds only 2 pictures")])
def test_too_few_pictures_to_calibrate_on(quick, checkpoint, tmp_path, capsys, pictures, found):
    (tmp_path / "pictures").mkdir()
    for number in range(pictures):
        cv2.imwrite(str(tmp_path / "pictures" / f"{number}.png"), np.zeros((8, 8, 3), np.uint8))
    arguments = ["--precision", "int8", "--calibrate", str(tmp_path / "pictures")]
    assert run(["export", str(checkpoint), "--out", str(tmp_path / "b"), *arguments]) == 2
    assert f"{found}; int8 is calibrated on at least" in one_line(capsys)
    assert not (tmp_path / "b").exists()


def test_a_data_set_that_cannot_be_read(quick, checkpoint, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    arguments = ["--precision", "fp16", "--data-root", str(tmp_path / "empty")]
    assert run(["export", str(checkpoint), "--out", str(tmp_path / "b"), *arguments]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def without_tensorrt(monkeypatch):
    from psarm.runtime.tensorrt.flavour import Flavour

    monkeypatch.setattr(Flavour, "installed", False)


def test_engines_that_cannot_be_built_are_said_in_the_words_of_psarm_engines(tmp_path, capsys, monkeypatch):
    from tiny_engines import make_trt_bundle

    from psarm.cli import export_engines
    from psarm.cli.engines import BuildOptions

    bundle = make_trt_bundle(tmp_path / "toy.psarm")
    without_tensorrt(monkeypatch)
    assert run(["engines", str(bundle)]) == 2
    sentence = capsys.readouterr().err.removeprefix("Error: ").strip()
    assert "neither tensorrt nor tensorrt_rtx is installed" in sentence
    export_engines.build_where_possible(bundle, BuildOptions(), show_table=True)
    said = capsys.readouterr().err
    assert said.startswith(f"No engines were built. {sentence} The bundle is good; on the machine that will run them")
    assert said.endswith(f"with the same options for shapes: psarm engines {bundle}\n")
    with pytest.raises(MissingExtraError):
        export_engines.build_where_possible(bundle, BuildOptions(cc=("8.9",)), show_table=True)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--sizes", "65x96"], "no multiple of 32, to which frames are padded; give 96x96"),
        (["--min-shapes", "1x3x64x64"], "1 minimum, 0 optimum and 0 maximum shapes were given"),
        (["--flavour", "rtx"], "no TensorRT flavour 'rtx'; choose tensorrt or tensorrt_rtx"),
        (["--flavour", "tensorrt_rtx", "--timing-cache", "times"], "TensorRT for RTX has no timing cache"),
        (["--flavour", "tensorrt", "--cc", "8.9"], "only TensorRT for RTX builds for named ones"),
        (["--cc", "8.9"], "neither tensorrt nor tensorrt_rtx is installed"),
    ],
)
def test_options_of_engines_are_checked_before_anything_is_exported(tmp_path, monkeypatch, capsys, arguments, sentence):
    """Without the library too; the file is no checkpoint, which would be found next."""
    without_tensorrt(monkeypatch)
    (tmp_path / "no.pth").write_bytes(b"")
    assert run(["export", str(tmp_path / "no.pth"), "--out", str(tmp_path / "b"), "--trt", *arguments]) == 2
    assert sentence in one_line(capsys)
