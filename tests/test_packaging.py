"""What a user gets from the wheel, and how psarm behaves where torch is not installed."""

import email
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

import psarm
from psarm.cli import COMMANDS

# Measurements kept for readers of the repository, not part of the package.
NOT_PACKAGED = ("benchmarks/results/",)


def source_files(source: Path) -> set[str]:
    """Every file of the four folders by its name in the wheel (`rglob` does not follow the links inside psarm/)."""
    names = set()
    for top in ("psarm", "export", "runtime", "benchmarks"):
        for path in (source / top).rglob("*"):
            name = path.relative_to(source).as_posix()
            if path.is_file() and not path.is_symlink() and not name.startswith(NOT_PACKAGED):
                names.add(name if top == "psarm" else f"psarm/{name}")
    return names


@pytest.fixture(scope="session")
def wheel_files(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def run(torch_free_python, tmp_path):
    """Run `psarm` or `python` of the environment without torch in an empty folder."""

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [torch_free_python.parent / program, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    return run


def test_wheel_holds_every_module_and_nothing_else(wheel_files, distributions):
    packaged = {name for name in wheel_files if ".dist-info/" not in name}
    assert packaged == source_files(distributions / "source")


def test_wheel_installs_one_package_and_one_command(wheel_files):
    tops = {name.split("/")[0] for name in wheel_files}
    assert tops == {"psarm", f"psarm-{psarm.__version__}.dist-info"}
    entry_points = wheel_files[f"psarm-{psarm.__version__}.dist-info/entry_points.txt"].decode()
    assert entry_points.split() == ["[console_scripts]", "psarm", "=", "psarm.cli:main"]


def test_base_install_needs_only_what_the_runtime_needs(wheel_files):
    metadata = email.message_from_bytes(wheel_files[f"psarm-{psarm.__version__}.dist-info/METADATA"])
    requirements = metadata.get_all("Requires-Dist")
    base = {re.match(r"[\w.-]+", line).group() for line in requirements if "extra ==" not in line}
    assert base == {"click", "numpy", "onnxruntime", "opencv-python-headless", "rich", "scipy"}
    assert metadata["License-Expression"] == "MIT"


def test_sdist_holds_the_sources(distributions):
    [sdist] = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for top in ("export", "runtime", "benchmarks"):
        assert f"{top}/__init__.py" in names


def test_help_lists_every_command_without_torch(run):
    result = run("psarm", "--help")
    assert result.returncode == 0, result.stderr
    shown = " ".join(result.stdout.split())
    for name, purpose in COMMANDS.items():
        assert f"{name} {purpose}" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_without_torch(run, name):
    result = run("psarm", name, "--help")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"Usage: psarm {name}")


def test_doctor_without_torch(run):
    result = run("psarm", "doctor")
    assert result.returncode == 0, result.stderr
    assert re.search(r"torch\W+not installed", result.stdout)
    assert re.search(r"onnxruntime\W+yes", result.stdout)


def test_packages_import_without_torch(run):
    names = "psarm, psarm.runtime, psarm.evaluation, psarm.export, psarm.benchmarks, psarm.data, psarm.config"
    result = run("python", "-c", f"import {names}\nfrom psarm.runtime import Detections, PersonSearch")
    assert result.returncode == 0, result.stderr


def test_load_model_without_torch_says_what_to_install(run):
    code = "import psarm\ntry: psarm.load_model('model.pth')\nexcept psarm.errors.MissingExtraError as e: print(e)"
    result = run("python", "-c", f"import psarm.errors\n{code}")
    assert "install it with: pip install 'psarm[train]'." in result.stdout, result.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "--config", "config.yaml"], "train"),
        (["export", "model.pth", "--out", "bundle"], "export"),
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
