"""The synthetic cases that the metrics are timed on, in small."""

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner

from psarm.benchmarks import evaluation_speed
from psarm.benchmarks.evaluation_speed import CASES, search_options, synthetic_case
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


def test_every_search_is_timed():
    assert list(search_options(synthetic_case(SMALL["prw"]))) == [
        *("search_full", "search_full_cbgm", "search_cross_camera")
    ]
    assert list(search_options(synthetic_case(SMALL["cuhk-sysu"]))) == [
        *("search_5", "search_5_cbgm", "search_20", "search_20_cbgm", "search_full", "search_full_cbgm")
    ]


def test_the_galleries_say_where_the_person_is():
    case = synthetic_case(SMALL["cuhk-sysu"])
    protocol, located = case.protocol, 0
    for gallery, lists in protocol.galleries.items():
        for query, (images, person) in enumerate(zip(lists, protocol.located[gallery], strict=True)):
            assert protocol.query_names[query] not in [protocol.gallery_names[image] for image in images]
            for item, box in zip(person.items, person.boxes, strict=True):
                rows = protocol.gt_images == images[item]
                [identity] = protocol.gt_identities[rows][
                    (protocol.gt_boxes[rows].astype(np.float32) == box).all(axis=1)
                ]
                assert identity == protocol.query_identities[query]
                located += 1
    assert located > 30


def test_the_report_compares_with_the_literal_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation_speed, "CASES", SMALL)
    path = tmp_path / "speed.json"
    result = CliRunner().invoke(evaluation_speed.main, ["--repeats", "2", "--literal", "3", "--json", str(path)])
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert list(report["cases"]) == ["prw", "cuhk-sysu"] and report["literal_queries"] == 6
    for name, case in report["cases"].items():
        assert case["case"]["queries"] == 30 and len(case["detection_seconds"]) == 2
        assert list(case["searches"]) == list(search_options(synthetic_case(SMALL[name])))
        for search in case["searches"].values():
            for figures in ("seconds", "cpu_seconds", "literal_seconds", "literal_cpu_seconds", "ratios", "cpu_ratios"):
                assert len(search[figures]) == 2
            assert search["difference"] == {
                "average_precision": pytest.approx(0, abs=1e-9),
                "queries_with_another_rank": 0,
            }


def test_without_the_literal_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation_speed, "CASES", SMALL)
    path = tmp_path / "speed.json"
    options = ["--repeats", "1", "--literal", "0", "--case", "prw", "--json", str(path)]
    result = CliRunner().invoke(evaluation_speed.main, options)
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert list(report["cases"]) == ["prw"] and "ratios" not in report["cases"]["prw"]["searches"]["search_full"]
