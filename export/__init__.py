"""From a PyTorch model to a bundle: ONNX graphs and a manifest, checked against the model."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psarm.export.exporter import ExportReport, export_bundle

__all__ = ["ExportReport", "export_bundle"]


def __getattr__(name: str) -> Any:
    """Import torch only when something of the exporter is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("psarm.export.exporter"), name)
