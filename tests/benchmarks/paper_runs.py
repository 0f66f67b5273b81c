"""Runs of the paper's suite on tiny models, and what a page has to keep to."""

import io
import json
import os
import signal
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from psarm.benchmarks.paper import NamedCheckpoint, PaperSettings, measure
from psarm.benchmarks.paper.work import WorkFolder
from psarm.data.prw import read_prw
from psarm.evaluation import ImageDetections

VOID = {"meta", "img", "br"}


def settings_for(root, out, checkpoints, **changes):
    """`checkpoints`: name → file."""
    named = tuple(NamedCheckpoint(path, name) for name, path in checkpoints.items())
    return PaperSettings(root, named, out, **{"threads": 1, "frames": 1, "examples": 2, **changes})


def accuracy(out):
    """report.json without what no two measurements have in common: speed and dates."""
    report = json.loads((out / "report.json").read_text())
    for key in ("facts", "command", "speed"):
        report.pop(key)
    for checkpoint in report["checkpoints"]:
        checkpoint.pop("timing")
        checkpoint.pop("measured")
    return report


def again(settings, **changes):
    return replace(settings, **changes)


class Colours:
    """An engine that needs no torch: four people a frame, their embeddings the mean colours of their boxes."""

    def detect(self, frame):
        height, width = frame.shape[:2]
        boxes = np.array([[x, 0, x + width / 4, height] for x in np.arange(4) * width / 4], np.float32)
        return ImageDetections(boxes, np.linspace(0.9, 0.6, 4, dtype=np.float32), self.embed(frame, boxes))

    def embed(self, frame, boxes):
        colours = [frame[int(y) : int(b) + 1, int(x) : int(r) + 1].mean((0, 1)) + 1 for x, y, r, b in boxes]
        return (np.array(colours) / np.linalg.norm(colours, axis=1, keepdims=True)).astype(np.float32)

    def detect_around(self, frame, box):
        found = self.detect(frame)
        boxes = np.vstack([np.asarray(box, np.float32)[None], found.boxes])
        return ImageDetections(boxes, np.insert(found.scores, 0, 1), self.embed(frame, boxes))

    def close(self):
        pass


def find(root, out, killed_at=None):
    """`find_people` with `Colours` and three images a part; the process dies half way through write `killed_at`."""
    save, writes = np.savez, []

    def save_or_die(file, **arrays):
        writes.append(file)
        if len(writes) == killed_at:
            whole = io.BytesIO()
            save(whole, **arrays)
            file.write(whole.getvalue()[: whole.tell() // 2])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(file, **arrays)

    if killed_at:
        np.savez, measure.PART = save_or_die, 3
    contender = SimpleNamespace(name="colours", open=lambda threads: Colours())
    with WorkFolder(Path(out)) as work:
        return measure.find_people(contender, read_prw(root), work, {"checkpoint": "colours"}, 1), work


class Page(HTMLParser):
    """Checks tags as it reads: all closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]
