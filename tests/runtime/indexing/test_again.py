"""Frames of indexed sources, read again."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from clips import picture, write_video

from psarm.errors import ImageError
from psarm.runtime.gallery.records import Source
from psarm.runtime.indexing.again import FramesAgain
from psarm.runtime.indexing.reading import TakenFrame
from psarm.runtime.indexing.sampling import Sampling
from psarm.runtime.indexing.sources import find_readers


def taken(path, **sampling):
    """The source's record and its frames, as an indexer has them."""
    (reader,) = find_readers([str(path)], sampling=Sampling(**sampling))
    source = reader.plan()
    return source, [frame for frame in reader.read() if isinstance(frame, TakenFrame)]


@pytest.mark.parametrize("sampling", [{"fps": 2.0}, {"every": 3}, {"keyframes": True}])
def test_frames_of_a_video_in_any_order(tmp_path, sampling):
    source, frames = taken(write_video(tmp_path / "a.avi", 20), **sampling)
    again = FramesAgain()
    for frame in reversed(frames):
        np.testing.assert_array_equal(again.read(source, frame.frame), frame.image)
    with pytest.raises(ImageError, match="does not give frame 7 any more"):
        again.read(source, 7)
    again.close()


def test_pictures(tmp_path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    source, frames = taken(tmp_path)
    assert len(frames) == 3
    np.testing.assert_array_equal(FramesAgain().read(source, frames[1].frame), picture(1))


def test_what_is_no_longer_there(tmp_path):
    source, (first, *_) = taken(write_video(tmp_path / "a.avi", 4))
    again = FramesAgain()
    write_video(tmp_path / "a.avi", 5)
    for _ in range(2):
        with pytest.raises(ImageError, match=r"a\.avi is not what was indexed any more\."):
            again.read(source, first.frame)
    with pytest.raises(ImageError, match="is not there any more"):
        again.read(replace(source, name=str(tmp_path / "b.avi")), 0)
    with pytest.raises(ImageError, match="A camera keeps no frames"):
        again.read(Source("rtsp://host/a", "door", "live"), 0)
    with pytest.raises(ImageError, match="from files only"):
        again.read(Source("http://host/a.mp4", "door", "video"), 0)
