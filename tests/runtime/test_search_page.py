import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from psarm.runtime.drawing import draw_boxes, shrink
from psarm.runtime.report import Picture, RankedPicture, search_page


def picture(name="frames/a.jpg", height=120, width=200, box=(50, 20, 90, 110)):
    image = np.full((height, width, 3), 90, np.uint8)
    return Picture(name, image, np.array(box, np.float32))


class Page(HTMLParser):
    """What the page shows and whether its elements close."""

    VOID = frozenset({"img", "meta"})

    def __init__(self, text):
        super().__init__()
        self.text, self.sources, self.open, self.linked = "", [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.linked += [tag] if tag in {"script", "link", "iframe"} else []
        self.sources += [value for key, value in attributes if key in {"src", "href"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    @property
    def pictures(self):
        data = [base64.b64decode(source.partition("base64,")[2]) for source in self.sources]
        return [cv2.imdecode(np.frombuffer(item, np.uint8), cv2.IMREAD_COLOR) for item in data]


def test_the_page_holds_everything_in_order_and_loads_nothing():
    hits = [RankedPicture(picture(f"frames/{n}.jpg"), 0.9 - n / 10, 0.98) for n in range(3)]
    text = search_page(picture("query.jpg"), hits, ["backend: onnxruntime", "frames: 12"])
    page = Page(text)
    assert page.linked == [] and "http" not in text and "url(" not in text
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert len(page.pictures) == 2 * 4 and all(image is not None for image in page.pictures)
    assert page.text.count("box 50,20,90,110 · detection score 0.980") == 3
    words = ["query.jpg", "3 hits", "0.900", "frames/0.jpg", "0.800", "frames/1.jpg", "0.700", "backend: onnxruntime"]
    places = [page.text.index(word) for word in words]
    assert places == sorted(places)


def test_names_are_escaped():
    name = '<script>alert("1")</script>&.jpg'
    text = search_page(picture(name), [RankedPicture(picture(name), 0.5, 0.9)], [name])
    assert "<script" not in text
    assert Page(text).text.count(name) == 4


def test_large_frames_are_scaled_down_with_their_boxes():
    large = picture(height=3000, width=4000, box=(1000, 500, 2000, 2500))
    page = Page(search_page(large, [RankedPicture(large, 1.0, 0.9)]))
    assert max(max(image.shape) for image in page.pictures) == 960
    frame = page.pictures[3]  # query crop, query frame, hit crop, hit frame
    green = (frame[..., 1].astype(int) - frame[..., 2] > 60) & (frame[..., 1] > 120)
    rows, columns = np.nonzero(green)
    assert abs(columns.min() - 240) < 5 and abs(columns.max() - 480) < 5
    assert abs(rows.max() - 600) < 5


@pytest.mark.parametrize(
    "box", [(-20, -20, 10, 10), (190, 110, 400, 300), (60, 60, 60, 60), (300, 300, 400, 400), (0, 0, 200, 120)]
)
def test_boxes_at_and_over_the_border(box):
    page = Page(search_page(picture(box=box), [RankedPicture(picture(box=box), -0.2, 0.9)]))
    assert len(page.pictures) == 4 and all(image is not None for image in page.pictures)
    assert "-0.200" in page.text and re.search("1 hit\\b", page.text)


def test_no_hits_say_so():
    assert "Nobody was found" in Page(search_page(picture(), [])).text


def test_drawing_leaves_the_frame_alone_and_marks_the_box():
    frame = picture().image
    before = frame.copy()
    drawn = draw_boxes(frame, np.array([[50, 20, 90, 110]], np.float32), ["0.97"])
    np.testing.assert_array_equal(frame, before)
    assert drawn.shape == frame.shape and (drawn[110, 50:91] != frame[110, 50:91]).any(axis=1).all()
    assert (drawn[60, 60:80] == frame[60, 60:80]).all()
    np.testing.assert_array_equal(draw_boxes(frame, np.zeros((0, 4), np.float32), []), frame)
    assert draw_boxes(frame[:1, :1], np.array([[0, 0, 1, 1]], np.float32), ["1.00"]).shape == (1, 1, 3)


def test_shrinking():
    frame = np.zeros((100, 50, 3), np.uint8)
    assert shrink(frame, 100) == (frame, 1.0)
    small, factor = shrink(frame, 20)
    assert small.shape == (20, 10, 3) and factor == 0.2
    assert shrink(np.zeros((1, 4000, 3), np.uint8), 100)[0].shape == (1, 100, 3)
