import dataclasses
import io

import pytest
from rich.console import Console

from psarm.benchmarks import BenchReport, BenchSettings, Row, print_report
from psarm.benchmarks.ceilings import Ceiling
from psarm.benchmarks.facts import DatasetFacts, Facts
from psarm.benchmarks.fresh_process import FreshProcess
from psarm.benchmarks.growth_curves import GrowthCurve, GrowthPoint
from psarm.benchmarks.page.bench import bench_page
from psarm.benchmarks.roofline import Roofline
from psarm.benchmarks.table import print_metrics
from psarm.benchmarks.timing import Timing
from psarm.benchmarks.workloads import Workload
from psarm.machine import Machine
from psarm.runtime.timing import STAGES

SEARCH = {"mAP": 0.5, "top1": 0.75, "top5": 0.8, "top10": 0.9}
STAGES_MS = dict(zip(STAGES, [1.0, 50.0, 2.0, 40.0, 7.0], strict=True))


def metrics(map_):
    search = {**SEARCH, "mAP": map_}
    groups = ("search", "search_cbgm", "search_cross_camera", "search_gt_boxes")
    return {"detection": {"recall": 0.95, "ap": 0.875}, **dict.fromkeys(groups, search)}


def timing(stages, ms, batch=1):
    return Timing(stages, ms, batch * ms, batch * ms + 10, batch * ms + 20, 3, 30)


@pytest.fixture
def report():
    fresh = FreshProcess(200.0, 34.0, 321_000_000, None)
    roofline = Roofline(0.625, 56.25, "arithmetic", 4.5, 80, Ceiling(80, 12, "products of numbers"))
    rows = [
        Row("PyTorch", "fp32", "CPU, 2 threads", 10_400_000, "", metrics(0.5), timing=timing(None, 200)),
        Row(
            *("onnxruntime", "fp32", "CPU, 2 threads", 9_300_000, "", metrics(0.4925)),
            timing=timing(STAGES_MS, 100),
            fresh=fresh,
            roofline=roofline,
        ),
        Row(
            *("onnxruntime", "fp32", "CPU, 2 threads", 9_300_000, "", metrics(0.4925)),
            workload=Workload(4),
            timing=timing(STAGES_MS, 80, 4),
        ),
        Row("openvino", "int8", failure="this version has [no] such backend"),
    ]
    machine = Machine("Linux", "Some CPU", 2, 2, 2**33, ("A GPU",), "")
    versions = {"psarm": "0.1.0", "python": "3.11", "torch": None, "onnxruntime": "1", "numpy": "2", "opencv": "4"}
    data = DatasetFacts("prw", "/data/prw", 100, 20, ["960x540", "640x360"], 3.5, "100")
    facts = Facts("2026-01-01T00:00:00+00:00", "abc1234", machine, 2, versions, data)
    settings = BenchSettings(data_root="/data/prw", bundle="b", cbgm=True, cross_camera=True, gt_boxes=True)
    return BenchReport(settings, facts, rows, notes=["No roofline of a <thing>: why."])


def printed(report, **console):
    file = io.StringIO()
    print_report(report, Console(file=file, highlight=False, **console))
    return file.getvalue()


def rows_of(text, name):
    return [line.split() for line in text.splitlines() if line.strip().startswith(name)]


def test_accuracy_stands_once_for_an_engine_and_speed_in_every_row(report):
    accuracy, first, batch, where, *_ = rows_of(printed(report, width=200), "onnxruntime")
    assert accuracy == ["onnxruntime", "fp32", "✅", "49.2", "75.0", "87.5", "-0.75"]  # 49.25 rounds to even
    assert first == ["onnxruntime", "fp32", "✅", "100.0", "110.0", "10.0", "×2.00", "321"]
    assert batch[:7] == ["onnxruntime", "fp32,", "batch", "4", "✅", "80.0", "330.0"]
    assert where == ["onnxruntime", "fp32", "✅", "1.0", "50.0", "2.0", "40.0", "7.0", "234", "62%"]
    failed = rows_of(printed(report, width=200), "openvino")
    assert failed == [["openvino", "int8", "❌", *["–"] * count] for count in (4, 5)]


def test_accuracy_is_that_of_a_row_that_runs(report):
    failed = dataclasses.replace(report.rows[1], failure="too few people", workload=Workload(people=900), timing=None)
    report.rows.insert(1, failed)
    assert rows_of(printed(report, width=200), "onnxruntime")[0][:4] == ["onnxruntime", "fp32", "✅", "49.2"]


def test_other_searches_stand_once_for_an_engine(report):
    lines = rows_of(printed(report, width=200), "onnxruntime fp32  search")
    assert [" ".join(line[2:]) for line in lines] == [
        "search with CBGM 49.2 75.0 80.0 90.0",
        "search in other cameras 49.2 75.0 80.0 90.0",
        "search among ground-truth boxes 49.2 75.0 80.0 90.0",
    ]


def test_facts_notes_and_failures_stand_below(report):
    text = printed(report, width=200)
    for fact in (
        "❌ openvino int8: this version has [no] such backend",
        "No roofline of a <thing>: why.",
        "100 gallery frames of 960x540 and 640x360, 3.5 people in a frame (median), 20 queries, default gallery 100",
        "medians over 30 gallery frames",
        "2 CPU threads each",
        "Some CPU, 2 cores, 8.0 GiB, Linux, A GPU",
        "psarm 0.1.0, python 3.11, onnxruntime 1, numpy 2, opencv 4; 2026-01-01T00:00:00+00:00, commit abc1234",
    ):
        assert fact in text


def test_every_table_fits_80_columns_and_breaks_no_word(report):
    work = Workload(32, 300, (1920, 1080))
    long = dataclasses.replace(report.rows[1], name="onnxruntime_tensorrt", workload=work)
    report.rows.append(dataclasses.replace(long, timing=timing(STAGES_MS, 1234.5, 32)))
    text = printed(report, width=80, force_terminal=True, color_system=None, no_color=True)
    tables, _, below = text.partition("⚠ Unsettled")
    tables = tables.splitlines()
    assert below.count("(the stages add up to 8% of the time)") == 1 and below.index("add up") < below.index("❌")
    assert len(tables) > 25
    assert all(len(line) <= 80 and "…" not in line for line in tables)
    words = {word.rstrip(",") for line in tables for word in line.split()}
    assert {"onnxruntime_tensorrt", "fp32", "1920x1080", "1234.5", "39514.0"} <= words


def test_only_what_was_asked_for_is_a_column(report):
    plain = BenchReport(BenchSettings(data_root="/d", bundle="b"), report.facts, report.rows[2:3])
    text = printed(plain, width=200)
    assert rows_of(text, "onnxruntime")[0][3:] == ["49.2", "75.0", "87.5"]
    assert not any(word in text for word in ("other cameras", "ΔmAP", "speed", "  cold", "  roof", " MB "))


def test_speed_is_told_on_the_same_frames_only(report):
    torch, one, batch, _ = report.rows
    assert [report.speed_up(row) for row in (torch, one, batch)] == [None, 2.0, 2.5]
    others = [Row("onnxruntime", "fp32", workload=Workload(people=9), timing=timing(None, 1))]
    others.append(Row("onnxruntime", "fp32", workload=Workload(size=(9, 9)), timing=timing(None, 1)))
    whole = BenchReport(report.settings, report.facts, report.rows + others)
    assert [whole.speed_up(row) for row in others] == [None, None]


def test_curves_are_printed(report):
    points = [GrowthPoint(1, "1", 10.0, 11.0), GrowthPoint(2, "2", failure="no [memory].")]
    report.growth.append(GrowthCurve("batch", "onnxruntime fp32", "weights are shared", points))
    lines = printed(report, width=80).partition("Growing batch: onnxruntime fp32, ms")[2].splitlines()
    assert [line.split() for line in lines[4:6]] == [["1", "10.0", "11.0"], ["2", "–", "–", "no", "[memory]."]]


def test_the_page_has_rows_plots_and_reasons(report):
    points = [GrowthPoint(1, "1", 10.0, 10.0), GrowthPoint(2, "2", 12.0, 10.0), GrowthPoint(4, "4", 9.0)]
    points.append(GrowthPoint(8, "8", failure="no <memory>."))
    report.growth.append(GrowthCurve("batch", "onnxruntime fp32", "weights are shared", points))
    text = bench_page(report)
    assert text.count("<svg") == 2 and "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text
    for words in (
        "<li>openvino int8: this version has [no] such backend</li>",
        "<li>No roofline of a &lt;thing&gt;: why.</li>",
        ">frames in a batch</text>",
        ">ms an image</text>",
        "The model: weights are shared. Measured is 1.00 to 1.20 times the prediction. "
        "Left out: onnxruntime fp32: 8 (no &lt;memory&gt;).",
        "Not comparable.",
        "80 GMACs a second in products of numbers",
        "commit abc1234",
        "onnxruntime fp32, batch 4",
    ):
        assert words in text, words


def on(report, **changes):
    """The same on other data."""
    data = dataclasses.replace(report.facts.dataset, **changes)
    return dataclasses.replace(report, facts=dataclasses.replace(report.facts, dataset=data))


def test_published_figures_stand_beside_those_of_the_same_test_set_only(report):
    words = (
        "SeqNet 47.6 % at 11.5 FPS on a V100",
        "with CBGM. Speeds on other machines do not compare.",
        "SeqNet (published, V100)</text>",
        "PS-ARM (published, without a speed)</text>",
        "Dotted: PS-ARM 52.6 %, published without a speed.",
        "Fig. 1 of PS-ARM (Fiaz et al., ACCV 2022) gives other speeds",
        "published</span> marks figures quoted from print",
    )
    real = {"gallery_frames": 6112, "queries": 2057}
    whole, few, drawn = (bench_page(on(report, **now)) for now in (real, {}, {**real, "drawn": True}))
    for one in words:
        assert one in whole and one not in few and one not in drawn, one
    assert "Not comparable." not in whole and "Nothing" not in whole
    for page in (few, drawn):
        assert "Not comparable." in page and page.count("<svg") == 1 and "SeqNet" not in page
        assert "Everything was measured by psarm" in page


def test_drawn_data_is_called_so(report):
    drawn = on(report, drawn=True)
    page = bench_page(drawn)
    assert "<h1>psarm bench on drawn data in the format of PRW: PyTorch fp32, onnxruntime fp32</h1>" in page
    assert "drawn by psarm data synth: the figures say nothing of PRW." in page
    assert "Data: prw (drawn by psarm data synth) at /data/prw: 100 gallery" in printed(drawn, width=200)
    assert drawn.to_dict()["dataset"]["drawn"] and "drawn" not in printed(report, width=200)
    assert "<h1>psarm bench on PRW: " in bench_page(report)


def test_unsettled_rows_are_told(report):
    line = (
        "⚠ Unsettled, run again on an idle machine or with more --frames: onnxruntime fp32, batch 4 "
        "(p95 of a call is 3.0 times its median)."
    )
    assert line not in printed(report, width=80) and line not in bench_page(report)
    row = report.rows[2]
    row.timing = dataclasses.replace(row.timing, p95_ms=3 * row.timing.p50_ms)
    assert f"{line}\n" in printed(report, width=80) and f"<li>{line}</li>" in bench_page(report)
    timings = [one["timing"]["unsettled"] for one in report.to_dict()["rows"] if one["timing"]]
    assert timings == [None, None, "p95 of a call is 3.0 times its median"]


def test_a_thread_alone_is_one(report):
    alone = dataclasses.replace(report, facts=dataclasses.replace(report.facts, threads=1))
    for text in (bench_page(alone), printed(alone, width=80)):
        assert "1 CPU thread" in text and "1 threads" not in text and "1 CPU threads" not in text


def test_no_table_of_the_page_is_wide(report):
    heads = [part.partition("</thead>")[0].count("<th ") for part in bench_page(report).split("<thead>")[1:]]
    assert heads[:3] == [10, 8, 4]  # rows, stages, costs; nobody measured GPU memory
    quick = dataclasses.replace(report, rows=report.rows[2:3])
    quick.rows[0].size_bytes = None
    assert "Start, memory and size" not in bench_page(quick) and "cold start, ms" in bench_page(report)


def test_a_page_of_failures_alone(report):
    text = bench_page(BenchReport(report.settings, report.facts, report.rows[-1:]))
    assert "this version has [no] such backend" in text and "<svg" not in text


def test_the_command_repeats_the_galleries_and_workloads():
    settings = BenchSettings(data_root="/d", bundle="b", dataset="cuhk-sysu", gallery_sizes=("50", "-1"), cbgm=True)
    command = "psarm bench b --dataset cuhk-sysu --data-root /d --gallery-size 50 --gallery-size -1 --cbgm --frames 30"
    assert settings.command() == command
    settings = BenchSettings("/d", "b", batches=(1, 2), people=(0, None), image_sizes=((64, 32),), growth=("size",))
    words = "--batch 1 --batch 2 --people 0 --image-size 64x32 --growth size --frames 30"
    assert settings.command().endswith(words)
    assert len(settings.workloads()) == 4


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
    assert rows_of(file.getvalue(), "search") == [["search", "50.0", "75.0", "80.0", "90.0"]]
    assert "Detection: AP 87.5 %, recall 95.0 %" in file.getvalue()
    assert "CBGM" not in file.getvalue()
