"""The commands of docs/training.md run, and print what it says they print."""

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from documents import assert_commands_exist, assert_links_lead_somewhere, console_commands
from tiny_prw import write_tiny_prw

from psarm.benchmarks.runs import FIGURES, figures, percent
from psarm.cli import run

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGE = (DOCS / "training.md").read_text(encoding="utf-8")
ELISION = "…"
TINY = yaml.safe_load((ROOT / "configs/tiny.yaml").read_text(encoding="utf-8"))["model"] | {"arm_dropout": 0.0}
TINY.pop("variant")
SMALL = [f"model.{key}={json.dumps(value)}" for key, value in TINY.items()]
QUICK = [*SMALL, "train.init=", "train.epochs=1", "train.threads=1", "data.workers=0"]
"""Overrides that the test adds to every training."""
FRAMES = 24


def overrides(words):
    """What the test adds to a command's words."""
    if words[0] != "train":
        return ["--threads", "1", "--frames", "1", "--examples", "1"] if words[0] == "bench" else []
    keys = list(QUICK)
    if "--allow-changes" in words:
        keys.append("train.epochs=2")  # one more than the run has
    if any(word.startswith("data.validation=") for word in words):
        keys.append("data.validation=0.4")  # a third of the frames show each of the three people
    return [word for key in keys for word in ("-o", key)]


def torchrun_commands():
    """The words after torchrun of every such command, wrapped lines joined."""
    return [
        shlex.split(line) for line in re.findall(r"^(?:\$ )?torchrun (.*)$", PAGE.replace("\\\n", ""), re.MULTILINE)
    ]


def shown_lines(shown):
    return {line for line in shown.splitlines() if line != ELISION}


def test_commands_and_files_exist():
    assert_commands_exist(PAGE)
    assert_links_lead_somewhere(PAGE, DOCS)


def test_keys_on_the_page_exist():
    from psarm.benchmarks.configuration_page import page

    known = set()
    for part in page().split("\n## ")[1:]:
        group = part.split("\n")[0]
        known |= {f"{group}.{key}" for key in re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)}
    files = r"(?!safetensors)"  # model.safetensors is no key
    keys = set(re.findall(rf"\b((?:model|data|train)\.{files}[a-z_]+)\b", PAGE))
    assert len(keys) > 15 and keys <= known, keys - known


def test_torchrun_takes_the_options_of_the_page():
    from torch.distributed.run import get_args_parser

    commands = torchrun_commands()
    assert len(commands) == 2
    for words in commands:
        arguments = get_args_parser().parse_args(words)
        assert arguments.module and arguments.training_script == "psarm"
        assert_commands_exist(f"psarm {shlex.join(arguments.training_script_args)}")


def test_figures_of_the_video_are_those_of_the_results():
    report = json.loads((ROOT / "benchmarks/results/learning_pets.json").read_text(encoding="utf-8"))
    for title, spreads in zip(
        ("trained", "colour histograms of the boxes it found"), report["summary"].values(), strict=True
    ):
        assert f"| {title} | {' | '.join(percent(spreads[figure]) for figure in FIGURES)} |" in PAGE
    untrained = [figures(found["PyTorch"]) for name, found in report["search"].items() if name.startswith("shipped")]
    for row in untrained:
        assert f"| {' | '.join(f'{100 * row[figure]:.1f}' for figure in FIGURES)} |" in PAGE
    crops = report["crops"]
    trained = [rows for name, rows in crops.items() if name.startswith("trained")]
    assert len(crops) == 5 and len(trained) == 3
    shown = {
        "our colour histogram": [crops["colour histogram"]],
        "the small checkpoint, pictures of the recipe's size": [crops["shipped checkpoint at the recipe's image size"]],
        "trained, three seeds": trained,
    }
    for title, rows in shown.items():
        assert f"| {title} | {_crop_cell(rows, 'all_frames')} | {_crop_cell(rows, 'later_frames')} |" in PAGE


def _crop_cell(rows, part):
    """`71.4, 76.2 / 65.3, 67.8`: top-1 and mAP, seed by seed."""
    return " / ".join(", ".join(f"{100 * row[part][figure]:.1f}" for row in rows) for figure in ("top1", "mAP"))


def test_figures_of_the_mixings_are_those_of_the_results():
    report = json.loads((ROOT / "benchmarks/results/learning_mixers.json").read_text(encoding="utf-8"))
    titles = {"seqnet": "SeqNet", "seqnet_mlp_mixer": "SeqNet with MLP-Mixer", "psarm": "PS-ARM"}
    for variant, title in titles.items():
        spreads, parameters = report["summary"][variant], f"{report['parameters'][variant] / 1e6:.1f} M"
        seconds = f"{spreads['seconds']['mean']:.0f} ± {spreads['seconds']['deviation']:.0f}"
        cells = [title, parameters, *(percent(spreads[figure]) for figure in FIGURES), seconds]
        assert f"| {' | '.join(cells)} |" in PAGE
    for variant, differences in report["minus_baseline"].items():
        for figure, difference in differences.items():
            mean, low, high = (f"{100 * value:+.1f}" for value in (difference["mean"], *difference["interval_95"]))
            seeds = ", ".join(f"{100 * value:+.1f}" for value in difference["by_seed"])
            assert f"| {titles[variant]}, {figure} | {mean} | {seeds} | {low} to {high} |" in PAGE


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the page's data set in it."""
    monkeypatch.chdir(tmp_path)
    write_tiny_prw(tmp_path / "PRW", train=FRAMES)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)
    AcceleratorState._reset_state(True)


@contextmanager
def broken_frame(root):
    """One training frame is cut off in the middle for a while."""
    frame = min((root / "frames").iterdir())
    content = frame.read_bytes()
    frame.write_bytes(content[: len(content) // 2])
    yield
    frame.write_bytes(content)


def test_figures_of_the_cost_are_those_of_the_results():
    cases = json.loads((ROOT / "benchmarks/results/training_cost.json").read_text(encoding="utf-8"))["cases"]
    alone = [case for case in cases if case["part"] == "oim" and case["batch"] == 8]
    for kind, words in (("literal", "as usually written"), ("psarm", "here")):
        milliseconds = [f"{1000 * case[kind]['seconds']:.0f}" for case in alone]
        assert f"| ms, {words} | {' | '.join(milliseconds)} |" in PAGE
        assert f"| memory in MiB, {words} | {' | '.join(str(case[kind]['step_mib']) for case in alone)} |" in PAGE
    steps = [(case["literal"], case["psarm"]) for case in cases if case["part"] == "step"]
    rows = [
        f"| {usual['seconds']:.2f} | {here['seconds']:.2f} | {here['steps_per_second']:.2f} | {usual['step_mib']} | "
        f"{here['step_mib']} |"
        for usual, here in steps
    ]
    assert sum(row in PAGE for row in rows) == 7


@pytest.mark.slow
def test_commands_print_what_the_page_shows(here, capfd):
    for words, shown in console_commands(PAGE):
        AcceleratorState._reset_state(True)  # every command is a process of its own, with its own precision
        skipping = "data.bad_images=skip" in words
        with broken_frame(here / "PRW") if skipping else nullcontext():
            code = run([*words, *overrides(words)])
        out, err = capfd.readouterr()
        assert ("Skipped a training frame: " in err) == skipping
        assert code == 0, f"{shlex.join(words)}\n{err}"
        assert shown_lines(shown) <= set(out.splitlines()), f"{shlex.join(words)}\n{out}"
    files = {path.name for path in (here / "runs/validated").iterdir()}
    table = re.findall(r"^\| `([\w.]+)/?` \|", PAGE, re.MULTILINE)
    assert files == set(table)
    assert (here / "runs/paper/report.html").stat().st_size > 0


@pytest.mark.slow
def test_two_processes_train_as_the_page_says(here):
    [words] = [words for words in torchrun_commands() if "--nnodes" not in words]
    [shown] = re.findall(r"^\$ torchrun .*\n((?:(?!```).*\n)*)", PAGE, re.MULTILINE)
    command = [sys.executable, "-m", "torch.distributed.run", *words, *overrides(["train"])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert shown_lines(shown) <= set(result.stdout.splitlines())
    assert "effective batch 6 = 3 x 2 processes, lr 0.006" in result.stderr
