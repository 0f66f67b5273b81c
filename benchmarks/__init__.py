"""Accuracy and speed of every backend beside the PyTorch model, on one data set, in one table.

>>> report = run_benchmark(BenchSettings(data_root=Path("PRW"), bundle=Path("prw.psarm")))
>>> print_report(report, psarm.console.out)
"""

from psarm.benchmarks.report import BenchReport, Row
from psarm.benchmarks.settings import BenchSettings
from psarm.benchmarks.suite import run_benchmark
from psarm.benchmarks.table import print_report

__all__ = ["BenchReport", "BenchSettings", "Row", "print_report", "run_benchmark"]
