"""Tables on a terminal of 80 columns."""

from datetime import UTC, datetime
from functools import partial
from io import StringIO
from types import SimpleNamespace

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from psarm.cli import index_display
from psarm.cli.gallery_info import _sources_table
from psarm.cli.gallery_search import _table as hits_table
from psarm.cli.narrow_tables import print_fitting, shortened
from psarm.runtime.gallery.records import FrameHit, Source, SourceInfo, SourceProgress, VisitHit
from psarm.runtime.indexing.accounting import SourceReport

PATH = "/home/someone/videos/of/the/city/centre/2026-03-01/hall/recordings/clip.mp4"
TIME = datetime(2026, 3, 1, 12, tzinfo=UTC)


def printed(build):
    file = StringIO()
    print_fitting(build, Console(file=file, width=80, force_terminal=True, color_system=None))
    lines = file.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= 80
    return lines


def sources(name, reasons):
    progress = SourceProgress(1, 1, 123456, 12, 23456, reasons, False, 1)
    return [SourceInfo(Source(name, "hall", "video", start=TIME, planned=200000), TIME, progress)]


def hits(frames):
    visit, box = 1 << 32 | 17, np.full(4, 1200, np.float32)
    if frames:
        return [FrameHit(PATH, "hall", 5, 0, 1.0, TIME, visit, 0.7, 0.8, box)]
    return [VisitHit(visit, PATH, "hall", TIME, TIME, 0, 9, 0.0, 75.0, 5, 0.7, 0.8, 1, box, None)]


def found(frames):
    search = SimpleNamespace(frames=frames)
    calibration = None if frames else SimpleNamespace(threshold=0.8)
    return SimpleNamespace(search=search, calibration=calibration, hits=hits(frames), unlikely=lambda hit: not frames)


REPORT = SourceReport(PATH, "hall", 123456, 1234, {"damaged": 10}, 12345, 345, new=1000, seconds=23)


@pytest.mark.parametrize(
    ("build", "whole"),
    [
        (
            partial(_sources_table, sources(PATH, {"damaged": 10, "cut off": 2})),
            ["indexed", "to do", "123,456", "23,456", "76,532", "2 cut off"],
        ),
        (partial(hits_table, found(False)), ["rank", "0.700", "1 min 15 s", "1-17", "probably", "not a", "match"]),
        (partial(hits_table, found(True)), ["0.700", "1200,1200,1200,1200", "1-17"]),
        (partial(index_display._table, [REPORT]), ["indexed", "frames/s", "123456", "122212", "43.5", "10 damaged"]),
    ],
)
def test_numbers_stay_whole_and_paths_lose_their_beginning(build, whole):
    lines = printed(build)
    assert all(any(text in line for line in lines) for text in whole)
    assert sum("clip.mp4" in line and "…" in line for line in lines) == 1 and "index…" not in "".join(lines)


def test_what_fits_is_printed_whole():
    lines = printed(partial(_sources_table, sources("/a.mp4", {})))
    assert any("│ /a.mp4 │" in line for line in lines)


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (99, "/videos/hall/clip.mp4"),
        (20, "…/hall/clip.mp4"),
        (15, "…/hall/clip.mp4"),
        (14, "…/clip.mp4"),
        (6, "…p.mp4"),
    ],
)
def test_shortened(width, text):
    assert shortened("/videos/hall/clip.mp4", width) == text


def test_progress_keeps_its_numbers(monkeypatch):
    file = StringIO()
    monkeypatch.setattr("psarm.console.err", Console(file=file, width=80, force_terminal=True, color_system=None))
    monkeypatch.setattr(index_display, "err", Console(file=file, width=80))
    display = index_display.IndexProgress(alone=True)
    with display:
        display.change(REPORT)
    assert "…/clip.mp4 " in file.getvalue() and " 1244/123456 –/s 0:00:00 eta -:--:--" in file.getvalue()


def test_a_refused_source_is_not_shown_as_empty(capsys):
    refused = SourceReport(PATH, "hall", None, error="It is another file.")
    index_display.print_reports([refused], "street", [], as_json=False)
    assert capsys.readouterr().out == ""
    index_display.print_reports([refused, REPORT], "street", [], as_json=False)
    assert capsys.readouterr().out.count("clip.mp4") == 1
