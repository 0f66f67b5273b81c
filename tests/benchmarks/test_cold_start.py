"""Cold start is measured in processes of their own, with and without kept graphs."""

import json

import pytest
import toy_bundle as toy
from click.testing import CliRunner

from psarm.benchmarks import cold_start
from psarm.benchmarks.cold_start import MODES
from psarm.benchmarks.fresh_process import PHASES, Subject, measure_phases
from psarm.errors import PsarmError, UsageError


def test_the_report_holds_every_phase_of_every_mode(tmp_path, monkeypatch):
    monkeypatch.setattr(cold_start, "BACKENDS", ("onnxruntime",))  # the other takes as long again
    bundle = toy.make_toy_bundle(tmp_path / "toy.psarm")
    path = tmp_path / "cold.json"
    options = ["--repeats", "1", "--size", "96", "160", "--threads", "1", "--precision", "fp32", "--json", str(path)]
    result = CliRunner().invoke(cold_start.main, [str(bundle), *options])
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert [row["backend"] for row in report["rows"]] == ["onnxruntime"]
    for row in report["rows"]:
        assert row["kept_bytes"] > 1000 and list(row["medians"]) == list(MODES)
        for mode in MODES:
            [sample] = row["samples"][mode]
            assert list(sample) == list(PHASES) and all(seconds > 0 for seconds in sample.values())
            total = sum(seconds for phase, seconds in sample.items() if phase != "second")
            assert row["medians"][mode]["to_first_result_seconds"] == pytest.approx(total, abs=0.002)


@pytest.mark.parametrize(("running", "names"), [(("fp32",), "fp32"), ((), "none")])
def test_a_precision_that_runs_nowhere_is_refused(tmp_path, monkeypatch, running, names):
    monkeypatch.setattr(cold_start, "runnable", lambda *_: running)
    bundle, path = toy.make_toy_bundle(tmp_path / "toy.psarm"), tmp_path / "cold.json"
    options = ["--precision", "fp32", "--precision", "fp23"] if running else []
    result = CliRunner().invoke(cold_start.main, [str(bundle), *options, "--json", str(path)])
    assert isinstance(result.exception, UsageError) and not path.exists()
    subject = "--precision fp23" if running else "the bundle"
    assert str(result.exception) == f"{subject} runs on neither of openvino, onnxruntime here; what runs: {names}."


def test_a_process_that_fails_says_why(tmp_path):
    with pytest.raises(PsarmError, match=r"onnxruntime in fp32 failed .* There is no bundle at"):
        measure_phases(Subject(str(tmp_path / "none"), None, "onnxruntime", "fp32", 1, []), {})
