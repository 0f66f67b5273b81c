import base64
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from psarm.runtime.drawing import encode_jpeg
from psarm.runtime.gallery.page import Card, Moment, gallery_page
from psarm.runtime.report import Picture

BOX = np.array([50, 20, 90, 110], np.float32)
FRAME = np.full((120, 200, 3), 90, np.uint8)
QUERY = Picture("wanted.jpg", FRAME, BOX)


def card(**changes):
    facts = {"similarity": 0.8, "camera": "door", "source": "door.mp4", "when": "01:05–01:20", "detail": "15 s"}
    return Card(**{**facts, "box": BOX, "frame": FRAME, **changes})


def pictures(text):
    """Every picture in the page: width and height."""
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    decoded = [cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR) for data in found]
    return [image.shape[1::-1] for image in decoded]


def test_cards_in_order_with_crop_and_frame():
    text = gallery_page("street", [QUERY, QUERY], [card(), card(similarity=0.6, when="02:00")], notes=["cbgm: no"])
    assert "2 hits" in text and text.index("0.800") < text.index("0.600") and "cbgm: no" in text
    assert pictures(text) == [(40, 90), (200, 120)] * 4
    assert "<script" not in text and "http" not in text and "url(" not in text
    assert gallery_page("street", [QUERY], []).count("Nobody was found.") == 1


def test_the_head_says_what_was_searched_before_the_hits():
    text = gallery_page("a <street>", [QUERY], [card()], ["Searched: camera door.", "Times are local."])
    head = text.partition("<header>")[2].partition("</header>")[0]
    assert "Person search in a &lt;street&gt;: 1 hit<" in head
    assert "<p>Searched: camera door.</p>" in head and "<p>Times are local.</p>" in head


def test_a_thumbnail_stands_where_there_is_no_frame():
    thumbnail = encode_jpeg(np.zeros((30, 20, 3), np.uint8))
    text = gallery_page("street", [QUERY], [card(frame="It is not there any more.", thumbnail=thumbnail)])
    assert pictures(text)[2:] == [(20, 30)] and "It is not there any more." in text and "no picture" not in text
    text = gallery_page("street", [QUERY], [card(frame="It is not there any more.")])
    assert len(pictures(text)) == 2 and "no picture" in text


def test_what_is_probably_no_match_is_marked_and_keeps_its_colours():
    text = gallery_page("street", [QUERY], [card(), card(unlikely="probably not a match")])
    assert text.count('<article class="unlikely">') == 1 and text.count("<article>") == 1
    assert text.index("probably not a match") > text.index('<article class="unlikely">')
    assert "article.unlikely { border:" in text and not re.search(r"grayscale|opacity|filter:", text)


@pytest.mark.parametrize("name", ["door.mp4", "it's a <door> & 50%.mp4"])
def test_a_moment_can_be_played(tmp_path, name):
    moment = Moment(tmp_path / name, 65.0, 80.5, "01:05–01:20")
    assert moment.link.startswith("file:///") and moment.link.endswith("#t=63.0,82.5")
    assert shlex.split(moment.command) == ["ffplay", "-autoexit", "-ss", "63.0", "-t", "19.5", str(tmp_path / name)]
    text = gallery_page("street", [QUERY], [card(moment=moment, source=name)])
    assert "<door>" not in text and "Play 01:05–01:20" in text


def test_the_beginning_of_a_video():
    assert Moment(Path("/a.mp4"), 0.5, 0.5, "00:00").link == "file:///a.mp4#t=0.0,2.5"
