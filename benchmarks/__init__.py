"""Accuracy and speed of every backend beside the PyTorch model, on one data set, in one table.

>>> report = run_benchmark(BenchSettings(data_root=Path("PRW"), bundle=Path("prw.psarm")))
>>> print_report(report, psarm.console.out)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psarm.benchmarks.report import BenchReport, Row
    from psarm.benchmarks.settings import BenchSettings
    from psarm.benchmarks.suite import run_benchmark
    from psarm.benchmarks.table import print_report

__all__ = ["BenchReport", "BenchSettings", "Row", "print_report", "run_benchmark"]

_HOMES = {"BenchReport": "report", "Row": "report", "BenchSettings": "settings", "run_benchmark": "suite"}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and nothing else: the GPU suite says what it misses before it imports it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"psarm.benchmarks.{_HOMES.get(name, 'table')}"), name)
