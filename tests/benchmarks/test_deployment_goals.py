"""The benchmark of the deployment goals at tiny size, its comparisons against obvious ones, and merging reports."""

import json
import shutil

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from small_models import exported_once, skip_tracing
from tiny_prw import write_tiny_prw
from toy_bundle import make_toy_bundle

from psarm.benchmarks import deployment_goals, goals_accuracy, goals_speed
from psarm.benchmarks.goals_accuracy import STREET, add_losses
from psarm.benchmarks.goals_contenders import CONTENDERS, chosen
from psarm.benchmarks.goals_parity import compare, match, snr
from psarm.benchmarks.goals_report import accuracy_table, int8_line, merged
from psarm.benchmarks.goals_speed import SpeedFolder
from psarm.console import out, print_whole
from psarm.data.prw import read_prw
from psarm.data.synth import SynthSettings
from psarm.data.synth.cast import build_cast
from psarm.data.synth.plan import plan_frames
from psarm.errors import BundleError, UsageError
from psarm.evaluation.types import ImageDetections
from psarm.export import ExportReport
from psarm.export.precision.int8 import KeptLayer, Quantised
from psarm.model import load_model, save_model
from psarm.model.fingerprint import embedding_fingerprint
from psarm.runtime import PersonSearch, read_image

TINY = ["--preset", "tiny", "--size", "108x192", "--people", "12", "--rounds", "1", "--threads", "1"]


def people(boxes):
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return ImageDetections(boxes, np.linspace(0.9, 0.6, len(boxes)), np.arange(2.0 * len(boxes)).reshape(-1, 2))


def quantised(*kept):
    return Quantised({}, {"detect": 3}, list(kept), {"head.scores": 21.0}, "16 pictures")


def run(*arguments):
    return CliRunner().invoke(deployment_goals.main, [*TINY, *map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A report, and what was printed; the weights and their bundle are the ones that many tests share."""
    folder = tmp_path_factory.mktemp("goals")
    model, bundle = exported_once(tmp_path_factory, "paper")
    files = SpeedFolder(folder, "tiny", (108, 192), 12)
    save_model(model, files.checkpoint)
    shutil.copytree(bundle, files.bundle)
    result = run("--work", folder, "--json", folder / "report.json", "--only", "onnxruntime-fp32")
    assert result.exit_code == 0, result.output
    return folder, result.output


def test_report(measured):
    folder, printed = measured
    report = json.loads((folder / "report.json").read_text())
    assert report["threads"] == 1 and report["frame"] == [108, 192] and report["commit"]
    part = report["presets"]["tiny"]
    yardstick, contender = part["rows"]
    assert [yardstick["name"], contender["name"]] == ["yardstick", "onnxruntime-fp32"]
    assert contender["yardstick_ms"] == yardstick["timing"]["total_ms"]
    ratio = yardstick["timing"]["total_ms"] / contender["timing"]["total_ms"]
    assert contender["times_as_fast"] == ratio and contender["reached"] == (ratio >= 2.5)
    assert contender["parity"]["match_rate"] == 1 and contender["parity"]["boxes"] < 1e-3
    assert contender["parity"]["snr_db"] > 80
    assert contender["parity_reached"] == (contender["parity"]["embeddings"] <= 1e-6)
    assert contender["yardstick_parity"]["boxes"] == yardstick["parity"]["boxes"] < 1e-3
    assert part["algebra"]["boxes"] < 1e-9
    assert part["resizing"]["match_rate"] == 1
    assert "onnxruntime-fp32" in printed and "The graphs in float64" in printed and "parity" in printed


def test_one_contender_again(measured):
    """Its row is replaced, the others stay, with what they were measured by."""
    folder, _ = measured
    path = folder / "again.json"
    old = json.loads((folder / "report.json").read_text())
    old["presets"]["tiny"]["rows"].append({"name": "openvino-fp32", "failure": "as it was"})
    path.write_text(json.dumps(old))
    frame = SpeedFolder(folder, "tiny", (108, 192), 12).frame_file
    drawn = frame.stat().st_mtime_ns
    result = run("--work", folder, "--json", path, "--only", "onnxruntime-fp32")
    assert result.exit_code == 0, result.output
    rows = json.loads(path.read_text())["presets"]["tiny"]["rows"]
    assert [row["name"] for row in rows] == ["yardstick", "onnxruntime-fp32", "openvino-fp32"]
    assert rows[2]["failure"] == "as it was" and "❌ as it was" in result.output
    assert rows[1]["timing"] != old["presets"]["tiny"]["rows"][1]["timing"]
    assert frame.stat().st_mtime_ns == drawn


def test_folder_makes_what_it_lacks(tmp_path, monkeypatch):
    exported = []

    def export(checkpoint, bundle, settings, **options):
        exported.append((checkpoint, settings))
        make_toy_bundle(bundle)
        return ExportReport(bundle, {}, {}, [], [], quantised(), None, None)

    monkeypatch.setattr(goals_speed, "export_bundle", export)
    monkeypatch.setattr(goals_speed, "MIN_FRAMES", 2)  # to be quick
    files = SpeedFolder(tmp_path, "tiny", (108, 192), 12)
    bundle = files.open_bundle(("fp32", "int8"))
    [(checkpoint, settings)] = exported
    assert embedding_fingerprint(files.model()) == embedding_fingerprint(load_model(checkpoint))
    assert settings.precisions == ("fp32", "int8") and len(list(settings.calibrate.iterdir())) == 2
    assert read_image(next(settings.calibrate.iterdir())).shape == files.frame().shape == (108, 192, 3)
    assert files.open_bundle(("fp32",)).path == bundle.path and len(exported) == 1
    assert files.int8() == quantised().to_dict()


def test_another_source_makes_everything_afresh(tmp_path, monkeypatch):
    before = SpeedFolder(tmp_path, "tiny", (108, 192), 12)
    assert before.folder == SpeedFolder(tmp_path, "tiny", (108, 192), 12).folder
    monkeypatch.setattr(goals_speed, "source_digest", lambda: "of another psarm")
    assert SpeedFolder(tmp_path, "tiny", (108, 192), 12).folder != before.folder


def test_a_bundle_of_other_weights_is_refused(measured, tmp_path):
    files = SpeedFolder(tmp_path, "tiny", (108, 192), 12)
    shutil.copytree(SpeedFolder(measured[0], "tiny", (108, 192), 12).bundle, files.bundle)
    with pytest.raises(BundleError, match="another model than the checkpoint"):
        run("--work", tmp_path, "--only", "onnxruntime-fp32")


def test_wrong_options(tmp_path):
    for arguments, sentence in (
        (["--only", "abacus-fp32"], "no such contender"),
        (["--data-root", tmp_path], "give it with --checkpoint"),
    ):
        with pytest.raises(UsageError, match=sentence):
            run("--work", tmp_path, *arguments)
    result = CliRunner().invoke(deployment_goals.main, ["--work", str(tmp_path), "--size", "big"])
    assert result.exit_code == 2 and "HEIGHTxWIDTH" in result.output


def test_contenders_are_chosen_by_name():
    assert chosen(()) == list(CONTENDERS)
    assert [c.name for c in chosen(("torch-bf16", "onnxruntime-int8"))] == ["onnxruntime-int8", "torch-bf16"]


def test_people_are_matched_by_their_boxes():
    expected = people([[0, 0, 10, 20], [40, 0, 50, 20], [80, 0, 90, 20]])
    found = ImageDetections(
        expected.boxes[[2, 0]] + [[0.5, 0, 0, 0], [0, 0, 0, -0.25]],
        expected.scores[[2, 0]] + [0, 0.01],
        expected.embeddings[[2, 0]],
    )
    parity = compare(found, expected, 30.0)
    assert (parity.people, parity.expected, parity.matched) == (2, 3, 2)
    assert parity.boxes == 0.5 and parity.scores == pytest.approx(0.01) and parity.embeddings == 0
    assert parity.to_dict()["match_rate"] == pytest.approx(2 / 3)
    ours, theirs = match(found.boxes, expected.boxes)
    assert dict(zip(ours.tolist(), theirs.tolist(), strict=True)) == {0: 2, 1: 0}


@pytest.mark.parametrize(
    ("change", "reached"),
    [({}, True), ({"boxes": 2e-3}, False), ({"embeddings": 2e-6}, False), ({"match_rate": 0.9}, False)],
)
def test_parity_is_judged_row_by_row(change, reached):
    near = {"boxes": 1e-4, "scores": 1.0, "embeddings": 5e-7, "snr_db": 120.0, "match_rate": 1.0}
    rows = [
        {"precision": "fp32", "parity": {**near, "boxes": 3e-4}},
        {"precision": "fp32", "parity": near | change},
        {"precision": "bf16", "parity": near},
        {"precision": "fp32", "failure": "it does not run"},
    ]
    goals_speed.add_parity(rows)
    assert [one.get("parity_reached") for one in rows] == [None, reached, None, None]
    assert rows[1]["yardstick_parity"]["boxes"] == 3e-4


def test_nobody():
    nobody, somebody = people([]), people([[0, 0, 10, 20]])
    assert compare(nobody, nobody, None).match_rate == 1
    parity = compare(nobody, somebody, None)
    assert parity.match_rate == 0 and parity.boxes is None
    far = people([[50, 50, 60, 70]])
    assert compare(far, somebody, None).match_rate == 0


def test_snr():
    signal = np.array([3.0, 4.0])
    assert snr(1.1 * signal, signal) == pytest.approx(20)
    assert snr(signal, signal) is None and snr(signal, np.zeros(2)) is None


def row(name, precision, mean, top1, cbgm_mean):
    metrics = {"search": {"mAP": mean, "top1": top1}, "search_cbgm": {"mAP": cbgm_mean, "top1": top1}}
    return {"name": name, "precision": precision, "metrics": metrics}


def test_losses_against_fp32(capsys):
    rows = [
        row("yardstick", "fp32", 0.8, 0.9, 0.85),
        row("a-int8", "int8", 0.7955, 0.5, 0.8455),
        row("b-int8", "int8", 0.7955, 0.9, 0.84),
        row("c-fp16", "fp16", 0.801, 0.8975, 0.85) | {"in_half": True},
        row("f-fp16", "fp16", 0.8, 0.9, 0.85) | {"in_half": False},
        row("d-bf16", "bf16", 0.1, 0.1, 0.1),
        {"name": "e-int8", "precision": "int8", "failure": "it does not run"},
    ]
    add_losses(rows)
    assert rows[1]["points_lost"]["search"] == {"mAP": pytest.approx(0.45), "top1": pytest.approx(40)}
    assert [r.get("reached") for r in rows] == [None, True, False, True, None, None, None]
    assert rows[4]["points_lost"]["search"] == {"mAP": 0, "top1": 0} and "goal" not in rows[4]
    part = {"checkpoint": "model.safetensors", "frames": 3, "queries": 2, "rows": rows}
    print_whole(accuracy_table(part), out)
    printed = capsys.readouterr().out
    assert "✅ mAP 0.5" in printed and "❌ it does not run" in printed and "+0.45" in printed


def test_fp16_is_judged_by_its_rounded_form(tmp_path, tmp_path_factory, monkeypatch):
    """On the CPU the runtimes' rows have no goal; the rounded form's graphs are those of the exporter."""
    model, bundle = exported_once(tmp_path_factory, "paper")
    skip_tracing(bundle, monkeypatch)
    write_tiny_prw(tmp_path / "data")
    save_model(model, tmp_path / "model.safetensors")
    run_as = []

    def metrics(engine, dataset, title):
        if isinstance(engine, PersonSearch):
            graphs = engine.bundle.graph_path(engine.precision, "detect")
            run_as.append(any(".exact" in name for node in onnx.load(graphs).graph.node for name in node.output))
        return row(title, "", 0.8, 0.9, 0.8)["metrics"]

    monkeypatch.setattr(goals_accuracy, "_metrics", metrics)
    part = goals_accuracy.measure_accuracy(
        goals_accuracy.AccuracySubject.read(tmp_path / "model.safetensors", tmp_path / "data"),
        tmp_path / "bundle",
        *(chosen(("onnxruntime-fp16",)), 1, lambda message: None),
    )
    yardstick, contender, rounded = part["rows"]
    assert yardstick["name"] == "yardstick" and run_as == [False, True]
    assert contender["name"] == "onnxruntime-fp16" and "reached" not in contender and not contender["in_half"]
    assert rounded["name"] == "fp16, rounded after every operator" and rounded["reached"] and rounded["in_half"]


def test_reports_of_different_settings_are_not_merged():
    old = {"frame": [1, 2], "people": 3, "threads": 1, "machine": {}, "presets": {}, "accuracy": {"rows": []}}
    assert merged(old, {**old, "accuracy": None})["accuracy"] == {"rows": []}
    with pytest.raises(UsageError, match="threads 1, this run with 2"):
        merged(old, {**old, "threads": 2})


def test_accuracy_is_merged_row_by_row():
    settings = {"frame": [1, 2], "people": 3, "threads": 1, "machine": {}, "presets": {}}
    of = {"checkpoint": "a.safetensors", "sha256": "1", "frames": 3, "queries": 2}
    old = {**settings, "accuracy": {**of, "rows": [{"name": "a", "is": "old"}, {"name": "b", "is": "old"}]}}
    old["accuracy"]["int8"] = {"kept": []}  # of its rows in int8
    new = {**settings, "accuracy": {**of, "rows": [{"name": "b", "is": "new"}]}}
    assert merged(old, new)["accuracy"]["int8"] == {"kept": []}
    assert [one["is"] for one in merged(old, new)["accuracy"]["rows"]] == ["old", "new"]
    for key, other in (("checkpoint", "b.safetensors"), ("sha256", "2"), ("frames", 4)):
        with pytest.raises(UsageError, match=f"accuracy is of {key}"):
            merged(old, {**new, "accuracy": {**new["accuracy"], key: other}})


def test_what_int8_left_in_float_is_in_the_report():
    kept = [KeptLayer("detect", f"res5.0.conv{n}", "res5.0 alone leaves scores 18.2 dB", 18.2) for n in (1, 2)]
    said = int8_line({"int8": quantised(*kept).to_dict()})
    assert said == "int8 left in float: detect: res5.0 alone leaves scores 18.2 dB (2 layers)"
    assert int8_line({"int8": quantised().to_dict()}) == "int8 left in float: nothing"


def test_a_street_is_drawn_where_no_data_is_given(tmp_path, monkeypatch):
    """Accuracy of all contenders replaces what the report has, of whatever data; speed stays."""
    small = SynthSettings(24, 4, width=96, height=54, seed=3)
    monkeypatch.setattr(goals_accuracy, "STREET", small)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    seen = []

    def measure(subject, *rest):
        seen.append(subject.dataset)
        return {**subject.to_dict(), "int8": quantised().to_dict(), "rows": [row("yardstick", "fp32", 0.8, 0.9, 0.8)]}

    monkeypatch.setattr(deployment_goals, "measure_accuracy", measure)
    options = ["--work", tmp_path, "--no-speed", "--checkpoint", tmp_path / "model.safetensors"]
    path = tmp_path / "report.json"
    assert run(*options, "--json", path).exit_code == 0
    first = json.loads(path.read_text())
    assert len(seen[0].gallery) == 12 and [f.path for f in seen[0].train] == [
        f.path for f in read_prw(tmp_path / "street").train
    ]
    path.write_text(json.dumps({**first, "presets": {}, "accuracy": {**first["accuracy"], "queries": 1000}}))
    result = run(*options, "--json", path)
    assert result.exit_code == 0 and "int8 left in float: nothing" in result.output
    assert json.loads(path.read_text())["accuracy"]["queries"] == first["accuracy"]["queries"]
    path.write_text(json.dumps({**first, "accuracy": {**first["accuracy"], "queries": 1000}}))
    with pytest.raises(UsageError, match="accuracy is of queries 1000"):
        run(*options, "--json", path, "--only", "onnxruntime-fp32")


def test_the_street_has_enough_queries():
    """By its plan; a few whom others hide may be missing in the drawn set."""
    cast = build_cast(STREET)
    seen = {
        (one.person, frame.camera)
        for frame in plan_frames(STREET, cast)
        if frame.test
        for one in frame.people
        if one.person < len(cast.pids)
    }
    assert len(seen) > 410 and 100 / len(seen) < goals_accuracy.POINTS_LOST["fp16"][1]


def test_reports_are_compared_before_anything_is_measured(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(deployment_goals, "measure_preset", lambda *arguments: pytest.fail("measured"))
    report = json.loads((measured[0] / "report.json").read_text())
    assert report["presets"]["tiny"]["rows"][1]["measured"]["packages"]["torch"]
    (tmp_path / "report.json").write_text(json.dumps({**report, "people": 13}))
    with pytest.raises(UsageError, match="people 13, this run with 12"):
        run("--work", tmp_path, "--json", tmp_path / "report.json")
