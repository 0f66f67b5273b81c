"""Who may import whom: the contracts of pyproject.toml, and packages that load without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter at the root of the checkout."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_import_contracts_hold():
    result = python(
        "import sys; from importlinter.cli import lint_imports_command as main; sys.exit(main(['--no-cache']))"
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_evaluation_is_numpy_and_scipy_only():
    result = python("import sys, psarm.evaluation\nprint(sorted({'cv2', 'onnxruntime', 'torch'} & set(sys.modules)))")
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize(
    "name",
    ["psarm", "psarm.runtime", "psarm.evaluation", "psarm.export", "psarm.benchmarks", "psarm.config", "psarm.cli"],
)
def test_importing_a_package_loads_no_torch(name):
    result = python(f"import sys, {name}\nprint(sorted({{'torch', 'torchvision'}} & set(sys.modules)))")
    assert result.stdout.strip() == "[]", result.stderr
