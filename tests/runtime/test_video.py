import cv2
import numpy as np
import pytest

from psarm.errors import ImageError
from psarm.runtime.images import iter_images
from psarm.runtime.video import read_frame, read_video, without_password

GREYS = [18 * number for number in range(12)]


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    noise = np.random.default_rng(0).integers(0, 30, (48, 64, 3))
    for grey in GREYS:
        writer.write((grey + noise).clip(0, 255).astype(np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("every", [1, 5])
def test_every_kth_frame(clip, every):
    frames = list(read_video(clip, every))
    assert [number for number, _ in frames] == list(range(0, 12, every))
    for number, frame in frames:
        assert frame.shape == (48, 64, 3) and frame.dtype == np.uint8
        assert abs(frame.mean() - GREYS[number] - 14.5) < 4


def test_names_and_reading_again(clip):
    frames = list(iter_images([clip], every=4))
    assert [source.name for source, _ in frames] == [f"{clip}#{number:06d}" for number in (0, 4, 8)]
    for source, image in frames:
        np.testing.assert_array_equal(source.read(), image)


def test_a_frame_beyond_the_end(clip):
    with pytest.raises(ImageError, match="has no frame 12"):
        read_frame(clip, 12)


def test_a_video_that_breaks_off_gives_its_frames_and_then_says_so(clip):
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 7 // 10])
    numbers = []
    with pytest.raises(ImageError, match=r"breaks off after \d of 12 frames"):
        for number, _ in read_video(clip):
            numbers.append(number)
    assert numbers == list(range(len(numbers))) and 3 <= len(numbers) <= 8


@pytest.mark.parametrize(("content", "says"), [(b"", "is empty"), (b"not a video at all", "not a video")])
def test_what_is_no_video(tmp_path, content, says):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=says):
        list(read_video(path))


def test_a_missing_video(tmp_path):
    with pytest.raises(ImageError, match="not a video"):
        list(read_video(tmp_path / "gone.mp4"))


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://u:p@h:554/x", "rtsp://h:554/x"),
        ("rtsp://u:p@ss@h/x", "rtsp://h/x"),
        ("rtsp://u:p/ss@h/x", "rtsp://h/x"),
        ("rtsp://h/x", "rtsp://h/x"),
        ("http://h/cgi?user=admin&password=x", "http://h/cgi"),
        ("http://u:p@h/cgi?user=admin", "http://h/cgi"),
        ("rtsp://h:554/user=admin&password=x&channel=1/live", "rtsp://h:554/"),
        ("rtsp://u:p?ss@h/x", "rtsp://…"),
        ("rtsp://u:p#s@s?a@h/x", "rtsp://…"),
        ("http://h/cgi?user=admin&password=p@ss", "http://…"),
        ("clip@home?.avi", "clip@home?.avi"),
    ],
)
def test_passwords_are_left_out(address, shown):
    assert without_password(address) == shown
