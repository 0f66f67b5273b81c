"""The synthetic cases that the metrics are timed on, in small."""

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner

from psarm.benchmarks import evaluation_speed
from psarm.benchmarks.evaluation_speed import CASES, metric_runs, synthetic_case
from psarm.evaluation import evaluate_search

SMALL = {
    name: dataclasses.replace(size, queries=30, frames=60, identities=25, galleries=tuple(g // 20 for g in sizes))
    for (name, size), sizes in zip(CASES.items(), [(), (100, 400)], strict=True)
}


@pytest.mark.parametrize("name", SMALL)
def test_cases_can_be_searched(name):
    size = SMALL[name]
    case = synthetic_case(size)
    assert len(case.queries) == 30 and case.protocol.cbgm == CASES[name].cbgm
    assert len(set(case.protocol.query_identities)) >= 15
    assert len({tuple(box) for box in case.protocol.query_boxes}) == 30
    np.testing.assert_array_equal(case.context.embeddings[case.context.offsets[:-1]], case.queries)
    for gallery, lists in case.protocol.galleries.items():
        assert [len(set(images)) for images in lists] == [int(gallery)] * 30
    assert 0.05 < evaluate_search(case.protocol, case.detections, case.queries).mAP < 1


def test_every_metric_is_timed():
    assert list(metric_runs(synthetic_case(SMALL["prw"]))) == [
        *("detection", "search_full", "search_full_cbgm", "search_cross_camera")
    ]
    assert list(metric_runs(synthetic_case(SMALL["cuhk-sysu"]))) == [
        *("detection", "search_5", "search_5_cbgm", "search_20", "search_20_cbgm", "search_full", "search_full_cbgm")
    ]


def test_the_report_holds_every_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation_speed, "CASES", SMALL)
    path = tmp_path / "speed.json"
    result = CliRunner().invoke(evaluation_speed.main, ["--repeats", "2", "--json", str(path)])
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert list(report["cases"]) == ["prw", "cuhk-sysu"]
    for case in report["cases"].values():
        assert case["case"]["queries"] == 30
        assert set(case["median_seconds"]) == set(case["median_cpu_seconds"]) == set(case["seconds"])
        assert all(len(values) == 2 for values in case["seconds"].values())
