"""Runs of the paper's suite on tiny models, and what a page has to keep to."""

import json
from dataclasses import replace
from html.parser import HTMLParser

from psarm.benchmarks.paper import NamedCheckpoint, PaperSettings

VOID = {"meta", "img", "br"}


def settings_for(root, out, checkpoints, **changes):
    """`checkpoints`: name → file."""
    named = tuple(NamedCheckpoint(path, name) for name, path in checkpoints.items())
    return PaperSettings(root, named, out, **{"threads": 1, "frames": 1, "examples": 2, **changes})


def accuracy(out):
    """report.json without what no two measurements have in common: speed, its date, and what is free memory."""
    report = json.loads((out / "report.json").read_text())
    for key in ("facts", "command"):
        report.pop(key)
    for checkpoint in report["checkpoints"]:
        checkpoint.pop("timing")
    return report


def again(settings, **changes):
    return replace(settings, **changes)


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
