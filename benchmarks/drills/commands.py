"""The real commands, in processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from psarm.errors import PsarmError

PATIENCE = 300.0
"""Seconds after which a process counts as hung."""
TICK = 0.05
PSARM = ("-m", "psarm")


class Process:
    """A Python process, `psarm WORDS` unless another program is given; killed where its `with` block is left.

    What it prints goes to files beside each other, so that no pipe fills.
    """

    def __init__(
        self,
        words: Sequence[str],
        log: Path,
        program: Sequence[str] = PSARM,
        before: Callable[[], None] | None = None,
    ) -> None:
        """`before` runs in the process before the program does."""
        self.stdout_path, self.stderr_path = log.with_suffix(".out"), log.with_suffix(".err")
        self.words = list(words)
        with self.stdout_path.open("wb") as stdout, self.stderr_path.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, *program, *words], stdout=stdout, stderr=stderr, preexec_fn=before
            )
        self.started = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.running:
            self.kill()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def said(self) -> str:
        """What it wrote to stderr so far."""
        return self.stderr_path.read_text(encoding="utf-8", errors="replace")

    @property
    def one_sentence(self) -> bool:
        """Whether it said why it failed as commands do: `Error: …`, and no traceback, of Rust code neither."""
        return "Error: " in self.said and "Traceback" not in self.said and "panicked" not in self.said

    @property
    def error(self) -> str:
        """What follows `Error: `, on one line."""
        return " ".join(self.said.rpartition("Error: ")[2].split())

    def wait(self, seconds: float = PATIENCE) -> int:
        """Exit code; raises `PsarmError` where it hangs."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise PsarmError(f"psarm {self.words[0]} did not end within {seconds:.0f} s: {self.said[-500:]}") from error

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._process.kill()
        self._process.wait()

    def interrupt(self) -> int:
        """Ctrl-C; exit code."""
        self._process.send_signal(signal.SIGINT)
        return self.wait()

    def json(self) -> Any:
        """What it printed; raises `PsarmError` where that is no JSON."""
        text = self.stdout_path.read_text(encoding="utf-8")
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise PsarmError(f"psarm {self.words[0]} printed no JSON ({text[:200]!r}): {self.said[-500:]}") from error

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Until `condition` holds; raises `PsarmError` where the process ends or hangs before."""
        while not condition():
            if not self.running:
                raise PsarmError(f"psarm {self.words[0]} ended before {what}: {self.said[-500:]}")
            if time.monotonic() - self.started > seconds:
                raise PsarmError(f"psarm {self.words[0]} ran {seconds:.0f} s without {what}: {self.said[-500:]}")
            time.sleep(TICK)


def run_command(words: Sequence[str], log: Path) -> Process:
    """A command that ended well; raises `PsarmError` where it did not."""
    with Process(words, log) as process:
        code = process.wait()
    if code:
        raise PsarmError(f"psarm {words[0]} ended with exit code {code}: {process.said[-500:]}")
    return process
