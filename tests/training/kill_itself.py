"""psarm's command line that meets SIGKILL at a chosen moment: in step N, or in or after the Nth write of a file."""

import os
import signal
import sys
from pathlib import Path

from psarm.cli import run
from psarm.training.report import Report

moment, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
write, show = Path.write_bytes, Report.iteration
left = count


def meet() -> bool:
    global left
    left -= 1
    return left == 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write_bytes(path: Path, content: bytes) -> int:
    if not path.name.startswith(f".{name}.") or not meet():
        return write(path, content)
    written = write(path, bytes(content)[: len(content) // (2 if moment == "half" else 1)])
    die()
    return written


def iteration(*arguments: object) -> None:
    show(*arguments)
    if moment == "step" and meet():
        die()


Path.write_bytes, Report.iteration = write_bytes, iteration
sys.exit(run(sys.argv[4:]))
