"""What docs/gallery.md shows runs, in its order, on toy footage."""

import re
from pathlib import Path

import cv2
import pytest
import toy_bundle as toy
from documents import assert_commands_exist, assert_links_lead_somewhere, console_commands, python_blocks

from psarm.cli import run

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "gallery.md").read_text(encoding="utf-8")
RED, ORANGE, PINK = (255, 0, 0), (255, 90, 0), (255, 0, 120)


def write_video(path, scenes):
    """Ten frames a second; each scene lasts a second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (160, 96))
    for people in scenes:
        for _ in range(10):
            writer.write(toy.draw_scene(people))
    writer.release()


@pytest.fixture
def footage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy.make_toy_bundle(Path("prw.psarm"))
    write_video(Path("door.mp4"), [{}, {1: RED, 6: PINK}, {1: RED}, {}])
    write_video(Path("hall.mp4"), [{5: ORANGE}, {}])
    write_video(Path("stairs.mp4"), [{2: ORANGE}])
    cv2.imwrite("wanted.jpg", toy.draw_scene({1: RED}))
    return tmp_path


def test_commands_and_code_run(footage, capfd):
    for words, _ in console_commands(PAGE):
        code = run(words)
        captured = capfd.readouterr()
        too_few = words[:2] == ["gallery", "calibrate"] and "index more" in captured.err
        assert code == 0 or too_few, (words, captured.err)
        if words[-2:] == ["--html", "found.html"]:
            check_page(footage / "found.html")
        if words[0] == "gallery" and words[1] == "sources":
            # A purge takes the people of 2026-03-01 as soon as that is 30 days ago; what follows needs some.
            break
    search, index = python_blocks(PAGE)
    exec(compile(search, "gallery.md", "exec"), {})
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split()[1] == "door" and "door.mp4 1.0 2.5" in lines[0]
    exec(compile(index, "gallery.md", "exec"), {})
    assert capfd.readouterr().out == f"{footage / 'stairs.mp4'} 2 {{}} 0\n"


def check_page(path):
    text = path.read_text()
    assert f"{path.parent.as_uri()}/door.mp4#t=0.0,4.5" in text and "ffplay -autoexit -ss 0.0 -t 4.5" in text
    assert "any more" not in text  # every frame was read again
    assert text.count('class="frame"') == 1 + len(re.findall("<article", text))


def test_commands_and_links_exist():
    assert_commands_exist(PAGE)
    for name in ("gallery.md", "responsible-use.md"):
        text = (DOCS / name).read_text(encoding="utf-8")
        assert_links_lead_somewhere(text, DOCS)
        for words in re.findall(r"`psarm gallery ([a-z-]+)", text):
            assert run(["gallery", words, "--help"]) == 0
