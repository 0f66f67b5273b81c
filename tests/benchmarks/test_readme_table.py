import json

import pytest
from click.testing import CliRunner

from psarm.benchmarks import readme_table
from psarm.benchmarks.readme_table import ROOT, goals_accuracy_table, goals_table, main, markdown_table, with_tables
from psarm.errors import DataError

MARKED = "Before\n\n<!-- bench: results/a.json -->\nold\n<!-- end of bench -->\nafter\n"


def row(name, precision="fp32", ms=None, failure="", **work):
    timing = ms and {"total_ms": ms, "fps": 1000 / ms, "stages_ms": None}
    metrics = {} if failure else {"search": {"mAP": 0.125, "top1": 0.5}}
    speed = None if name == "PyTorch" or not ms else 100 / ms
    workload = {"batch": 1, "people": None, "size": None, **work}
    shown = {"name": name, "precision": precision, "failure": failure, "metrics": metrics, "timing": timing}
    return {**shown, "speed_up": speed, "workload": workload}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    report = {"schema": 2, "machine": {}, "threads": 1, "dataset": {}, "rows": [row("PyTorch", ms=100.0)]}
    (tmp_path / "results").mkdir()
    (tmp_path / "results/a.json").write_text(json.dumps(report))
    (tmp_path / "README.md").write_text(MARKED)
    monkeypatch.setattr(readme_table, "ROOT", tmp_path)
    return tmp_path


def test_columns_and_rows_are_those_there_are():
    rows = [row("PyTorch", ms=100.0), row("openvino", ms=40.0), row("torch", failure="no"), row("untrained network")]
    assert markdown_table({"rows": rows}).splitlines() == [
        "| engine | mAP | top-1 | total | frames/s | speed |",
        "| --- | --- | --- | --- | --- | --- |",
        "| PyTorch, eager | 12.5 | 50.0 | 100.0 | 10.0 | 1 |",
        "| OpenVINO | 12.5 | 50.0 | 40.0 | 25.0 | ×2.50 |",
        "| the network untrained | 12.5 | 50.0 | | | |",
    ]


def test_several_rows_of_an_engine_are_told_apart():
    rows = [row("openvino", ms=4.0), row("openvino", "int8", 2.0, batch=4, people=20, size="64x32")]
    names = [line.split(" | ")[0] for line in markdown_table({"rows": rows}).splitlines()[2:]]
    assert names == ["| OpenVINO fp32", "| OpenVINO int8, batch 4, 20 people, 64x32"]


def test_the_readmes_tables_are_those_of_the_committed_reports():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("<!-- bench: ") == text.count("<!-- goals: ") == 1
    assert with_tables(text, ROOT) == text
    page = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
    assert page.count("<!-- goals: ") == page.count("<!-- goals_accuracy: ") == 1
    assert with_tables(page, ROOT) == page
    page = (ROOT / "docs/gallery.md").read_text(encoding="utf-8")
    assert page.count("<!-- gallery: ") == page.count("<!-- gallery_costs: ") == 1
    assert with_tables(page, ROOT) == page


def test_engines_beside_the_yardstick():
    def engine(name, backend, precision, ms):
        return {"name": name, "backend": backend, "precision": precision, "timing": {"total_ms": ms}}

    rows = [engine("yardstick", "torch", "fp32", 900.4), engine("openvino-int8", "openvino", "int8", 90.0)]
    assert goals_table({"presets": {"released": {"rows": rows}}}).splitlines()[2:] == [
        "| the released form, PyTorch eager, fp32 | 900 | 1 |",
        "| OpenVINO, int8 | 90 | 10.00 |",
    ]


def test_what_engines_find():
    rows = [{**row("yardstick"), "timing": None}, row("openvino-int8"), row("fp16, rounded after every operator")]
    assert goals_accuracy_table({"accuracy": {"rows": rows}}).splitlines()[2:] == [
        "| the released form, PyTorch eager, fp32 | 12.5 | 50.0 |  |  |",
        "| OpenVINO, int8 | 12.5 | 50.0 |  |  |",
        "| fp16, rounded after every operator | 12.5 | 50.0 |  |  |",
    ]


def test_writing_and_checking(folder):
    readme = folder / "README.md"
    assert isinstance(CliRunner().invoke(main, [str(readme), "--check"]).exception, DataError)
    assert readme.read_text() == MARKED
    assert CliRunner().invoke(main, [str(readme)]).exit_code == 0
    text = readme.read_text()
    assert text.startswith("Before\n\n<!-- bench: results/a.json -->\n| engine | mAP |")
    assert text.endswith("| 1 |\n<!-- end of bench -->\nafter\n")
    assert CliRunner().invoke(main, [str(readme), "--check"]).exit_code == 0


def test_a_file_without_marks(folder):
    with pytest.raises(DataError, match="No table is marked"):
        with_tables("| a |\n", folder)
