"""What the wheel and the sdist hold."""

import email
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

import psarm

# Measurements kept for readers of the repository, not part of the package.
NOT_PACKAGED = ("benchmarks/results/",)


def source_files(source: Path) -> set[str]:
    """Every file of the five folders by its name in the wheel (`rglob` does not follow the links inside psarm/)."""
    names = set()
    for top in ("psarm", "export", "runtime", "benchmarks", "configs"):
        for path in (source / top).rglob("*"):
            name = path.relative_to(source).as_posix()
            if path.is_file() and not path.is_symlink() and not name.startswith(NOT_PACKAGED):
                names.add(name if top == "psarm" else f"psarm/{name}")
    return names


@pytest.fixture(scope="session")
def wheel_files(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_wheel_holds_every_module_and_nothing_else(wheel_files, distributions):
    packaged = {name for name in wheel_files if ".dist-info/" not in name}
    assert packaged == source_files(distributions / "source")


def test_wheel_installs_one_package_and_one_command(wheel_files):
    tops = {name.split("/")[0] for name in wheel_files}
    assert tops == {"psarm", f"psarm-{psarm.__version__}.dist-info"}
    entry_points = wheel_files[f"psarm-{psarm.__version__}.dist-info/entry_points.txt"].decode()
    assert entry_points.split() == ["[console_scripts]", "psarm", "=", "psarm.__main__:main"]


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
    assert "configs/psarm_prw.yaml" in names
