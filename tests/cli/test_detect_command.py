"""`psarm detect` as a user meets it: through the command line, on the toy bundle."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
import toy_bundle as toy

from psarm.cli import run
from psarm.cli.engine_options import Frames
from psarm.runtime.backends import BACKENDS, PRECISIONS

RED, ORANGE = (255, 0, 0), (255, 90, 0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm")


@pytest.fixture
def frames(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for name, cells in (("a", [0]), ("b", []), ("c", [1, 6])):
        cv2.imwrite(str(folder / f"{name}.png"), toy.draw_scene(dict.fromkeys(cells, RED)))
    return folder


def psarm(capfd, *arguments):
    """Exit code, stdout, stderr (what C libraries write included)."""
    code = run([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def test_a_table_of_a_folder(bundle, frames, capfd, monkeypatch):
    monkeypatch.chdir(frames.parent)
    code, out, err = psarm(capfd, "detect", bundle, frames.name, "--backend", "onnxruntime", "--threads", 1)
    rows = [line for line in out.splitlines() if ".png" in line]
    cells = [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]
    assert code == 0
    assert [row[:2] for row in cells] == [["frames/a.png", "1"], ["frames/b.png", "0"], ["frames/c.png", "2"]]
    assert err == "Running on ONNX Runtime fp32 on CPU, 1 thread.\n"
    assert re.fullmatch(r"3 frames in [\d.]+ s, reading included: [\d.]+ frames/s\.", out.splitlines()[-1])


def test_one_picture_has_no_rate(bundle, frames, capfd):
    _, out, _ = psarm(capfd, "detect", bundle, frames / "a.png", "--backend", "onnxruntime", "--threads", 1)
    assert "frames/s" not in out and out.splitlines()[-1].startswith("└")


def test_what_auto_takes_and_why(bundle, frames, capfd):
    _, _, err = psarm(capfd, "detect", bundle, frames / "a.png", "--threads", 1)
    title = "OpenVINO fp32 on CPU, 1 thread"
    assert err == f"Running on {title}: the fastest that loads here; psarm doctor BUNDLE says more.\n"
    assert len(err) < 105


def test_the_options_name_every_backend_and_precision(capfd):
    _, out, _ = psarm(capfd, "detect", "--help")
    for name in ("auto", *BACKENDS, *PRECISIONS):
        assert name in out.replace("\n", " ")


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_json_lines(bundle, frames, capfd, batch):
    code, out, _ = psarm(capfd, "detect", bundle, frames, "--json", "--batch", batch, "--threads", 1)
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [record["image"] for record in records] == [str(frames / f"{name}.png") for name in "abc"]
    assert [len(record["boxes"]) for record in records] == [len(r["scores"]) for r in records] == [1, 0, 2]
    assert all("saved" not in record for record in records)
    assert all((r["width"], r["height"]) == (160, 96) and r["milliseconds"] > 0 for r in records)
    np.testing.assert_allclose(records[0]["boxes"][0], np.array(toy.cell_box(0)) + toy.SHIFT, atol=2)


def test_conf(bundle, frames, capfd):
    _, out, _ = psarm(capfd, "detect", bundle, frames / "a.png", "--json", "--conf", 0.001)
    assert len(json.loads(out)["boxes"]) > 1
    _, out, _ = psarm(capfd, "detect", bundle, frames / "a.png", "--json", "--conf", 1)
    assert json.loads(out)["boxes"] == []


def test_save_writes_beside_nothing_it_read(bundle, frames, tmp_path, capfd):
    other = shutil.copytree(frames, tmp_path / "other")
    before = (frames / "a.png").read_bytes()
    code, *_ = psarm(capfd, "detect", bundle, *sorted(frames.iterdir()), other / "a.png", "--save", frames)
    assert code == 0
    saved = sorted(path.name for path in frames.glob("*.people.jpg"))
    assert saved == ["a-2.people.jpg", "a.people.jpg", "b.people.jpg", "c.people.jpg"]
    assert (frames / "a.png").read_bytes() == before
    drawn, plain = cv2.imread(str(frames / "a.people.jpg")), cv2.imread(str(frames / "a.png"))
    assert drawn.shape == plain.shape and np.abs(drawn.astype(int) - plain).max() > 50
    assert len(list(frames.iterdir())) == 3 + 4


def test_saved_boxes_are_numbered_best_first(bundle, frames, tmp_path, capfd, monkeypatch):
    drawn = []

    def draw_boxes(image, boxes, labels):
        drawn.append((boxes.tolist(), labels))
        return image

    monkeypatch.setattr("psarm.runtime.drawing.draw_boxes", draw_boxes)
    _, out, _ = psarm(capfd, "detect", bundle, frames / "c.png", "--save", tmp_path / "out", "--json")
    found = json.loads(out)
    assert found["scores"] == sorted(found["scores"], reverse=True)
    assert drawn == [(found["boxes"], [f"{n} {score:.2f}" for n, score in enumerate(found["scores"], start=1)])]


def test_one_saved_picture_is_told(bundle, frames, tmp_path, capfd):
    code, out, err = psarm(capfd, "detect", bundle, frames / "a.png", "--save", tmp_path / "out", "--json")
    assert code == 0 and err.splitlines()[-1] == f"Wrote 1 picture to {tmp_path / 'out'}."
    assert json.loads(out)["saved"] == str(tmp_path / "out" / "a.people.jpg")


@pytest.mark.parametrize("folder", [".", "boxes", "deep/er", "../frames/boxes"])
def test_save_into_a_searched_folder_is_refused(bundle, frames, capfd, monkeypatch, folder):
    monkeypatch.chdir(frames)
    code, out, err = psarm(capfd, "detect", bundle, frames, "--save", folder)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert err.startswith(f"Error: --save {folder} lies in the searched folder {frames}, so ")
    assert "give a folder outside it" in err and len(list(frames.iterdir())) == 3


def test_save_beside_a_searched_folder_of_a_similar_name(bundle, frames, capfd):
    code, _, err = psarm(capfd, "detect", bundle, frames, "--save", f"{frames}-boxes")
    assert code == 0 and err.splitlines()[-1] == f"Wrote 3 pictures to {frames}-boxes."
    assert len(list((frames.parent / "frames-boxes").iterdir())) == 3


def test_a_video_frame_by_frame(bundle, tmp_path, capfd):
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 10, (160, 96))
    for number in range(6):
        writer.write(toy.draw_scene({0: RED} if number % 2 == 0 else {}))
    writer.release()
    code, out, _ = psarm(capfd, "detect", bundle, clip, "--json", "--every", 3, "--save", tmp_path / "out")
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(r["image"], len(r["boxes"])) for r in records] == [(f"{clip}#000000", 1), (f"{clip}#000003", 0)]
    saved = ["clip_000000.people.jpg", "clip_000003.people.jpg"]
    assert [record["saved"] for record in records] == [str(tmp_path / "out" / name) for name in saved]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == saved


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty (0 bytes)"), (b"nothing like a picture", "is damaged or not a picture")],
)
def test_one_bad_picture_is_one_sentence(bundle, tmp_path, capfd, content, says):
    (tmp_path / "bad.jpg").write_bytes(content)
    code, out, err = psarm(capfd, "detect", bundle, tmp_path / "bad.jpg", "--save", tmp_path / "out")
    assert code == 1 and out == "" and not (tmp_path / "out").exists()
    assert err.count("\n") == 2 and err.splitlines()[1].startswith("Error: ") and says in err


def test_one_bad_picture_among_many_is_named_and_the_others_go_on(bundle, frames, capfd):
    data = (frames / "a.png").read_bytes()
    (frames / "b.png").write_bytes(data[: len(data) // 2])
    (frames / "d.avi").write_bytes(b"no video")
    code, out, err = psarm(capfd, "detect", bundle, frames, "--json")
    assert code == 1
    assert [json.loads(line)["image"] for line in out.splitlines()] == [str(frames / n) for n in ("a.png", "c.png")]
    assert f"Skipped: {frames / 'b.png'} is cut short" in err
    assert f"Skipped: {frames / 'd.avi'} is damaged or not a video" in err
    assert err.splitlines()[-1] == "Error: 2 of 4 files could not be read (named above)."
    assert len(err.splitlines()) == 4


def test_1x1_and_20000_px_pictures(bundle, tmp_path, capfd):
    for name, shape in (("dot.png", (1, 1)), ("wide.png", (2, 20_000)), ("tall.png", (20_000, 1))):
        cv2.imwrite(str(tmp_path / name), np.full((*shape, 3), 115, np.uint8))
    code, out, _ = psarm(capfd, "detect", bundle, tmp_path, "--json")
    assert code == 0 and [json.loads(line)["boxes"] for line in out.splitlines()] == [[], [], []]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{bundle}", "gone.jpg"], "Path 'gone.jpg' does not exist"),
        (["gone.psarm", "{frames}"], "Path 'gone.psarm' does not exist"),
        (["{frames}/a.png", "{bundle}"], "BUNDLE comes first: {frames}/a.png is no bundle and {bundle} is; swap them."),
        (["{frames}", "{frames}", "{bundle}"], "BUNDLE comes first"),
        (["{bundle}"], "Missing argument 'PATH...'"),
        (["{bundle}", "{empty}"], "holds no picture or video file"),
        (
            ["{bundle}", "{frames}", "--backend", "tensor"],
            "there is no backend of that name; available: auto, tensorrt,",
        ),
        (["{bundle}", "{frames}", "--precision", "int8"], "holds no int8 graphs, only fp32; export it with: psarm exp"),
        (["{bundle}", "{frames}", "--precision", "int4"], "there is no precision of that name; available: auto, fp32,"),
        (
            ["{bundle}", "{frames}", "--backend", "onnxruntime", "--precision", "bf16"],
            "holds no bf16 graphs, only fp32",
        ),
        (["{bundle}", "{frames}", "--conf", "2"], "--conf"),
        (["{bundle}", "{frames}", "--threads", "0"], "--threads"),
        (["{bundle}", "{frames}", "--save", "{frames}/a.png"], "--save"),
    ],
)
def test_usage_errors_exit_with_2(bundle, frames, tmp_path, capfd, arguments, says):
    empty = tmp_path / "empty"
    empty.mkdir()
    filled = [argument.format(bundle=bundle, frames=frames, empty=empty) for argument in arguments]
    code, out, err = psarm(capfd, "detect", *filled)
    assert code == 2 and out == "" and says.format(bundle=bundle, frames=frames) in err.replace("\n", " ")


def test_wrong_bundles_exit_with_1(bundle, frames, tmp_path, capfd):
    def failing(path, says):
        code, out, err = psarm(capfd, "detect", path, frames)
        assert code == 1 and out == "" and err.startswith("Error: ") and err.count("\n") == 1 and says in err

    failing(frames, "is not a bundle: it holds no manifest.json")
    failing(frames / "a.png", "is a file, not a bundle directory")
    damaged = shutil.copytree(bundle, tmp_path / "damaged")
    graph = damaged / "detect.onnx"
    data = graph.read_bytes()
    graph.write_bytes(data[:-9])
    failing(damaged, "its manifest says")
    graph.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    failing(damaged, "SHA-256 differs")
    manifest = json.loads((damaged / "manifest.json").read_text())
    (damaged / "manifest.json").write_text(json.dumps({**manifest, "schema": 3}))
    failing(damaged, "made by a newer psarm: schema 3, this psarm reads 1 to 2; upgrade psarm")


def test_ctrl_c_is_clean_and_keeps_whole_files(bundle, frames, tmp_path, capfd, monkeypatch):
    def interrupted(self, engine):
        yield next(plain(self, engine))
        raise KeyboardInterrupt

    plain = Frames.detect
    monkeypatch.setattr(Frames, "detect", interrupted)
    code, _, err = psarm(capfd, "detect", bundle, frames, "--save", tmp_path / "out")
    assert code == 130 and err.splitlines()[-1] == "Interrupted."
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.people.jpg"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(bundle, frames, tmp_path, capfd, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    code, out, err = psarm(capfd, "detect", bundle, frames, "--save", tmp_path / "out")
    assert code == 1 and out == "" and "the disk is full" in err
    assert list((tmp_path / "out").iterdir()) == []
