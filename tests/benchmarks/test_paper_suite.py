"""The paper's suite: what it measures, and what it keeps of an earlier run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from paper_runs import Page, accuracy, again, settings_for
from toy_prw import write_toy_prw

from psarm.benchmarks.engines import load_frames
from psarm.benchmarks.paper import NamedCheckpoint, PaperSettings, measure, page, run_paper_suite, suite
from psarm.benchmarks.paper.contender import read_contenders
from psarm.benchmarks.torch_engine import load_engine
from psarm.data.prw import read_prw
from psarm.errors import CheckpointError, ImageError, MissingExtraError, PsarmError, UsageError
from psarm.evaluation import SearchProtocol, evaluate_search, ground_truth_detections, score_detections
from psarm.evaluation.collect import collect_detections, embed_ground_truth
from psarm.model import build_model, save_model
from psarm.runtime.images import read_image

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_toy_prw(tmp_path_factory.mktemp("paper") / "prw")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, model, checkpoint):
    """Two checkpoints of the same architecture."""
    torch.manual_seed(1)
    other = build_model(model.config).eval()
    with torch.no_grad():
        other.roi_heads.faster_rcnn_predictor.cls_score.bias.copy_(torch.tensor([0.0, 3.0]))
    path = tmp_path_factory.mktemp("checkpoint") / "other.safetensors"
    save_model(other, path)
    return {"PS-ARM": checkpoint, "another": path}


@pytest.fixture(scope="module", autouse=True)
def small_parts():
    """Eight gallery frames in three parts, four queries in two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "PART", 3)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory, root, checkpoints):
    """A finished run; copied by those who change it."""
    settings = settings_for(root, tmp_path_factory.mktemp("whole") / "out", checkpoints)
    return settings, run_paper_suite(settings)


@pytest.fixture
def copied(whole, tmp_path):
    settings, _ = whole
    shutil.copytree(settings.out, tmp_path / "out")
    return again(settings, out=tmp_path / "out")


@pytest.fixture
def no_page(monkeypatch):
    """Drawing it takes longer than measuring."""
    monkeypatch.setattr(page, "paper_page", lambda report: "page")


def summary(capsys):
    """What was kept and measured, as the last line says."""
    words = capsys.readouterr().err.splitlines()[-1].split()
    return int(words[0]), int(words[7])


def test_figures_are_those_of_the_whole_set_in_one_go(whole, root, checkpoints):
    dataset = read_prw(root)
    protocol = SearchProtocol.from_dataset(dataset)
    for result, (name, path) in zip(whole[1].results, checkpoints.items(), strict=True):
        assert result.contender.name == name
        engine = load_engine(path, 1)
        found = collect_detections(engine, dataset, load_frames, cbgm=True)
        truth = ground_truth_detections(protocol, embed_ground_truth(engine, dataset, load_frames))
        engine.close()
        expected = score_detections(protocol, found)
        queries = found.query_embeddings
        expected["search_gt_boxes"] = evaluate_search(protocol, truth, queries).to_dict()
        cbgm = evaluate_search(protocol, truth, queries, context=found.context)
        expected["search_gt_boxes_cbgm"] = cbgm.to_dict()
        assert result.metrics == expected
        assert result.timing["frames"] == 1 and result.fps > 0


def test_published_figures_stand_beside_and_are_marked(whole):
    settings, report = whole
    written = json.loads((settings.out / "report.json").read_text())
    assert written == report.to_dict()
    row = written["checkpoints"][0]["published"]
    assert row["figures"] == {"mAP": 52.6, "top1": 88.1, "recall": 97.1, "AP": 93.9}
    assert row["source"] == "Tables 1 and 2 of PS-ARM (Fiaz et al., ACCV 2022)"
    assert "resnet18, not resnet50" in written["checkpoints"][0]["differences"]
    assert not written["published_comparable"]
    page = Page((settings.out / "report.html").read_text())
    assert "8 frames and 4 queries: the figures do not compare" in page.text
    assert "published PS-ARM (Baseline + ARM)" in page.text


def test_a_second_run_measures_nothing_and_writes_the_same(copied, capsys):
    before = {name: (copied.out / name).read_bytes() for name in ("report.html", "report.json")}
    run_paper_suite(copied)
    assert summary(capsys) == (5, 0)
    text = before["report.html"].decode()
    original = text[text.index("--out ") :].split("<")[0]
    for name, content in before.items():
        now = (copied.out / name).read_text().replace(f"--out {copied.out}", original.strip())
        assert now == content.decode()


@pytest.mark.usefixtures("no_page")
def test_only_what_another_checkpoint_changes_is_measured_again(copied, capsys, checkpoints, tmp_path, model):
    torch.manual_seed(2)
    third = build_model(model.config)
    save_model(third, tmp_path / "third.safetensors")
    changed = {"PS-ARM": checkpoints["PS-ARM"], "another": tmp_path / "third.safetensors"}
    settings = settings_for(copied.data_root, copied.out, changed)
    run_paper_suite(settings)
    assert summary(capsys) == (2, 8)  # its five parts, scores and hits, and the speed of both


@pytest.mark.usefixtures("no_page")
@pytest.mark.parametrize("change", ["annotation", "picture", "fresh"])
def test_everything_is_measured_again(copied, capsys, tmp_path, change):
    root = shutil.copytree(copied.data_root, tmp_path / "prw")  # with the dates of the files
    run_paper_suite(again(copied, data_root=root))
    assert summary(capsys) == (5, 0)
    if change == "annotation":
        text = (root / "query_info.txt").read_text()
        (root / "query_info.txt").write_text("".join(text.splitlines(keepends=True)[:3]))
    elif change == "picture":
        path = root / "frames" / "c2s1_000001.jpg"
        os.utime(path, ns=(1, 1))
    run_paper_suite(again(copied, data_root=root, fresh=change == "fresh"))
    assert summary(capsys)[0] == 0


@pytest.mark.usefixtures("no_page")
def test_a_damaged_result_is_measured_again(copied, capsys, whole):
    work = copied.out / "work"
    for path in (*work.glob("hits-*"), *work.glob("scores-*")):
        path.write_bytes(path.read_bytes()[:-40])
    run_paper_suite(copied)
    err = capsys.readouterr().err
    assert err.count("is damaged; it is measured again.") == 4
    assert accuracy(copied.out) == accuracy(whole[0].out)


def test_a_killed_run_goes_on_where_it_stopped(whole, tmp_path, capsys):
    settings = again(whole[0], out=tmp_path / "out")
    given = [word for c in settings.checkpoints for word in ("--checkpoint", f"{c.name}={c.path}")]
    code = (
        "import sys; from psarm.benchmarks.paper import measure; measure.PART = 3; from psarm.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "bench", "--suite", "paper", "--data-root", settings.data_root, *given]
    command += ["--out", settings.out, "--threads", 1, "--frames", 1, "--examples", 2]
    with subprocess.Popen([str(word) for word in command], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list(settings.out.glob("work/gallery-*"))) < 2:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (settings.out / "report.json").exists()
    (settings.out / "work" / ".hits-0.npz.abc.tmp").write_bytes(b"half")  # as a kill in the middle of writing leaves
    run_paper_suite(settings)
    kept, measured = summary(capsys)
    assert kept >= 2 and kept + measured == 15
    assert accuracy(settings.out) == accuracy(whole[0].out)
    assert not list((settings.out / "work").glob(".*"))


def test_ctrl_c_says_how_to_go_on(whole, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "read_image", interrupted)
    with pytest.raises(KeyboardInterrupt, match="run the same command again to go on"):
        run_paper_suite(again(whole[0], out=tmp_path / "out"))


@pytest.mark.usefixtures("no_page")
def test_a_picture_that_cannot_be_read_is_named_and_the_rest_kept(whole, tmp_path, monkeypatch, capsys):
    def read(path):
        if path.name == "c1s1_000008.jpg":
            raise ImageError(f"{path} is damaged.")
        return read_image(path)

    settings = again(whole[0], out=tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(measure, "read_image", read)
        with pytest.raises(ImageError, match="c1s1_000008"):
            run_paper_suite(settings)
    run_paper_suite(settings)
    assert summary(capsys) == (2, 13)


def test_speed_that_fails_names_the_checkpoint(whole, tmp_path, monkeypatch):
    failing = lambda engines, paths: [PsarmError("no memory")] * len(engines)  # noqa: E731
    monkeypatch.setattr(suite, "time_engines", failing)
    with pytest.raises(PsarmError, match="PS-ARM could not be timed: no memory"):
        run_paper_suite(again(whole[0], out=tmp_path / "out"))


@pytest.mark.parametrize("content", ["note.txt", "work/note.txt", "work/suite.json"])
def test_a_folder_of_something_else_is_left_alone(whole, tmp_path, content):
    path = tmp_path / content
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"suite": "another"}')
    with pytest.raises(UsageError, match="holds something else"):
        run_paper_suite(again(whole[0], out=tmp_path, fresh=True))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


@pytest.mark.usefixtures("no_page")
def test_a_run_killed_before_its_first_result_can_go_on(whole, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".suite.json.abc.tmp").write_text("{")
    run_paper_suite(again(whole[0], out=tmp_path))
    assert (tmp_path / "report.html").exists()


def test_checkpoints_are_read_before_anything_is_written(whole, tmp_path):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no checkpoint")
    named = {c.name: c.path for c in whole[0].checkpoints}
    with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
        run_paper_suite(settings_for(whole[0].data_root, tmp_path / "out", {**named, "bad": bad}))
    assert not (tmp_path / "out").exists()


def test_names_that_are_not_given(root, checkpoints, tmp_path):
    one, two = (NamedCheckpoint(path) for path in checkpoints.values())
    assert [c.name for c in read_contenders([one])] == ["psarm"]
    assert [c.name for c in read_contenders([one, two])] == ["psarm model", "psarm other"]
    with pytest.raises(UsageError, match="both be called psarm model; give them names"):
        read_contenders([one, one])
    with pytest.raises(UsageError, match="x=… is given twice"):
        PaperSettings(root, (NamedCheckpoint(Path("a"), "x"),) * 2, tmp_path)


def test_without_matplotlib(whole, tmp_path, monkeypatch):
    from importlib.util import find_spec

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "matplotlib" else find_spec(name))
    with pytest.raises(MissingExtraError, match=r"matplotlib is not installed.*psarm\[paper\]"):
        run_paper_suite(again(whole[0], out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
