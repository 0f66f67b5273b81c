"""The paper's tables and figures, measured: several checkpoints on one data set, in one self-contained page.

>>> report = run_paper_suite(PaperSettings(Path("PRW"), (NamedCheckpoint(Path("model.safetensors")),), Path("paper")))
>>> print_paper(report, psarm.console.out)
"""

from psarm.benchmarks.paper.report import PaperReport
from psarm.benchmarks.paper.settings import NamedCheckpoint, PaperSettings
from psarm.benchmarks.paper.suite import run_paper_suite
from psarm.benchmarks.paper.table import print_paper

__all__ = ["NamedCheckpoint", "PaperReport", "PaperSettings", "print_paper", "run_paper_suite"]
