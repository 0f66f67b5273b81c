"""Pictures and videos that cannot be used, or hardly: `psarm detect` and `psarm search` on the toy bundle."""

import json

import cv2
import numpy as np
import pytest
import toy_bundle as toy
from failing import failing

from psarm.cli import run

RED = (255, 0, 0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm")


@pytest.fixture
def query(tmp_path):
    path = tmp_path / "query.png"
    cv2.imwrite(str(path), toy.draw_scene({0: RED}))
    return path


@pytest.fixture
def broken_off(tmp_path):
    """A video of 12 frames with a person each, of which the last ones are missing."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (160, 96))
    noise = np.random.default_rng(0).integers(0, 20, (96, 160, 3), np.uint8)
    for _ in range(12):
        writer.write(toy.draw_scene({0: RED}) // 2 + noise + 50)
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    return path


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "is empty (0 bytes)"), (b"no video at all", "is damaged or not a video")]
)
def test_a_bad_video_alone(bundle, query, tmp_path, capfd, content, says):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(content)
    assert failing(capfd, "detect", bundle, clip).startswith(f"Error: {clip} {says}")
    page = tmp_path / "page.html"
    assert failing(capfd, "search", bundle, "--query", query, clip, "--html", page).startswith(f"Error: {clip} {says}")
    assert not page.exists()


def test_a_video_that_does_not_exist(bundle, query, tmp_path, capfd):
    assert "clip.mp4' does not exist" in failing(capfd, "detect", bundle, tmp_path / "clip.mp4", code=2)
    sentence = failing(capfd, "search", bundle, "--query", query, tmp_path / "clip.mp4", code=2)
    assert "clip.mp4' does not exist" in sentence


@pytest.mark.parametrize("batch", [1, 100])
def test_a_video_alone_that_breaks_off_shows_what_was_found(bundle, broken_off, capfd, batch):
    assert run(["detect", str(bundle), str(broken_off), "--json", "--batch", str(batch)]) == 1
    printed = capfd.readouterr()
    records = [json.loads(line) for line in printed.out.splitlines()]
    assert 3 <= len(records) <= 8
    assert [record["image"] for record in records] == [f"{broken_off}#{number:06d}" for number in range(len(records))]
    *_, last = printed.err.splitlines()
    assert last == f"Error: The video {broken_off} breaks off after {len(records)} of 12 frames."


def test_a_search_in_a_video_that_breaks_off_shows_what_was_found(bundle, broken_off, query, capfd):
    code = run(["search", str(bundle), "--query", str(query), str(broken_off), "--json"])
    printed = capfd.readouterr()
    found = json.loads(printed.out)
    assert code == 1 and found["frames"] >= 3
    assert printed.err.splitlines()[-1].startswith(f"Error: The video {broken_off} breaks off after {found['frames']}")


@pytest.mark.parametrize(("height", "width"), [(400, 20_000), (20_000, 400), (6_000, 6_000)])
def test_large_pictures(bundle, tmp_path, capfd, height, width):
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), toy.draw_scene({0: RED}, height, width), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert run(["detect", str(bundle), str(path), "--json", "--threads", "1"]) == 0
    record = json.loads(capfd.readouterr().out)
    assert (record["width"], record["height"]) == (width, height)
    if height == width:  # the others become three pixels high or wide
        assert len(record["boxes"]) == 1


def test_a_picture_of_one_pixel(bundle, query, tmp_path, capfd):
    dot = tmp_path / "dot.png"
    cv2.imwrite(str(dot), np.full((1, 1, 3), 115, np.uint8))
    assert run(["detect", str(bundle), str(dot), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["boxes"] == []
    assert "No person was found in the query" in failing(capfd, "search", bundle, "--query", dot, query, code=2)
    code = run(["search", str(bundle), "--query", str(dot), "--box", "0,0,1,1", str(query), "--json"])
    assert code == 0 and len(json.loads(capfd.readouterr().out)["hits"]) == 1


def test_a_truncated_graph_whose_manifest_agrees(bundle, query, tmp_path, capfd):
    """The manifest's size and hash hold, so only the backend can tell."""
    damaged = toy.make_toy_bundle(tmp_path / "damaged.psarm")
    graph = damaged / "detect.onnx"
    graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
    toy.write_manifest(damaged, toy.toy_manifest(damaged))
    for name, title in (("auto", "OpenVINO"), ("onnxruntime", "ONNX Runtime")):
        sentence = failing(capfd, "detect", damaged, query, "--backend", name, "--save", tmp_path / "out")
        assert sentence.startswith(f"Error: {graph} is not an ONNX graph that {title}")
    assert not (tmp_path / "out").exists()
