"""psarm installed from its wheel in an environment without torch: help, doctor, the runtime, and clear refusals."""

import json
import re
import subprocess
from pathlib import Path

import cv2
import pytest
from toy_bundle import draw_scene, make_toy_bundle

from psarm.cli import COMMANDS


@pytest.fixture
def run(torch_free_python, tmp_path):
    """Run `psarm` or `python` of the environment without torch in an empty folder."""

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [torch_free_python.parent / program, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    return run


def test_help_lists_every_command(run):
    result = run("psarm", "--help")
    assert result.returncode == 0, result.stderr
    shown = " ".join(result.stdout.split())
    for name, purpose in COMMANDS.items():
        assert f"{name} {purpose}" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(run, name):
    result = run("psarm", name, "--help")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"Usage: psarm {name}")


def test_doctor(run):
    result = run("psarm", "doctor")
    assert result.returncode == 0, result.stderr
    assert re.search(r"torch\W+not installed", result.stdout)
    assert re.search(r"onnxruntime\W+yes", result.stdout)


def test_packages_import(run):
    names = "psarm, psarm.runtime, psarm.evaluation, psarm.export, psarm.benchmarks, psarm.data, psarm.config"
    result = run("python", "-c", f"import {names}\nfrom psarm.runtime import Detections, PersonSearch")
    assert result.returncode == 0, result.stderr


def test_presets_come_along(run):
    result = run("python", "-c", "from psarm.presets import find_config\nprint(find_config('psarm_prw').read_text())")
    assert "variant: psarm" in result.stdout, result.stderr


def test_load_model_without_torch_says_what_to_install(run):
    code = "import psarm\ntry: psarm.load_model('model.pth')\nexcept psarm.errors.MissingExtraError as e: print(e)"
    result = run("python", "-c", f"import psarm.errors\n{code}")
    assert "install it with: pip install 'psarm[train]'." in result.stdout, result.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "--config", "config.yaml"], "train"),
        (["export", "model.pth", "--out", "bundle"], "export"),
        (["models"], "train"),
    ],
)
def test_commands_that_need_torch_say_what_to_install(run, tmp_path, arguments, extra):
    for name in ("config.yaml", "model.pth"):
        Path(tmp_path, name).touch()
    result = run("psarm", *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert re.fullmatch(
        rf"Error: psarm {arguments[0]} needs the '{extra}' extra \(.*not installed\); "
        rf"install it with: pip install 'psarm\[{extra}\]'\.\n",
        result.stderr,
    )
    assert not (tmp_path / "bundle").exists()


@pytest.fixture
def bundle_and_frame(tmp_path):
    """A toy bundle and a picture with two people, one of them the query of `psarm search`."""
    frame = tmp_path / "frame.png"
    cv2.imwrite(str(frame), draw_scene({1: (255, 0, 0), 6: (255, 90, 0)}))
    return str(make_toy_bundle(tmp_path / "toy.psarm")), str(frame)


def test_detect_runs(run, bundle_and_frame):
    result = run("psarm", "detect", *bundle_and_frame, "--json")
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)["boxes"]) == 2


def test_search_runs(run, bundle_and_frame, tmp_path):
    bundle, frame = bundle_and_frame
    folder = tmp_path / "frames"
    folder.mkdir()
    cv2.imwrite(str(folder / "other.png"), draw_scene({3: (255, 0, 0)}))
    options = ["--query", frame, "--person", "1", "--html", "page.html", "--json"]
    result = run("psarm", "search", bundle, str(folder), *options)
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)["hits"]) == 1
    assert (tmp_path / "page.html").stat().st_size > 1000


def test_synthetic_data_its_check_and_a_benchmark_run(run, bundle_and_frame):
    size = ["--frames", "12", "--identities", "6", "--size", "160x90", "--workers", "1"]
    for arguments in (
        ["data", "synth", "prw", *size],
        ["data", "check", "prw"],
        ["bench", bundle_and_frame[0], "--data-root", "prw", "--frames", "1"],
    ):
        result = run("psarm", *arguments)
        assert result.returncode == 0, result.stderr
        assert result.stdout
