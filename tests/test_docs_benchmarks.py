"""docs/benchmarks.md names options that exist and every key of the JSON."""

import re
from dataclasses import fields
from pathlib import Path

from documents import assert_commands_exist, assert_links_lead_somewhere

from psarm.benchmarks.fresh_process import FreshProcess
from psarm.benchmarks.growth_curves import GrowthCurve, GrowthPoint
from psarm.benchmarks.report import BenchReport, Row
from psarm.benchmarks.roofline import Roofline
from psarm.benchmarks.timing import Timing

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "benchmarks.md").read_text(encoding="utf-8")


def test_commands_options_and_links():
    assert_commands_exist(PAGE)
    assert_links_lead_somewhere(PAGE, DOCS)


def test_every_key_of_the_json_is_told():
    told = set(re.findall(r"`(\w+?)(?:\[\])?`", PAGE))
    row = BenchReport._row(BenchReport(None, None, []), Row("x"))
    parts = {
        field.name for part in (FreshProcess, GrowthCurve, GrowthPoint, Roofline, Timing) for field in fields(part)
    }
    assert {*row, *parts, "schema", "command", "date", "commit", "machine", "threads", "versions", "dataset"} <= told
    assert {"rows", "growth", "notes", "points"} <= told
