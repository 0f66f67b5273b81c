"""``python -m psarm.benchmarks.gpu``: says what is missing before it imports it."""

from __future__ import annotations

import importlib.util
import sys

NEEDED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "onnx": "onnx",
    "cv2": "opencv-python-headless",
    "scipy": "scipy",
    "safetensors": "safetensors",
    "rich": "rich",
    "click": "click",
}
"""Module → the package that brings it."""


def missing() -> list[str]:
    """Packages that are needed and not installed."""
    return [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]


if __name__ == "__main__":
    if absent := missing():
        sys.exit(f"Error: the GPU suite needs {', '.join(absent)}; install with: pip install {' '.join(absent)}")
    from psarm.benchmarks.gpu.command import main
    from psarm.benchmarks.script import run

    run(main)
