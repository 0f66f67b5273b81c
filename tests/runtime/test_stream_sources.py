"""What a stream can read from, and how a source that breaks off is told."""

import socket

import cv2
import numpy as np
import pytest
import toy_bundle as toy
from clips import picture, write_video

from psarm.errors import StreamError, UsageError
from psarm.runtime import PersonSearch
from psarm.runtime.stream.sources import find_sources


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    bundle = toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm")
    with PersonSearch(bundle, "onnxruntime", threads=1) as engine:
        yield engine


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "clip.avi", 12)


@pytest.mark.parametrize("every", [1, 5])
def test_a_video(engine, clip, every):
    results = list(engine.stream(clip, every=every))
    assert [result.index for result in results] == list(range(0, 12, every))
    assert [round(result.time_s, 3) for result in results] == [index / 10 for index in range(0, 12, every)]
    assert {result.source for result in results} == {str(clip)}
    assert all(np.abs(result.frame.astype(int) - picture(result.index)).mean() < 10 for result in results)


def test_a_video_that_breaks_off_gives_its_frames_and_then_says_so(engine, clip):
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 7 // 10])
    indices = []
    with pytest.raises(StreamError) as caught:
        indices.extend(result.index for result in engine.stream(str(clip), batch=2))
    last = indices[-1]
    assert indices == list(range(last + 1)) and 3 <= last + 1 <= 8
    assert str(caught.value) == (
        f"The source {clip} failed after its frame {last}: The video {clip} breaks off after {last + 1} of 12 frames."
    )


def test_what_is_no_video(engine, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"not a video at all")
    with pytest.raises(StreamError, match=r"failed before its first frame: .* is damaged or not a video"):
        next(engine.stream(path))


def test_a_folder_and_a_picture(engine, tmp_path):
    for number in (2, 0, 1):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    sources = [tmp_path, tmp_path / "1.png"]
    results = list(engine.stream(sources))
    for source, numbers in zip(sources, ([0, 1, 2], [1]), strict=True):
        of_source = [result for result in results if result.source == str(source)]
        assert [result.index for result in of_source] == list(range(len(numbers)))
        for result, number in zip(of_source, numbers, strict=True):
            np.testing.assert_array_equal(result.frame, picture(number))
            assert result.time_s >= 0


def test_names():
    frame = np.zeros((4, 4, 3), np.uint8)

    def names(source):
        return [one.name for one in find_sources(source, 1)]

    assert names(frame[None]) == names([frame, frame]) == names(iter([])) == ["frames"]
    assert names([[frame], (one for one in [frame])]) == ["frames 0", "frames 1"]
    assert names(2) == ["camera 2"] and names([0, 1]) == ["camera 0", "camera 1"]
    assert names({"door": 0, "yard": [frame]}) == ["door", "yard"]
    assert names("rtsp://me:secret@host:554/live?a=b") == ["rtsp://host:554/live"]
    cameras = ["http://host/video?camera=1&password=x", "rtsp://host/", "http://host/video?camera=2&password=x"]
    assert names(cameras) == ["http://host/video", "rtsp://host/", "http://host/video (2)"]
    with pytest.raises(UsageError, match=r"Two sources are named http://host/video \(2\)"):
        names([*cameras, cameras[2]])


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ([], "list of sources is empty"),
        ({}, "list of sources is empty"),
        ("gone.mp4", "no file or folder gone.mp4"),
        (3.5, "A float is no source of frames"),
        ([0, None], "A NoneType is no source"),
        ([1, 1], "Two sources are named camera 1; give a dictionary"),
    ],
)
def test_what_is_no_source(engine, source, says):
    with pytest.raises(UsageError, match=says):
        engine.stream(source)


class Capture:
    """A camera that gives three frames and then nothing."""

    opened = True

    def __init__(self, *arguments):
        self.left = 3

    def isOpened(self):
        return self.opened

    def get(self, _):
        return -1.0

    def grab(self):
        self.left -= 1
        return self.left >= 0

    def retrieve(self):
        return True, picture(0)

    def release(self):
        pass


@pytest.mark.parametrize(
    ("source", "title"),
    [(0, "The camera 0"), ("rtsp://me:secret@host/live", "The address rtsp://host/live")],
)
def test_a_live_source_that_ends_has_failed(engine, monkeypatch, source, title):
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    results = []
    with pytest.raises(StreamError) as caught:
        results.extend(engine.stream(source))
    assert [result.index for result in results] == [0, 1, 2]
    assert f"after its frame 2: {title} broke off after 3 frames; open it again." in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_live_source_that_is_not_there(engine, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.setattr(Capture, "opened", False)
    with pytest.raises(StreamError, match="before its first frame: The camera 7 cannot be opened"):
        next(engine.stream(7))


def test_an_address_that_says_nothing_is_broken_off(engine, monkeypatch):
    monkeypatch.setattr("psarm.runtime.video.NETWORK_TIMEOUT_MS", 200)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,  # takes connections and never answers
        pytest.raises(StreamError, match=r"before its first frame: The address .* cannot be opened"),
    ):
        next(engine.stream(f"http://127.0.0.1:{server.getsockname()[1]}/video"))
