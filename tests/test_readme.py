"""The README's commands run, and print what it says they print."""

import json
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
[SESSION] = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
[PYTHON] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def commands():
    """(words, what the README shows) of every `$ psarm` line of the session."""
    parts = re.split(r"^\$ psarm ", SESSION, flags=re.MULTILINE)[1:]
    return [(shlex.split(part.partition("\n")[0]), part.partition("\n")[2]) for part in parts]


def hits(text):
    """The picture names of a table of hits, in order."""
    return re.findall(r"(c\ds\d_\d{6}\.jpg)", text)


@pytest.mark.slow
def test_session_and_python(tmp_path, monkeypatch, capfd):
    from psarm.cli import run

    (tmp_path / "release").symlink_to(ROOT / "release")
    monkeypatch.chdir(tmp_path)
    assert [words[0] for words, _ in commands()] == ["data", "export", "detect", "search"]
    for words, shown in commands():
        code = run(words)
        out, err = capfd.readouterr()
        assert code == 0, err
        if words[0] in ("detect", "search"):
            assert hits(out) == hits(shown), f"psarm {words[0]}"
    exec(compile(PYTHON, "README.md", "exec"), {})
    similarities = [float(number) for number in re.findall(r"-?\d+\.\d+", capfd.readouterr().out)]
    assert max(similarities) == similarities[0] > 0.5


def test_commands_and_options_exist():
    """Every `psarm COMMAND --option` of the README is one psarm knows."""
    import click

    from psarm.cli import COMMANDS, cli

    for line in re.findall(r"^\$? ?psarm ([a-z]+ .*)$", README, re.MULTILINE):
        words = line.split("   ")[0].split()
        command = cli.get_command(click.Context(cli), words[0])
        assert words[0] in COMMANDS and command is not None
        if isinstance(command, click.Group):
            command = command.get_command(click.Context(command), words[1])
            assert command is not None, line
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_files_named_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
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
