import io

import pytest
from rich.console import Console

from psarm.benchmarks import BenchReport, BenchSettings, Row, print_report
from psarm.benchmarks.facts import DatasetFacts, Facts
from psarm.benchmarks.table import print_metrics
from psarm.benchmarks.timing import Timing
from psarm.machine import Machine
from psarm.runtime.timing import STAGES

SEARCH = {"mAP": 0.5, "top1": 0.75, "top5": 0.8, "top10": 0.9}


def metrics(map_):
    search = {**SEARCH, "mAP": map_}
    groups = ("search", "search_cbgm", "search_cross_camera", "search_gt_boxes")
    return {"detection": {"recall": 0.95, "ap": 0.875}, **dict.fromkeys(groups, search)}


@pytest.fixture
def report():
    stages = dict(zip(STAGES, [1.0, 50.0, 2.0, 40.0, 7.0], strict=True))
    rows = [
        Row("PyTorch", "fp32", "CPU, 2 threads", 10_400_000, "", metrics(0.5), Timing(None, 200, 210, 3, 30)),
        Row("onnxruntime", "fp32", "CPU, 2 threads", 9_300_000, "", metrics(0.4925), Timing(stages, 100, 110, 3, 30)),
        Row("openvino", "int8", failure="this version has [no] such backend"),
    ]
    machine = Machine("Linux", "Some CPU", 2, 2, 2**33, ("A GPU",), "")
    versions = {"psarm": "0.1.0", "python": "3.11", "torch": None, "onnxruntime": "1", "numpy": "2", "opencv": "4"}
    data = DatasetFacts("prw", "/data/prw", 100, 20, ["960x540", "640x360"], 3.5, "100")
    facts = Facts("2026-01-01T00:00:00+00:00", "abc1234", machine, 2, versions, data)
    settings = BenchSettings(data_root="/data/prw", bundle="b", cbgm=True, cross_camera=True, gt_boxes=True)
    return BenchReport(settings, facts, rows)


def printed(report, **console):
    file = io.StringIO()
    print_report(report, Console(file=file, highlight=False, **console))
    return file.getvalue()


def row_of(text, name):
    return next(line for line in text.splitlines() if line.strip().startswith(name)).split()


def test_a_pipe_gets_one_table_whatever_its_width(report):
    text = printed(report, width=40)
    search = ["49.2", "75.0"] * 4  # 49.25 rounds to even
    assert row_of(text, "onnxruntime") == [
        *("onnxruntime", "✅", "CPU", "fp32", "9.3", *search, "87.5", "95.0", "-0.75"),
        *("1.0", "50.0", "2.0", "40.0", "7.0", "100.0", "10.0", "×2.00"),
    ]
    assert row_of(text, "PyTorch")[-9:] == ["–", *["–"] * 5, "200.0", "5.0", "–"]
    assert row_of(text, "openvino")[:4] == ["openvino", "❌", "–", "int8"]
    assert "…" not in text


def test_facts_and_failures_stand_below(report):
    text = printed(report, width=200)
    for fact in (
        "❌ openvino int8: this version has [no] such backend",
        "100 gallery frames of 960x540 and 640x360, 3.5 people in a frame (median), 20 queries, default gallery 100",
        "medians over 30 gallery frames",
        "2 CPU threads each",
        "Some CPU, 2 cores, 8.0 GiB, Linux, A GPU",
        "psarm 0.1.0, python 3.11, onnxruntime 1, numpy 2, opencv 4; 2026-01-01T00:00:00+00:00, commit abc1234",
    ):
        assert fact in text


@pytest.mark.parametrize("width", [70, 90, 130])
def test_a_narrow_terminal_gets_several_tables_that_fit(report, width):
    text = printed(report, width=width, force_terminal=True, color_system=None, no_color=True)
    heads, tables = text.splitlines(), text.count("PyTorch")
    assert tables > 1
    table_lines = [line for line in heads if line.strip().startswith(("PyTorch", "onnxruntime", "openvino"))]
    assert len(table_lines) == 3 * tables
    assert all(len(line) <= width and "…" not in line for line in table_lines)
    cells = [cell for line in table_lines if "onnxruntime" in line for cell in line.split()[4:]]
    assert len(cells) == 20


def test_only_what_was_asked_for_is_a_column(report):
    plain = BenchReport(BenchSettings(data_root="/d", bundle="b"), report.facts, report.rows[1:2])
    text = printed(plain, width=200)
    assert row_of(text, "onnxruntime")[4:9] == ["9.3", "49.2", "75.0", "87.5", "95.0"]
    assert not any(word in text for word in ("CBGM", "GT boxes", "other cam.", "ΔmAP", "speed"))


def test_every_gallery_is_two_columns_and_two_more_with_cbgm(report):
    row = report.rows[1]
    row.metrics |= {"search_50": {**SEARCH, "mAP": 0.625}, "search_50_cbgm": {**SEARCH, "mAP": 0.375}}
    options = {"data_root": "/d", "bundle": "b", "gallery_sizes": ("50", "full", "50")}
    text = printed(BenchReport(BenchSettings(**options), report.facts, [row]), width=200)
    assert row_of(text, "onnxruntime")[4:12] == ["9.3", "49.2", "75.0", "62.5", "75.0", "–", "–", "87.5"]
    assert text.count("gallery 50") == text.count("gallery full") == 2 and "CBGM" not in text
    text = printed(BenchReport(BenchSettings(**options, cbgm=True), report.facts, [row]), width=250)
    assert row_of(text, "onnxruntime")[7:13] == ["49.2", "75.0", "62.5", "75.0", "37.5", "75.0"]
    assert text.count("gallery 50") == 4


def test_the_command_repeats_the_galleries():
    settings = BenchSettings(data_root="/d", bundle="b", dataset="cuhk-sysu", gallery_sizes=("50", "-1"), cbgm=True)
    command = "psarm bench b --dataset cuhk-sysu --data-root /d --gallery-size 50 --gallery-size -1 --cbgm --frames 30"
    assert settings.command() == command


def test_metrics_of_every_gallery_are_named():
    groups = ["search", "search_cbgm", "search_50", "search_50_cbgm", "search_full", "search_cross_camera"]
    metrics = {group: {**SEARCH, "mAP": 0.01 * place} for place, group in enumerate(groups)}
    file = io.StringIO()
    print_metrics({"detection": {"recall": 0.95, "ap": 0.875}, **metrics}, Console(file=file, width=80))
    names = [
        "search",
        "search with CBGM",
        "search in gallery 50",
        "search in gallery 50 with CBGM",
        "search in gallery full",
        "search in other cameras",
    ]
    rows = [" ".join(line.split()) for line in file.getvalue().splitlines()]
    for place, name in enumerate(names):
        assert f"{name} {place}.0 75.0 80.0 90.0" in rows


def test_metrics_of_a_detections_file():
    file = io.StringIO()
    print_metrics({"detection": {"recall": 0.95, "ap": 0.875}, "search": SEARCH}, Console(file=file, width=80))
    assert row_of(file.getvalue(), "search") == ["search", "50.0", "75.0", "80.0", "90.0"]
    assert "Detection: AP 87.5 %, recall 95.0 %" in file.getvalue()
    assert "CBGM" not in file.getvalue()
