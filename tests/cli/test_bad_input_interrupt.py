"""Ctrl-C, the real signal, while a command reads: one clean sentence and no output."""

import os
import signal
import subprocess
import sys

import cv2
import pytest
import toy_bundle as toy
from toy_prw import write_toy_prw

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm")


@pytest.fixture
def root(tmp_path):
    """A data set of which one test frame is a pipe: who reads it waits for as long as we want."""
    root = write_toy_prw(tmp_path / "prw", gallery=3, queries=1)
    pipe = root / "frames" / "c2s1_000003.jpg"
    pipe.unlink()
    os.mkfifo(pipe)
    return root


@pytest.mark.parametrize("name", ["search", "bench", "data check"])
def test_ctrl_c(bundle, root, tmp_path, name):
    query, out = tmp_path / "query.png", tmp_path / "out"
    cv2.imwrite(str(query), toy.draw_scene({0: (255, 0, 0)}))
    out.mkdir()
    pipe = root / "frames" / "c2s1_000003.jpg"
    arguments = {
        "search": ["search", bundle, "--query", query, pipe, "--html", out / "page.html"],
        "bench": ["bench", bundle, "--data-root", root, "--json", out / "report.json"],
        "data check": ["data", "check", root, "--contact-sheet", out / "sheet.jpg"],
    }[name]
    command = [sys.executable, "-m", "psarm", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        writer = os.open(pipe, os.O_WRONLY)  # returns when the command has opened it to read
        process.send_signal(signal.SIGINT)
        if name == "data check":
            os.close(writer)  # a thread reads there, and threads finish what they do
        printed, messages = process.communicate()
        if name != "data check":
            os.close(writer)
    assert process.returncode == 130, messages
    assert printed == "" and "Traceback" not in messages
    assert messages.strip().splitlines()[-1] == "Interrupted."
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("lines", [1, 7])
def test_ctrl_c_while_detect_saves(bundle, tmp_path, lines):
    """What was written is whole, and nothing else is there."""
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    scene = cv2.imencode(".png", toy.draw_scene({0: (255, 0, 0)}))[1].tobytes()
    for number in range(300):
        (pictures / f"{number:03}.png").write_bytes(scene)
    command = [sys.executable, "-m", "psarm", "detect", str(bundle), str(pictures), "--save", str(out), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGINT)
        printed, messages = process.communicate()
    assert process.returncode == 130, messages
    assert "Traceback" not in messages and messages.strip().splitlines()[-1] == "Interrupted."
    saved = sorted(out.iterdir())
    assert lines <= len(saved) < 300
    assert [path.name for path in saved] == [f"{number:03}.people.jpg" for number in range(len(saved))]
    assert all(cv2.imread(str(path)) is not None for path in saved)
    assert len(saved) - 1 <= len(first) + len(printed.splitlines()) <= len(saved)
