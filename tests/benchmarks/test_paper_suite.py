"""The paper's suite: what it measures, and what it keeps of an earlier run."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from paper_runs import Page, accuracy, again, find, settings_for
from toy_prw import write_toy_prw

from psarm.benchmarks.engines import load_frames
from psarm.benchmarks.paper import NamedCheckpoint, PaperSettings, conditions, measure, page, run_paper_suite, suite
from psarm.benchmarks.paper.conditions import common_key
from psarm.benchmarks.paper.contender import read_contenders
from psarm.benchmarks.paper.identity import dataset_digest
from psarm.benchmarks.paper.work import WorkFolder
from psarm.benchmarks.torch_engine import load_engine
from psarm.data.prw import read_prw
from psarm.errors import CheckpointError, ImageError, MissingExtraError, PsarmError, UsageError
from psarm.evaluation import SearchProtocol, evaluate_search, ground_truth_detections, score_detections
from psarm.evaluation.collect import collect_detections, embed_ground_truth
from psarm.machine import package_versions
from psarm.model import build_model, load_model, save_model
from psarm.runtime.images import read_image


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
    assert written == json.loads(json.dumps(report.to_dict()))
    row = written["checkpoints"][0]["published"]
    assert row["figures"] == {"mAP": 52.6, "top1": 88.1, "recall": 97.1, "AP": 93.9}
    assert row["source"] == "Tables 1 and 2 of PS-ARM (Fiaz et al., ACCV 2022)"
    assert "resnet18, not resnet50" in written["checkpoints"][0]["differences"]
    assert not written["published_comparable"]
    page = Page((settings.out / "report.html").read_text())
    assert "8 frames and 4 queries: the figures do not compare" in page.text
    assert "published PS-ARM (Baseline + ARM)" in page.text


def test_a_second_run_measures_nothing_and_says_of_when_its_figures_are(copied, whole, capsys, tmp_path):
    for path in (*copied.out.glob("work/scores-*"), *copied.out.glob("work/speed-*")):
        content = json.loads(path.read_text())
        content["result"]["measured"]["date"] = "once"
        path.write_text(json.dumps(content))
    root = shutil.copytree(copied.data_root, tmp_path / "prw")  # with the dates of the files
    run_paper_suite(again(copied, data_root=root))
    assert summary(capsys) == (5, 0)
    assert accuracy(copied.out) == accuracy(whole[0].out)
    report = json.loads((copied.out / "report.json").read_text())
    assert report["facts"]["date"] != "once" and report["facts"]["dataset"]["root"] == str(root)
    assert [report["speed"]["date"], *(c["measured"]["date"] for c in report["checkpoints"])] == ["once"] * 3
    text = Page((copied.out / "report.html").read_text()).text
    assert text.count("once on CPU") == 3 and text.endswith(f", {report['facts']['date']}.")


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
@pytest.mark.parametrize("fresh", [False, True])
def test_everything_is_measured_again(copied, capsys, monkeypatch, fresh):
    if not fresh:
        monkeypatch.setattr(suite, "dataset_digest", lambda _: "other data")
    run_paper_suite(again(copied, fresh=fresh))
    assert summary(capsys)[0] == 0


def test_a_data_set_is_its_content_wherever_it_lies(root, tmp_path):
    digest = dataset_digest(read_prw(root))
    copy = shutil.copytree(root, tmp_path / "prw")  # with the dates of the files
    assert dataset_digest(read_prw(copy)) == digest
    picture = copy / "frames" / "c2s1_000001.jpg"
    before = picture.stat()
    os.utime(picture, ns=(1, 1))
    assert dataset_digest(read_prw(copy)) != digest
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))
    text = (copy / "query_info.txt").read_text()
    (copy / "query_info.txt").write_text("".join(text.splitlines(keepends=True)[:3]))
    assert dataset_digest(read_prw(copy)) != digest


def test_results_depend_on_device_versions_and_source(monkeypatch):
    keys = [common_key("data", "CPU"), common_key("data", "CUDA, a GPU"), common_key("more data", "CPU")]
    versions = package_versions()
    for name in ("torch", "torchvision", "opencv"):
        monkeypatch.setattr(conditions, "package_versions", lambda changed=name: {**versions, changed: "0"})
        keys.append(common_key("data", "CPU"))
    monkeypatch.setattr(conditions, "package_versions", lambda: versions)
    monkeypatch.setattr(conditions, "source_digest", lambda: "changed")
    keys.append(common_key("data", "CPU"))
    assert len({json.dumps(key) for key in keys}) == len(keys)


def test_the_source_is_all_modules(tmp_path, monkeypatch):
    digests = []
    for linked in ("", "a = 1", "a = 2"):
        root = tmp_path / f"package{len(digests)}"
        (root / "real").mkdir(parents=True)
        (root / "psarm").mkdir()
        (root / "psarm" / "linked").symlink_to(root / "real")
        (root / "psarm" / "__init__.py").write_text("")
        (root / "real" / "module.py").write_text(linked)
        monkeypatch.setattr("psarm.__file__", str(root / "psarm" / "__init__.py"))
        digests.append(conditions.source_digest.__wrapped__())
    assert len(set(digests)) == 3


@pytest.mark.usefixtures("no_page")
@pytest.mark.parametrize("step", ["accuracy", "speed"])
def test_a_checkpoint_replaced_meanwhile_is_noticed(copied, checkpoints, tmp_path, monkeypatch, step):
    path = Path(shutil.copy(checkpoints["PS-ARM"], tmp_path / "model.safetensors"))
    settings = settings_for(copied.data_root, copied.out, {"PS-ARM": path, "another": checkpoints["another"]})
    for result in copied.out.glob("work/*-*"):
        if step == "accuracy" or result.name.startswith("speed"):
            result.unlink()
    left = {result.name for result in copied.out.glob("work/*-*")}

    def read(given):
        contenders = read_contenders(given)
        shutil.copy(checkpoints["another"], path)
        return contenders

    monkeypatch.setattr(suite, "read_contenders", read)
    with pytest.raises(CheckpointError, match=r"model\.safetensors was replaced while the suite ran"):
        run_paper_suite(settings)
    assert {result.name for result in copied.out.glob("work/*-*")} == left


def test_a_checkpoint_replaced_as_it_is_read_is_noticed(checkpoints, tmp_path, monkeypatch):
    path = Path(shutil.copy(checkpoints["PS-ARM"], tmp_path / "model.safetensors"))

    def load(given):
        model = load_model(given)
        shutil.copy(checkpoints["another"], given)
        return model

    monkeypatch.setattr("psarm.model.load_model", load)
    with pytest.raises(CheckpointError, match="was replaced"):
        read_contenders([NamedCheckpoint(path)])


@pytest.mark.usefixtures("no_page")
def test_a_damaged_part_is_not_announced_as_kept(copied, capsys, monkeypatch, whole):
    advanced = []

    class Bar:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def add_task(self, name, total):
            advanced.append(-total)

        def advance(self, task, count=1):
            advanced.append(count)

    monkeypatch.setattr(measure, "progress", Bar)
    part = sorted(copied.out.glob("work/gallery-*"))[0]
    part.write_bytes(part.read_bytes()[:-40])
    for path in (*copied.out.glob("work/hits-*"), *copied.out.glob("work/scores-*")):
        path.unlink()
    run_paper_suite(copied)
    err = " ".join(capsys.readouterr().err.split())
    assert err.count("4 of 5 parts were measured before and are kept") == 1
    assert err.count("is damaged; it is measured again") == 1 and "accuracy was measured before" not in err
    assert sum(advanced) == 0
    assert accuracy(copied.out) == accuracy(whole[0].out)


@pytest.mark.usefixtures("no_page")
def test_a_damaged_result_is_measured_again(copied, capsys, whole):
    work = copied.out / "work"
    for path in (*work.glob("hits-*"), *work.glob("scores-*")):
        path.write_bytes(path.read_bytes()[:-40])
    run_paper_suite(copied)
    err = capsys.readouterr().err
    assert err.count("is damaged; it is measured again.") == 4
    assert accuracy(copied.out) == accuracy(whole[0].out)


@pytest.mark.parametrize("write", [2, 5])
def test_a_killed_run_goes_on_where_it_stopped(root, tmp_path, write):
    """SIGKILL in the middle of writing a part, of the gallery and of the queries."""
    code = f"from paper_runs import find; find({str(root)!r}, {str(tmp_path / 'out')!r}, killed_at={write})"
    killed = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=False)
    assert killed.returncode == -signal.SIGKILL
    work = tmp_path / "out" / "work"
    [half] = work.glob(".*.npz.*.tmp")
    assert half.stat().st_size > 0 and len(list(work.glob("*.npz"))) == write - 1
    found, folder = find(root, tmp_path / "out")
    assert (folder.kept, folder.measured) == (write - 1, 6 - write)
    assert not list(work.glob(".*"))
    whole, _ = find(root, tmp_path / "whole")
    for name in ("boxes", "scores", "embeddings", "counts"):
        for part in ("gallery", "context"):
            now, then = (getattr(getattr(one.detections, part), name) for one in (found, whole))
            assert np.array_equal(now, then) and len(then)
    assert np.array_equal(found.truth, whole.truth)


def test_two_runs_do_not_share_a_folder(copied):
    half = copied.out / "work" / ".hits-0.npz.abc.tmp"
    with WorkFolder(copied.out):
        half.write_bytes(b"of this run")
        before = sorted(copied.out.rglob("*"))
        for fresh in (False, True):
            with pytest.raises(UsageError, match="Another run of --suite paper is writing to"):
                run_paper_suite(again(copied, fresh=fresh))
        assert sorted(copied.out.rglob("*")) == before
    with WorkFolder(copied.out):
        assert not half.exists()


@pytest.mark.usefixtures("no_page")
def test_results_of_another_version(copied):
    (copied.out / "work" / "suite.json").write_text('{"suite": "paper", "schema": 1}')
    (copied.out / "work" / "mine").mkdir()
    before = sorted(copied.out.rglob("*"))
    with pytest.raises(UsageError, match=r"another version of psarm \(schema 1, needed 2\).*--fresh"):
        run_paper_suite(copied)
    assert sorted(copied.out.rglob("*")) == before
    with WorkFolder(copied.out, fresh=True):
        assert {path.name for path in (copied.out / "work").iterdir()} == {"suite.json", "lock", "mine"}
    WorkFolder.check(copied.out)


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
    assert accuracy(settings.out) == accuracy(whole[0].out)


def test_speed_that_fails_names_the_checkpoint(copied, monkeypatch):
    for path in copied.out.glob("work/speed-*"):
        path.unlink()
    failing = lambda engines, paths: [PsarmError("no memory")] * len(engines)  # noqa: E731
    monkeypatch.setattr(suite, "time_engines", failing)
    with pytest.raises(PsarmError, match="PS-ARM could not be timed: no memory"):
        run_paper_suite(copied)


@pytest.mark.parametrize("content", ["note.txt", "work/note.txt", "work/suite.json"])
def test_a_folder_of_something_else_is_left_alone(whole, tmp_path, content):
    path = tmp_path / content
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"suite": "another"}')
    with pytest.raises(UsageError, match="holds something else"):
        run_paper_suite(again(whole[0], out=tmp_path, fresh=True))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_a_run_killed_before_its_first_result_can_go_on(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".suite.json.abc.tmp").write_text("{")
    (tmp_path / "work" / "lock").touch()
    with WorkFolder(tmp_path):
        assert {path.name for path in (tmp_path / "work").iterdir()} == {"suite.json", "lock"}


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
    with pytest.raises(UsageError, match="cannot be called x=y"):
        NamedCheckpoint(Path("a"), "x=y")
    with pytest.raises(UsageError, match="x=… is given twice"):
        PaperSettings(root, (NamedCheckpoint(Path("a"), "x"),) * 2, tmp_path)


def test_without_matplotlib(whole, tmp_path, monkeypatch):
    from importlib.util import find_spec

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "matplotlib" else find_spec(name))
    with pytest.raises(MissingExtraError, match=r"matplotlib is not installed.*psarm\[paper\]"):
        run_paper_suite(again(whole[0], out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
