"""`psarm data convert` as a user meets it."""

import errno
import json
from pathlib import Path

import clips
import pytest
from failing import failing
from toy_bundle import make_toy_bundle

from psarm.cli import run
from psarm.data.convert import writer
from psarm.data.visits import read_visits

CONFIG = Path(__file__).parents[2] / "configs" / "tiny.yaml"


@pytest.fixture
def mot(tmp_path):
    """Arguments that convert the small clip."""
    video, labels, people = clips.write_clip(tmp_path / "in")
    return [
        "data",
        "convert",
        tmp_path / "out",
        "--from",
        "mot",
        "--video",
        video,
        "--labels",
        labels,
        "--people",
        people,
    ]


@pytest.fixture
def coco(tmp_path):
    labels, images = clips.write_coco(tmp_path / "in")
    given = ["--labels", labels, "--images", images, "--id-attribute", "person_id", "--visit-gap", "1"]
    return ["data", "convert", tmp_path / "out", "--from", "coco", *given]


def call(*arguments):
    return run([str(argument) for argument in arguments])


def test_mot(mot, tmp_path, capsys):
    assert call(*mot) == 0
    printed = capsys.readouterr().out
    assert "1 of 2 people come back for another visit." in printed
    assert f"-o data.dataset=visits --data-root {tmp_path / 'out'}" in printed
    assert len(read_visits(tmp_path / "out").train) == 6
    assert call(*mot, "--every", "3", "--overwrite", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "root": str(tmp_path / "out"),
        "frames": 4,
        "train_frames": 2,
        "gallery_frames": 2,
        "boxes": 6,
        "unlabelled": 0,
        "people": 2,
        "visits": 3,
        "queries": 1,
        "returning": 1,
        "shared": 0,
        "dropped": {},
        "cameras": {
            "1": {
                "frames": 4,
                "train_frames": 2,
                "gallery_frames": 2,
                "boxes": 6,
                "unlabelled": 0,
                "people": 2,
                "visits": 3,
                "queries": 1,
            }
        },
    }


def test_coco(coco, tmp_path, capsys):
    assert call(*coco, "--link", "--json") == 0
    assert json.loads(capsys.readouterr().out)["visits"] == 3
    assert len(read_visits(tmp_path / "out").queries) == 1


def test_cameras_are_numbered_in_the_order_of_the_videos(mot, capsys):
    assert call(*mot, *mot[5:], "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["cameras"]) == ["1", "2"]
    assert call(*mot, *mot[5:], "--camera", "9", "--camera", "4", "--overwrite", "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["cameras"]) == ["4", "9"]


def test_unlabelled_people_and_dropped_labels_are_told(mot, tmp_path, capsys):
    rows = [*clips.ROWS, (1, -1, 1, 1, 9, 9, 1), (1, 3, 1, 1, 9, 9, 0), (3, -1, 90, 1, 9, 9, 1)]
    clips.write_labels(tmp_path / "in" / "gt.txt", rows)
    assert call(*mot) == 0
    printed = capsys.readouterr().out
    assert "1 boxes have no identity." in printed
    assert "Left out: 1 labels with conf 0." in printed and "1 labels with no area inside the picture." in printed


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--video", "{video}"], "--video was given 2 times and --labels 1 times; give one for each"),
        (["--people", "{people}"], "--video was given 1 times and --people 2 times"),
        (["--camera", "1", "--camera", "2"], "--video was given 1 times and --camera 2 times"),
        (["--start", "0", "--start", "2"], "--video was given 1 times and --start 2 times"),
        (["--images", "{folder}"], "--from mot does not take --images; leave it out."),
        (["--id-attribute", "a", "--category", "b"], "--from mot does not take --id-attribute, --category; leave"),
        (["--every", "0"], "--every 0 is too few"),
        (["--every", "x"], "--every"),
        (["--train-fraction", "1"], "--train-fraction 1 is out of range"),
        (["--train-fraction", "nan"], "--train-fraction nan is out of range"),
        (["--train-fraction", "-0.1"], "--train-fraction -0.1 is out of range"),
        (["--visit-gap", "-1"], "--visit-gap -1 is negative"),
        (["--start", "nan"], "--start nan is not a time"),
        (["--shared-ids"], "give one"),
        (["--link"], "--link is for picture files"),
        (["--labels", "{folder}/none.txt"], "none.txt' does not exist"),
        (["--from", "voc"], "--from"),
    ],
)  # fmt: skip
def test_options_of_mot_that_cannot_be_meant(mot, tmp_path, capfd, extra, says):
    names = {
        "video": tmp_path / "in" / "clip.avi",
        "people": tmp_path / "in" / "people.json",
        "folder": tmp_path / "in",
    }
    assert says in failing(capfd, *mot, *(text.format(**names) for text in extra), code=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("left_out", "says"),
    [
        ("--labels", "--from coco needs one --labels FILE.json; 0 were given."),
        ("--images", "--from coco needs --images, the folder of the pictures."),
        ("--id-attribute", "--from coco needs --id-attribute, the attribute that says who a person is"),
    ],
)  # fmt: skip
def test_options_that_coco_needs(coco, capfd, left_out, says):
    place = coco.index(left_out)
    assert says in failing(capfd, *coco[:place], *coco[place + 2 :], code=2)


def test_options_that_mot_needs_or_coco_refuses(coco, mot, tmp_path, capfd):
    assert "--from mot needs --video" in failing(capfd, *mot[:5], "--labels", mot[8], code=2)
    said = failing(capfd, *coco, "--video", tmp_path / "in" / "clip.avi", "--shared-ids", code=2)
    assert "--from coco does not take --video, --shared-ids; leave it out." in said
    assert call("data", "convert", tmp_path / "out") == 2
    assert "Missing option '--from'" in capfd.readouterr().err


def test_out_that_cannot_be_written(mot, tmp_path, capfd):
    out = tmp_path / "out"
    out.write_text("mine")
    assert "is a file; give a directory" in failing(capfd, *mot, code=2)
    out.unlink()
    out.mkdir()
    assert call(*mot) == 0  # an empty directory will do
    assert "exists and is not empty; choose another directory or pass --overwrite" in failing(
        capfd, *mot, code=2, out=None
    )
    (out / "queries.json").rename(out / "thesis.txt")
    assert "holds something else than a converted data set" in failing(capfd, *mot, "--overwrite", code=2)
    assert (out / "thesis.txt").exists()


def test_out_is_not_replaced_while_it_is_read(coco, tmp_path, capfd):
    assert call(*coco) == 0
    capfd.readouterr()
    arguments = [tmp_path / "out" / "images" if argument == coco[8] else argument for argument in coco]
    sentence = failing(capfd, *arguments, "--overwrite", code=2)
    assert f"images lies in {tmp_path / 'out'}, which would be replaced" in sentence
    assert len(read_visits(tmp_path / "out").queries) == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [(KeyboardInterrupt(), 130, "Interrupted"), (OSError(errno.ENOSPC, "No space left"), 1, "disk is full")],
)
def test_nothing_half_written_is_left(mot, tmp_path, capsys, monkeypatch, error, code, said):
    def stop(*_):
        raise error

    monkeypatch.setattr(writer, "choose_queries", stop)
    assert call(*mot) == code
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_damaged_input_is_a_sentence(mot, tmp_path, capfd):
    video, labels = tmp_path / "in" / "clip.avi", tmp_path / "in" / "gt.txt"
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) * 6 // 10])
    assert f"The video {video} breaks off after" in failing(capfd, *mot)
    video.write_bytes(whole)
    labels.write_text("1,1,0,0,9,9\n1,1,0,0,nine,9\n")
    assert f"{labels} line 2: column 5 is 'nine'; expected a number." in failing(capfd, *mot)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_train_and_bench_take_the_result(mot, tmp_path, capsys):
    assert call(*mot) == 0
    root = tmp_path / "out"
    options = [
        "-o",
        "data.dataset=visits",
        "-o",
        "train.threads=1",
        "-o",
        "train.epochs=1",
        "-o",
        "train.evaluate=false",
    ]
    given = ["--data-root", root, "--output", tmp_path / "run", "--json"]
    capsys.readouterr()
    assert call("train", "--config", CONFIG, *options, *given) == 0
    assert json.loads(capsys.readouterr().out)["epochs"] == 1
    bundle = make_toy_bundle(tmp_path / "toy.psarm")
    report = tmp_path / "report.json"
    given = ["--dataset", "visits", "--data-root", root, "--frames", "1", "--threads", "1", "--json", report]
    assert call("bench", bundle, *given) == 0
    assert "mAP" in report.read_text()
