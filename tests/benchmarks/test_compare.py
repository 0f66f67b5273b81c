import copy
import io
import json

import pytest
from rich.console import Console

from psarm.benchmarks.compare import compare_reports, print_comparison, read_report
from psarm.errors import DataError, UsageError

ROW = {
    "name": "openvino",
    "precision": "fp32",
    "failure": "",
    "workload": {"batch": 1, "people": None, "size": None},
    "metrics": {"search": {"mAP": 0.6, "top1": 0.0}},
    "timing": {"total_ms": 100.0, "p95_ms": 120.0},
    "fresh_process": {"cold_start_ms": 1000.0, "memory_bytes": 10**9, "gpu_memory_bytes": None},
}
MACHINE = {"cpu": "A", "cores": 2}
DATA = {"name": "prw", "queries": 4}


def report(*rows, **changes):
    value = {"schema": 2, "rows": list(rows), "machine": MACHINE, "threads": 2, "dataset": DATA, **changes}
    return copy.deepcopy(value)


def row(**changes):
    value = copy.deepcopy(ROW)
    for path, new in changes.items():
        *folders, key = path.split("__")
        place = value
        for folder in folders:
            place = place[folder]
        place[key] = new
    return value


def worse(old, new, threshold=1.1):
    return [(one.measure, round(one.worse, 3)) for one in compare_reports(old, new).regressions(threshold)]


def test_slower_larger_and_less_accurate_are_regressions():
    old = report(row())
    assert worse(old, old) == []
    assert worse(old, report(row(timing__total_ms=111))) == [("ms an image", 1.11)]
    assert worse(old, report(row(timing__total_ms=110))) == []
    assert worse(old, report(row(timing__total_ms=50, metrics__search__mAP=0.5))) == [("mAP, %", 1.2)]
    assert worse(old, report(row(metrics__search__mAP=0.0))) == [("mAP, %", float("inf"))]
    assert worse(old, report(row(fresh_process__memory_bytes=2 * 10**9)), 1.5) == [("memory, MB", 2.0)]
    assert worse(old, report(row(fresh_process=None))) == []


def test_rows_are_matched_by_engine_precision_and_workload():
    first, second = row(), row(workload__batch=4, timing__total_ms=80.0)
    found = compare_reports(report(first, second), report(second, row(precision="int8")))
    assert {change.row for change in found.changes} == {"openvino fp32, batch 4"}
    assert found.unmatched == ["openvino fp32: only in the old report", "openvino int8: only in the new report"]
    with pytest.raises(UsageError, match="no row in common"):
        compare_reports(report(first), report(second))


def test_a_report_without_workloads_is_frame_by_frame():
    old = row()
    del old["workload"]
    assert len(compare_reports(report(old), report(row(), row(workload__batch=2))).changes) > 3


def test_a_row_that_no_longer_runs_is_broken():
    found = compare_reports(report(row()), report(row(failure="It broke.", timing=None, metrics={})))
    assert found.broken == ["openvino fp32: It broke."]
    assert compare_reports(report(row(failure="x")), report(row(failure="x"))).broken == []


def test_other_machines_data_and_threads_are_told():
    other = report(row(), machine={"cpu": "B", "cores": 2}, threads=4, dataset={"name": "prw", "queries": 5})
    said = printed(compare_reports(report(row()), other))
    for words in ("Another machine", "cpu A → B", "Another data", "queries 4 → 5", "Another run", "threads 2 → 4"):
        assert words in said
    assert "cores" not in said and compare_reports(report(row()), report(row())).differences == []


def printed(comparison):
    file = io.StringIO()
    print_comparison(comparison, 1.1, Console(file=file, width=80))
    return file.getvalue()


def test_figures_are_written_as_bench_writes_them():
    old = row(timing__total_ms=1318.04, metrics__search__mAP=0.7414, fresh_process__memory_bytes=900_000)
    lines = [" ".join(line.split()) for line in printed(compare_reports(report(old), report(row()))).splitlines()]
    for line in (
        "openvino fp32 ms an image 1318.0 100.0 ×0.08",
        "openvino fp32 cold start, ms 1000.0 1000.0 ×1.00",
        "openvino fp32 memory, MB 1 1000 ×1111.11 ❌",
        "openvino fp32 mAP, % 74.1 60.0 ×0.81 ❌",
    ):
        assert line in lines


def test_unsettled_times_are_told():
    new = row(timing__unsettled="p95 of a call is 3.0 times its median")
    words = "⚠ Unsettled times in the new report: openvino fp32 (p95 of a call is 3.0 times its median).\n"
    assert words in printed(compare_reports(report(row()), report(new)))
    assert "Unsettled" not in printed(compare_reports(report(row(timing__unsettled=None)), report(row(timing=None))))


@pytest.mark.parametrize("content", ["{", "[]", '{"detection": {}}'])
def test_what_is_no_report(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a\.json .*psarm bench BUNDLE --json"):
        read_report(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": {}}, "rows is a JSON object"),
        ({"rows": [{}]}, r"rows\[0\] has no text name"),
        ({"rows": [ROW, 3]}, r"rows\[1\] is a JSON number"),
        ({"rows": [{**ROW, "failure": None}]}, "has no text failure"),
        ({"rows": [{**ROW, "workload": [1]}]}, "has a workload that is no batch"),
        ({"rows": [{**ROW, "workload": {"batch": "1"}}]}, "has a workload that is no batch"),
        ({"rows": [{**ROW, "timing": {"total_ms": "fast"}}]}, "as timing.total_ms"),
        ({"rows": [{**ROW, "timing": 5}]}, "as timing.total_ms"),
        ({"rows": [{**ROW, "metrics": {"search": [0.5]}}]}, "as metrics.search.mAP"),
        ({"machine": []}, "machine is a JSON array"),
        ({"dataset": None}, "dataset is a JSON null"),
    ],
)
def test_a_damaged_report_is_told(tmp_path, changes, words):
    (tmp_path / "a.json").write_text(json.dumps({**report(row()), **changes}))
    with pytest.raises(DataError, match=rf"a\.json is a damaged report .*{words}"):
        read_report(tmp_path / "a.json")


def test_what_was_not_measured_can_be_read(tmp_path):
    empty = row(timing=None, metrics={}, fresh_process=None, failure="It broke.")
    for value in (report(row()), report(empty), report({key: ROW[key] for key in ("name", "precision", "failure")})):
        (tmp_path / "a.json").write_text(json.dumps(value))
        assert read_report(tmp_path / "a.json") == value


def test_committed_reports_can_be_read():
    from psarm.benchmarks.readme_table import ROOT

    demo = read_report(ROOT / "benchmarks/results/demo.json")
    assert compare_reports(demo, json.loads(json.dumps(demo))).regressions(1) == []
