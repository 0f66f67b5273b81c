"""`psarm data synth` as a user meets it."""

import errno
import json

import pytest
from cuhk_disk import write_cuhk
from prw_files import write_prw

from psarm.cli import run
from psarm.data.synth import jobs

TINY = ["--frames", "12", "--identities", "4", "--size", "112x64", "--people-per-frame", "2", "--workers", "1"]


def test_json_summary_and_overwrite(tmp_path, capsys):
    out = tmp_path / "prw"
    assert run(["data", "synth", str(out), *TINY, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["train_frames"] == summary["test_frames"] == 6
    assert summary["root"] == str(out)
    assert len(summary["cameras"]) == 6
    assert json.loads((out / "synth.json").read_text())["settings"]["width"] == 112

    assert run(["data", "synth", str(out), *TINY]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert run(["data", "synth", str(out), *TINY, "--seed", "1", "--overwrite"]) == 0
    printed = capsys.readouterr().out
    assert "camera" in printed and "no identity" in printed
    assert json.loads((out / "synth.json").read_text())["settings"]["seed"] == 1


def test_overwrite_spares_what_is_no_data_set(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert run(["data", "synth", str(tmp_path), *TINY, "--overwrite"]) == 2
    assert "something else" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("write", [write_prw, write_cuhk])
@pytest.mark.parametrize("manifest", [None, "", "[]", '{"settings": {}}'])
def test_overwrite_spares_a_real_data_set(tmp_path, capsys, write, manifest):
    root = write(tmp_path / "real")
    if manifest is not None:
        (root / "synth.json").write_text(manifest)
    before = sorted(root.rglob("*"))
    assert run(["data", "synth", str(root), *TINY, "--overwrite"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "something else than a synthetic data set (no synth.json of psarm in it) and is not overwritten" in said
    assert sorted(root.rglob("*")) == before


def test_out_is_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert run(["data", "synth", str(tmp_path / "file"), *TINY]) == 2
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [(KeyboardInterrupt(), 130, "Interrupted"), (OSError(errno.ENOSPC, "No space left"), 1, "disk is full")],
)
def test_nothing_half_written_is_left(error, code, said, tmp_path, capsys, monkeypatch):
    written = []

    def write_picture(path, *_):
        written.append(path)
        if len(written) == 3:
            raise error

    monkeypatch.setattr(jobs, "write_picture", write_picture)
    assert run(["data", "synth", str(tmp_path / "out"), *TINY]) == code
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--size", "640"], "--size"),
        (["--size", "20x20"], "--size"),
        (["--size", "99999x99999"], "--size"),
        (["--size", "4000x100"], "--size"),
        (["--frames", "11"], "--frames"),
        (["--identities", "3"], "--identities"),
        (["--identities", "600"], "--identities"),
        (["--test-fraction", "0.99"], "--test-fraction"),
        (["--people-per-frame", "0"], "--people-per-frame"),
        (["--people-per-frame", "nan"], "--people-per-frame"),
        (["--seed", "-1"], "--seed"),
        (["--workers", "0"], "--workers"),
        (["--format", "coco"], "--format"),
    ],
)
def test_bad_options_are_named(options, said, tmp_path, capsys):
    assert run(["data", "synth", str(tmp_path / "out"), *options]) == 2
    message = capsys.readouterr().err
    assert said in message
    assert "Traceback" not in message
    assert not (tmp_path / "out").exists()
