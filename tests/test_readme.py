"""The README's commands run, and print what it says they print."""

import json
import re
from pathlib import Path

import pytest
from documents import assert_commands_exist, assert_links_lead_somewhere, console_commands, python_blocks

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
[PYTHON] = python_blocks(README)


def hits(text):
    """The picture names of a table of hits, in order."""
    return re.findall(r"(c\ds\d_\d{6}\.jpg)", text)


@pytest.mark.slow
def test_session_and_python(tmp_path, monkeypatch, capfd):
    from psarm.cli import run

    (tmp_path / "release").symlink_to(ROOT / "release")
    monkeypatch.chdir(tmp_path)
    session, gallery = console_commands(README)[:4], console_commands(README)[4:]
    assert [words[0] for words, _ in session] == ["data", "export", "detect", "search"]
    assert [words[0] for words, _ in gallery] == ["index", "search"]  # tests/test_docs_gallery.py runs such
    for words, shown in session:
        code = run(words)
        out, err = capfd.readouterr()
        assert code == 0, err
        if words[0] in ("detect", "search"):
            assert hits(out) == hits(shown), f"psarm {words[0]}"
    exec(compile(PYTHON, "README.md", "exec"), {})
    similarities = [float(number) for number in re.findall(r"-?\d+\.\d+", capfd.readouterr().out)]
    assert max(similarities) == similarities[0] > 0.5


def test_commands_and_options_exist():
    assert_commands_exist(README)


def test_files_named_exist():
    assert_links_lead_somewhere(README, ROOT)
    for config in re.findall(r"configs/\w+\.yaml", README):
        assert (ROOT / config).exists(), config


def test_demo_table_is_the_measured_one():
    report = json.loads((ROOT / "benchmarks/results/demo.json").read_text(encoding="utf-8"))
    measured = {row["name"]: row for row in report["rows"]}
    labels = {
        "PyTorch, eager": "PyTorch",
        "ONNX Runtime": "onnxruntime",
        "colour histograms of the same boxes": "colour histogram",
        "the network untrained": "untrained network",
    }
    for label, name in labels.items():
        [cells] = re.findall(rf"^\| {label} \|(.*)\|$", README, re.MULTILINE)
        cells = [cell.strip() for cell in cells.split("|")]
        metrics, timing = measured[name]["metrics"], measured[name]["timing"]
        fractions = [metrics["search"]["mAP"], metrics["search"]["top1"]]
        assert cells[:2] == [f"{value:.1%}"[:-1] for value in fractions], label
        assert cells[4:6] == [f"{metrics['detection'][key]:.1%}"[:-1] for key in ("ap", "recall")], label
        if timing:
            assert cells[11:13] == [f"{timing['total_ms']:.1f}", f"{timing['fps']:.1f}"], label


def test_model_table_is_that_of_the_presets():
    from psarm.benchmarks.model_table import model_rows

    rows = {row.preset.name: row.cells() for row in model_rows()}
    found = re.findall(r"^\| `(\w+)`(?:, `(\w+)`)? \| (.*) \|$", README, re.MULTILINE)
    assert len(found) == 6
    for prw, cuhk, text in found:
        parameters, macs, on_prw, on_cuhk = text.split(" | ")
        assert rows[prw][2:5] == [parameters, macs, on_prw]
        assert (rows[cuhk][2:5] if cuhk else on_cuhk) == ([parameters, macs, on_cuhk] if cuhk else "–")
