"""Committed figures say what they were measured with."""

import json
from pathlib import Path

import pytest

RESULTS = sorted((Path(__file__).resolve().parents[2] / "benchmarks" / "results").glob("*.json"))
MEASURED_BEFORE = {"annotation_cache", "evaluation_speed", "gallery_spread", "training_cost"}
"""By scripts that did not note date and commit yet; a name leaves when its figures are measured again."""


def lacks(path):
    report = json.loads(path.read_text(encoding="utf-8"))
    wanted = {"command", "date", "commit", "machine", "versions"} - report.keys()
    return wanted - ({"versions"} if "packages" in report else set())


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_carry_machine_versions_command_and_commit(path):
    assert bool(lacks(path)) == (path.stem in MEASURED_BEFORE), lacks(path)


def test_what_was_measured_before_is_there():
    assert {path.stem for path in RESULTS} >= MEASURED_BEFORE
