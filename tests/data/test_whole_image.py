"""Strict reading of data set images: what is whole is read, whatever follows it; what is cut off is refused."""

import cv2
import numpy as np
import pytest

from psarm.data.images import read_whole_image
from psarm.errors import DataError


def encoded(*options, size=(40, 60)):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    return cv2.imencode(".jpg", picture, list(options))[1].tobytes()


def with_thumbnail(data):
    """`data` with a whole small JPEG in its header, as cameras write."""
    inner = b"Exif\0\0" + encoded(size=(8, 8))
    return data[:2] + b"\xff\xe1" + (len(inner) + 2).to_bytes(2) + inner + data[2:]


FORMS = {
    "plain": encoded(),
    "progressive": encoded(cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": encoded(cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
    "thumbnail": with_thumbnail(encoded()),
}


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("after", [b"", b"\0\r\n", b"a camera's own notes \xff\xd9 and more", FORMS["plain"]])
def test_a_whole_jpeg_is_read_whatever_follows(tmp_path, data, after):
    path = tmp_path / "a.jpg"
    path.write_bytes(data + after)
    np.testing.assert_array_equal(read_whole_image(path), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 1])
def test_a_cut_off_jpeg_is_refused(tmp_path, data, kept):
    path = tmp_path / "a.jpg"
    path.write_bytes(data[: int(kept * len(data)) - 1])
    with pytest.raises(DataError, match="the image is cut off: the JPEG has no end marker"):
        read_whole_image(path)
