"""psarm's command line that meets SIGKILL at a chosen moment.

Arguments before psarm's own: `step RANK N`: after the Nth step of that process; `half FILE N`, `after FILE N`,
`renamed FILE N`: in or after the Nth write of a file under its temporary name, or when it got its own.
"""

import os
import signal
import sys
from pathlib import Path

from psarm.cli import run
from psarm.training.report import Report

moment, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
write, rename, show = Path.write_bytes, Path.replace, Report.iteration
left = count


def meet() -> bool:
    global left
    left -= 1
    return left == 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write_bytes(path: Path, content: bytes) -> int:
    if moment not in ("half", "after") or not path.name.startswith(f".{name}.") or not meet():
        return write(path, content)
    written = write(path, bytes(content)[: len(content) // (2 if moment == "half" else 1)])
    die()
    return written


def replace(path: Path, target: Path) -> Path:
    renamed = rename(path, target)
    if moment == "renamed" and renamed.name == name and meet():
        die()
    return renamed


def iteration(*arguments: object) -> None:
    show(*arguments)
    if moment == "step" and name == os.environ.get("RANK", "0") and meet():
        die()


Path.write_bytes, Path.replace, Report.iteration = write_bytes, replace, iteration
sys.exit(run(sys.argv[4:]))
