"""The report as it grows: rewritten after every measurement, within a budget of time, whatever fails."""

from __future__ import annotations

import gc
import math
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from psarm.console import err
from psarm.data.json_file import read_json_object
from psarm.files import write_json

Row = dict[str, Any]
LEAST_DECIBELS = 15.0
"""Signal to noise of features and embeddings below which a form is wrong, not rough."""


class Journal:
    """What has been measured, what failed and what was left out."""

    def __init__(self, facts: dict[str, Any], path: Path, budget: float, resume: bool = False) -> None:
        """`budget`: seconds for everything, from now.

        `resume`: go on where another process, which wrote the file, had to stop; its steps are not done again.
        """
        self.path = path
        self.budget = budget
        self._clock = time.monotonic
        self._begun = self._clock()
        self._spent = 0.0
        self.report: dict[str, Any] = {**facts, "budget_seconds": budget, "rows": [], "skipped": [], "done": []}
        if resume:
            self.report = read_json_object(path, "a report")
            self._spent = float(self.report["seconds"])
        self.write()

    @property
    def rows(self) -> list[Row]:
        """Everything that was measured or failed."""
        rows: list[Row] = self.report["rows"]
        return rows

    @property
    def left(self) -> float:
        """Seconds of the budget."""
        return self.budget - self._seconds

    @property
    def _seconds(self) -> float:
        return self._spent + self._clock() - self._begun

    def add(self, row: Row) -> None:
        """One more row, at once on the disk."""
        self.rows.append(plain(row))
        self.write()

    def put(self, key: str, value: Any) -> None:
        """A part of the report that is no row."""
        self.report[key] = plain(value)
        self.write()

    def write(self) -> None:
        """Rewrite the file."""
        self.report["seconds"] = round(self._seconds, 1)
        write_json(self.path, self.report)

    def step(self, title: str, seconds: float, body: Callable[[], None], again: bool = False) -> None:
        """Run `body` where about `seconds` are left for it; what it raises becomes a row.

        A step that was begun before `resume` is left out, or run `again`.
        """
        if title in self.report["done"] and not again:
            return
        self.report["done"].append(title)
        if self.left < seconds:
            self.report["skipped"].append({"what": title, "needs_seconds": seconds, "left_seconds": round(self.left)})
            err.print(f"{title}: skipped, {self.left:.0f} s are left and it takes about {seconds:.0f} s")
            self.write()
            return
        err.print(f"{title} ({self.left:.0f} s left)")
        with self.guarded({"group": title, "name": title}):
            body()

    @contextmanager
    def guarded(self, row: Row) -> Iterator[None]:
        """Whatever the body raises, but an interruption, becomes `row` with the reason."""
        try:
            yield
        except Exception as error:  # of every library there is; the other rows are worth having
            err.print(f"  {row['name']}: {reason(error)}")
            where = traceback.format_exception(error)[-6:]
            self.add({**row, "failure": reason(error), "traceback": "".join(where)[-3000:]})
        finally:
            free()


class OutOfTimeError(Exception):
    """The budget is over while something runs."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Let `OutOfTimeError` end what the main thread does after so many seconds, and what it does 10 s later."""

    def ring(*_: object) -> None:
        raise OutOfTimeError("the budget was over before it had ended")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 10)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def reason(error: BaseException) -> str:
    """One line of what went wrong."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def free() -> None:
    """Give memory back that nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        with suppress(RuntimeError):  # the GPU is lost: the suite finds that out after the step
            torch.cuda.empty_cache()


def plain(value: Any) -> Any:
    """The same without numbers that JSON has not: infinite ones and NaN become None."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_right(row: Row) -> bool:
    """Whether a row was measured and its answers are those of float32, but for rounding."""
    signal = [row.get(f"{name}_db") for name in ("features", "embeddings")]
    return "ms" in row and all(decibels is None or decibels >= LEAST_DECIBELS for decibels in signal)
