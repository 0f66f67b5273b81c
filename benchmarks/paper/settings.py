"""What the paper's suite measures, and where it writes."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from psarm.benchmarks.settings import TIMING_FRAMES
from psarm.errors import UsageError

EXAMPLES = 12


@dataclass(frozen=True)
class NamedCheckpoint:
    """A checkpoint file under the name that the report calls it by."""

    path: Path
    name: str = ""
    """Empty: its variant, with the file's stem where several have the same. Without `=`, or `UsageError` is raised."""

    def __post_init__(self) -> None:
        if "=" in self.name:
            raise UsageError(f"A checkpoint cannot be called {self.name}: its name ends at the first = of NAME=CKPT.")

    @classmethod
    def parse(cls, text: str) -> NamedCheckpoint:
        """`NAME=PATH` or `PATH`; a file whose own path holds a `=` is taken as it is.

        Raises `UsageError` for an empty name.
        """
        name, mark, path = text.partition("=")
        if not mark or Path(text).exists():
            return cls(Path(text))
        if not name.strip():
            raise UsageError(f"--checkpoint {text} has nothing before the =; give NAME=CKPT, or only the file.")
        return cls(Path(path), name.strip())


@dataclass(frozen=True)
class PaperSettings:
    """One run of the suite. Raises `UsageError` for what cannot be meant."""

    data_root: Path
    checkpoints: tuple[NamedCheckpoint, ...]
    """In the order of the report."""
    out: Path
    """Folder of report.html and report.json, and of the results so far (work/)."""
    dataset: str = "prw"
    fresh: bool = False
    """Measure everything again."""
    threads: int | None = None
    """CPU threads; None = OMP_NUM_THREADS or every usable core."""
    frames: int = TIMING_FRAMES
    """How many gallery frames are timed, at most."""
    examples: int = EXAMPLES
    """How many queries the qualitative part shows, at most."""
    seed: int = 0
    """Draws these queries."""

    def __post_init__(self) -> None:
        if not self.checkpoints:
            raise UsageError("--suite paper measures checkpoints; give at least one --checkpoint NAME=CKPT.")
        twice = [name for name, count in Counter(c.name for c in self.checkpoints if c.name).items() if count > 1]
        if twice:
            raise UsageError(f"--checkpoint {twice[0]}=… is given twice; give every checkpoint a name of its own.")
        for name, least in (("threads", 1), ("frames", 1), ("examples", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name} is {value}; needed {least} or more.")

    def command(self) -> str:
        """The command line that makes this report again."""
        words = ["psarm", "bench", "--suite", "paper", "--dataset", self.dataset, "--data-root", str(self.data_root)]
        for checkpoint in self.checkpoints:
            words += [
                "--checkpoint",
                f"{checkpoint.name}={checkpoint.path}" if checkpoint.name else str(checkpoint.path),
            ]
        words += ["--threads", str(self.threads)] if self.threads else []
        words += ["--frames", str(self.frames), "--examples", str(self.examples), "--seed", str(self.seed)]
        return shlex.join([*words, "--out", str(self.out)])
