"""`psarm bench` as a user meets it: through the command line."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from toy_bundle import make_toy_bundle
from toy_prw import write_toy_prw

from psarm.cli import run
from psarm.data.prw import read_prw
from psarm.data.readers import READERS
from psarm.evaluation import read_detections, score_detections


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_toy_prw(tmp_path_factory.mktemp("data") / "prw")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm")


@pytest.fixture(scope="module")
def detections(tmp_path_factory, root, bundle):
    """A detections file with contexts."""
    path = tmp_path_factory.mktemp("detections") / "found.npz"
    arguments = [bundle, "--data-root", root, "--cbgm", "--save-detections", path, "--frames", 1, "--threads", 1]
    arguments.append("--quick")
    assert run(["bench", *map(str, arguments)]) == 0
    return path


def bench(capsys, *arguments):
    """Exit code, stdout, stderr."""
    code = run(["bench", *map(str, arguments)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def test_the_score_of_a_file_is_the_contract(capsys, root, detections, tmp_path):
    out = tmp_path / "deep" / "score.json"
    code, printed, _ = bench(capsys, "--dataset", "prw", "--data-root", root, "--detections", detections, "--json", out)
    assert code == 0
    expected = score_detections(read_prw(root), read_detections(detections))
    assert json.loads(out.read_text()) == expected
    assert list(expected) == ["detection", "search", "search_cbgm", "search_cross_camera"]
    assert f"{100 * expected['search']['mAP']:.1f}" in printed
    assert "search with CBGM" in printed


@pytest.fixture
def listed(root, monkeypatch):
    """The toy PRW as `--dataset cuhk-sysu`: four images a query (gallery 100, the default), or two (50)."""
    data = read_prw(root)
    lists = {"50": [np.array([q, q + 1]) for q in range(4)], "100": [np.arange(q, q + 4) for q in range(4)]}
    data = dataclasses.replace(data, galleries=lists, default_gallery="100", cbgm=(10, 3))
    monkeypatch.setitem(READERS, "cuhk-sysu", lambda _: data)
    return data


def test_galleries_of_a_file_are_named_as_typed(capsys, root, listed, detections, tmp_path):
    sizes = ["50", "full", "-1"]
    options = [word for size in sizes for word in ("--gallery-size", size)]
    arguments = ["--dataset", "cuhk-sysu", "--data-root", root, "--detections", detections, *options]
    code, printed, err = bench(capsys, *arguments, "--json", tmp_path / "a.json")
    assert code == 0, err
    expected = score_detections(listed, read_detections(detections), gallery_sizes=sizes)
    assert json.loads((tmp_path / "a.json").read_text()) == expected
    assert {"search_50", "search_full", "search_-1_cbgm"} < set(expected)
    for line in ("search in gallery 50 with CBGM", "search in gallery full", "gallery 100 where no other is named"):
        assert line in printed


def test_galleries_of_a_bundle(capsys, root, listed, bundle, tmp_path):
    options = ["--dataset", "cuhk-sysu", "--data-root", root, "--quick", "--frames", 1, "--gallery-size", 50]
    code, printed, err = bench(capsys, bundle, *options, "--json", tmp_path / "a.json")
    assert code == 0, err
    report = json.loads((tmp_path / "a.json").read_text())
    assert "search_50" in report["rows"][0]["metrics"] and "gallery 50" in printed
    assert "--dataset cuhk-sysu" in report["command"] and "--gallery-size 50" in report["command"]


@pytest.mark.parametrize("by", ["file", "bundle"])
@pytest.mark.parametrize(
    ("dataset", "size", "known"), [("prw", "100", "full"), ("prw", "", "full"), ("cuhk-sysu", "70", "50, 100, full")]
)
@pytest.mark.usefixtures("listed")
def test_galleries_that_are_not_there(capsys, root, detections, bundle, by, dataset, size, known):
    what = ["--detections", detections] if by == "file" else [bundle]
    code, out, err = bench(capsys, "--dataset", dataset, "--data-root", root, *what, "--gallery-size", size)
    assert (code, out) == (2, "")
    sentence = f"Error: --gallery-size {size}: this data set has no such gallery; it has {known}."
    assert " ".join(err.split()).endswith(" ".join(sentence.split()))


@pytest.mark.parametrize("by", ["file", "bundle"])
def test_other_cameras_of_a_single_one(capsys, root, listed, detections, bundle, by):
    what = ["--detections", detections] if by == "file" else [bundle]
    arguments = ["--dataset", "cuhk-sysu", "--data-root", root, *what, "--cross-camera"]
    gallery = [dataclasses.replace(frame, camera=0) for frame in listed.gallery]
    listed.gallery[:] = gallery
    code, out, err = bench(capsys, *arguments)
    assert (code, out) == (2, "")
    assert " ".join(err.split()).startswith("Error: --cross-camera: the gallery of this data set has one camera only")


def test_the_full_gallery_of_prw_is_its_only_one(capsys, root, detections, tmp_path):
    arguments = ["--data-root", root, "--detections", detections, "--gallery-size", "full", "--gallery-size", "-1"]
    assert bench(capsys, *arguments, "--json", tmp_path / "a.json")[0] == 0
    scores = json.loads((tmp_path / "a.json").read_text())
    assert scores["search"] == scores["search_full"] == scores["search_-1"]
    assert scores["search_cbgm"] == scores["search_full_cbgm"]


def test_no_cbgm_leaves_the_contexts_of_a_file_alone(capsys, root, detections, tmp_path):
    arguments = ["--data-root", root, "--detections", detections, "--no-cbgm", "--json", tmp_path / "a.json"]
    assert bench(capsys, *arguments)[0] == 0
    assert "search_cbgm" not in json.loads((tmp_path / "a.json").read_text())


def test_cbgm_of_a_file_without_contexts_is_refused(capsys, root, detections, tmp_path):
    with np.load(detections) as file:
        np.savez(tmp_path / "plain.npz", **{key: file[key] for key in file.files if "context" not in key})
    code, _, err = bench(capsys, "--data-root", root, "--detections", tmp_path / "plain.npz", "--cbgm")
    assert code == 1 and "has no contexts" in err


def test_a_bundle_gives_one_table_and_json(capsys, root, bundle, tmp_path):
    out = tmp_path / "report.json"
    options = ["--data-root", root, "--threads", 1, "--frames", 2, "--json", out, "--backend", "onnxruntime"]
    code, printed, err = bench(capsys, bundle, *options)
    assert code == 0
    assert err == ""  # quiet when not on a terminal
    # Accuracy, speed, and where the time goes.
    assert sum("onnxruntime" in line and "✅" in line for line in printed.splitlines()) == 3
    report = json.loads(out.read_text())
    assert report["rows"][0]["metrics"]["detection"]["recall"] == 1
    assert set(report["rows"][0]["timing"]["stages_ms"]) == {"preprocess", "detect", "nms", "reid", "post"}
    assert f"{report['rows'][0]['timing']['total_ms']:.1f}" in printed
    fresh, roofline = report["rows"][0]["fresh_process"], report["rows"][0]["roofline"]
    assert fresh["cold_start_ms"] == fresh["open_ms"] + fresh["first_ms"] and fresh["memory_bytes"] > 2**20
    assert 0 < roofline["share"] < 1 and roofline["ceiling"]["gmacs_per_s"] > 0
    assert report["schema"] == 2 and report["notes"] == []


def test_a_precision_that_nothing_runs_fails_before_anything_is_measured(capsys, root, bundle):
    nothing = ["--data-root", root, "--precision"]
    code, printed, err = bench(capsys, bundle, *nothing, "int8")
    assert (code, printed) == (2, "") and err.startswith("Error: Nothing was measured: The bundle") and "int8" in err
    code, printed, err = bench(capsys, bundle, *nothing, "fp16", "--backend", "onnxruntime", "--backend", "openvino")
    assert (code, printed) == (2, "") and err.count("fp16") == 2 and err.count("\n") == 1


def test_every_row_failing_is_a_failure(capsys, root, bundle):
    code, printed, err = bench(capsys, bundle, "--data-root", root, "--people", 3000, "--quick")
    assert code == 1
    assert "❌" in printed and "✅" not in printed and "Nothing ran" in err


def test_a_row_asked_for_that_fails_is_a_failure(capsys, root, bundle, tmp_path):
    options = ["--data-root", root, "--frames", 1, "--quick", "--json", tmp_path / "report.json"]
    code, printed, err = bench(
        capsys, bundle, *options, "--backend", "onnxruntime", "--precision", "fp32", "--precision", "int8"
    )
    assert code == 1
    assert "✅" in printed and "❌ onnxruntime int8: The bundle" in printed
    assert err == "Error: onnxruntime int8 did not run; the lines above say why.\n"
    assert [row["status"] for row in json.loads((tmp_path / "report.json").read_text())["rows"]] == ["ok", "failed"]


def test_workloads_are_rows_and_a_page_shows_them(capsys, root, bundle, tmp_path):
    words = ["--backend", "onnxruntime", "--batch", 1, "--batch", 2, "--people", 3, "--image-size", "80x48", "--quick"]
    files = ["--json", tmp_path / "report.json", "--html", tmp_path / "page.html"]
    code, printed, err = bench(capsys, bundle, "--data-root", root, "--frames", 2, *words, *files)
    assert code == 0, err
    report = json.loads((tmp_path / "report.json").read_text())
    expected = [{"batch": batch, "people": 3, "size": "80x48"} for batch in (1, 2)]
    assert [row["workload"] for row in report["rows"]] == expected
    assert [(row["timing"]["people"], row["timing"]["frames"]) for row in report["rows"]] == [(3, 2), (3, 2)]
    assert "--batch 1 --batch 2 --people 3 --image-size 80x48" in report["command"]
    assert "onnxruntime fp32, batch 2, 3 people, 80x48" in (tmp_path / "page.html").read_text()
    assert "batch 2, 3 people, 80x48" in printed


def test_two_reports_compared(capsys, root, bundle, tmp_path):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    words = ["--backend", "onnxruntime", "--frames", 1, "--quick"]
    assert bench(capsys, bundle, "--data-root", root, *words, "--json", old)[0] == 0
    assert bench(capsys, "--compare", old, old)[0] == 0
    report = json.loads(old.read_text())
    report["rows"][0]["timing"]["total_ms"] *= 1.3
    report["machine"]["cpu"] = "Another"
    new.write_text(json.dumps(report))
    code, printed, err = bench(capsys, "--compare", old, new)
    assert code == 1 and err == "Error: 1 measure is worse by more than ×1.1; the lines above say which.\n"
    assert "×1.30" in printed and "→ Another" in printed
    assert bench(capsys, "--compare", old, new, "--threshold", 1.4)[0] == 0
    code, _, err = bench(capsys, "--compare", old, new, "--quick", "--data-root", root)
    assert code == 2 and "measures nothing; leave out --data-root, --quick." in " ".join(err.split())


def test_a_baseline_that_fails_is_no_failure(capsys, root, bundle):
    code, printed, _ = bench(capsys, bundle, "--data-root", root, "--baselines", "--frames", 1, "--quick")
    assert code == 0 and "❌ untrained network" in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Missing option '--data-root'"),
        (["--data-root", "nowhere"], "'nowhere' does not exist"),
        (["--data-root", "."], "nothing to measure"),
        (["nowhere.psarm", "--data-root", "."], "'nowhere.psarm' does not exist"),
        (["--data-root", ".", "--detections", "nowhere.npz"], "'nowhere.npz' does not exist"),
        (["--data-root", ".", "--checkpoint", "nowhere.pth"], "'nowhere.pth' does not exist"),
        (["--data-root", ".", "--checkpoint", ".", "--frames", "1"], "is a directory"),
        ([".", "--data-root", ".", "--dataset", "market"], "'market' is not one of"),
        ([".", "--data-root", ".", "--backend", "onyx"], "no backend of that name"),
        (
            [".", "--data-root", ".", "--precision", "int7"],
            "no precision of that name; available: fp32, bf16, fp16, int8.",
        ),
        ([".", "--data-root", ".", "--growth", "people,cameras"], "available: people, size, batch, gallery."),
        ([".", "--data-root", ".", "--image-size", "1080p"], "'1080p' is no size; needed WIDTHxHEIGHT"),
        ([".", "--data-root", ".", "--batch", "0"], "'--batch'"),
        (["--data-root", ".", "--checkpoint", "cli.py", "--batch", "2"], "--batch tell how a bundle is run"),
        ([".", "--data-root", ".", "--threshold", "2"], "--threshold goes with --compare only"),
        ([".", "--data-root", ".", "--threads", "0"], "'--threads'"),
        ([".", "--data-root", ".", "--json", "."], "is a directory"),
        (
            [".", "--data-root", ".", "--html", "cli.py"],
            "cli.py would be overwritten by --html and is not a page; give",
        ),
        ([".", "--data-root", ".", "--json", "x", "--html", "./x"], "write a file each; give them different names"),
    ],
)
def test_usage_errors_are_one_sentence(capsys, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cli.py").write_text("pass")
    code, out, err = bench(capsys, *arguments)
    assert code == 2 and out == ""
    assert sentence in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--suite", "paper", "--checkpoint", "CKPT"], "--suite paper needs --out DIR"),
        (["--suite", "paper", "--out", "o"], "give at least one --checkpoint NAME=CKPT"),
        (["--suite", "paper", "--out", "o", "--checkpoint", "=CKPT"], "has nothing before the ="),
        (["--suite", "paper", "--out", "o", "--checkpoint", "A=nowhere.pth"], "'nowhere.pth' does not exist"),
        (
            ["--suite", "paper", "--out", "o", "--checkpoint", "A=CKPT", "--checkpoint", "A=CKPT"],
            "--checkpoint A=… is given twice",
        ),
        (
            ["BUNDLE", "--suite", "paper", "--out", "o", "--cbgm", "--backend", "onnxruntime"],
            "--suite paper measures checkpoints; leave out BUNDLE, --backend, --cbgm.",
        ),
        (["--suite", "paper", "--out", "CKPT", "--checkpoint", "A=CKPT"], "is a file"),
        (["--suite", "slides", "--out", "o"], "'slides' is not"),
        (["BUNDLE", "--out", "o", "--fresh"], "--out, --fresh goes with --suite paper only"),
        (["BUNDLE", "--checkpoint", "A=CKPT"], "--checkpoint is one file without a name here"),
        (["BUNDLE", "--checkpoint", "CKPT", "--checkpoint", "CKPT"], "--checkpoint is one file without a name here"),
        (["--detections", "CKPT", "--seed", "3"], "leave out --seed"),
    ],
)
def test_what_does_not_go_together(capsys, root, bundle, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no checkpoint")
    words = [word.replace("CKPT", "model.safetensors").replace("BUNDLE", str(bundle)) for word in arguments]
    code, out, err = bench(capsys, "--data-root", root, *words)
    assert code == 2 and out == ""
    assert sentence in " ".join(err.split())
    assert not (tmp_path / "o").exists()


def test_the_paper_suite(capsys, root, tmp_path):
    from small_models import small_model

    from psarm.model import save_model

    checkpoint = tmp_path / "a=b.safetensors"  # a path with a = in it is no name
    save_model(small_model(variant="seqnet"), checkpoint)
    options = ["--suite", "paper", "--data-root", root, "--threads", 1, "--frames", 1, "--examples", 1]
    arguments = [*options, "--checkpoint", checkpoint, "--checkpoint", f"ours={checkpoint}", "--out", tmp_path / "out"]
    code, printed, err = bench(capsys, *arguments, "--json", tmp_path / "copy.json")
    assert code == 0, err
    assert any(line.split()[:1] == ["ours"] and "47.6 / 87.6" in line for line in printed.splitlines())
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report == json.loads((tmp_path / "copy.json").read_text())
    assert [checkpoint["name"] for checkpoint in report["checkpoints"]] == ["seqnet", "ours"]
    assert "<svg" in (tmp_path / "out" / "report.html").read_text()
    code, _, err = bench(capsys, *arguments, "--dataset", "cuhk-sysu")
    assert code == 1 and "holds a data set in the format prw, not cuhk-sysu" in err


def test_a_file_is_scored_with_no_engine(capsys, root, bundle, detections):
    code, _, err = bench(capsys, bundle, "--data-root", root, "--detections", detections, "--frames", 3, "--gt-boxes")
    assert code == 2 and "leave out BUNDLE, --gt-boxes, --frames." in err


def test_a_folder_that_is_not_prw(capsys, bundle, tmp_path):
    code, _, err = bench(capsys, bundle, "--data-root", tmp_path)
    assert code == 1 and "is not a PRW data set" in err


def test_a_folder_that_is_not_a_bundle(capsys, root, tmp_path):
    code, _, err = bench(capsys, tmp_path, "--data-root", root)
    assert code == 1 and "is not a bundle" in err


def test_a_changed_graph_is_noticed(capsys, root, bundle, tmp_path):
    changed = shutil.copytree(bundle, tmp_path / "changed.psarm")
    graph = changed / "detect.onnx"
    graph.write_bytes(graph.read_bytes()[:-10])
    code, _, err = bench(capsys, changed, "--data-root", root)
    assert code == 1 and "incomplete" in err


def test_a_file_that_is_no_checkpoint(capsys, root, bundle):
    code, _, err = bench(capsys, bundle, "--data-root", root, "--checkpoint", bundle / "manifest.json")
    assert code == 1 and err.startswith("Error: ")


@pytest.mark.parametrize("key", ["boxes", "embeddings", "query_embeddings", "gallery_names"])
def test_a_detections_file_of_wrong_shapes_names_the_array(capsys, root, detections, tmp_path, key):
    with np.load(detections) as file:
        arrays = {name: file[name] for name in file.files}
    arrays[key] = arrays[key][:-1]
    np.savez(tmp_path / "bad.npz", **arrays)
    code, out, err = bench(
        capsys, "--data-root", root, "--detections", tmp_path / "bad.npz", "--json", tmp_path / "out.json"
    )
    assert code == 1 and out == "" and err.count("\n") == 1
    assert key in err
    assert not (tmp_path / "out.json").exists()


def test_a_text_file_is_no_detections_file(capsys, root, tmp_path):
    note = tmp_path / "note.txt"
    note.write_text("hello")
    code, _, err = bench(capsys, "--data-root", root, "--detections", note)
    assert code == 1
    assert err.strip() == f"Error: {note} is not an .npz file of detections; see docs/design.md."
