"""What a person sees while psarm works: messages and progress on stderr, results on stdout.

Progress bars appear only on a terminal; piped output stays quiet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

T = TypeVar("T")

out = Console(highlight=False, soft_wrap=False)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class RateColumn(ProgressColumn):
    """Items a second."""

    def render(self, task: Task) -> Text:
        """The current rate, or a dash before the first item."""
        speed = task.finished_speed or task.speed
        return Text("–/s" if speed is None else f"{speed:.1f}/s")


def progress(*extra: ProgressColumn) -> Progress:
    """A progress bar with count, rate and ETA on stderr; hidden when stderr is not a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        *extra,
        console=err,
        disable=not err.is_terminal,
    )


def spinner() -> Progress:
    """A line a task, for work whose length nobody knows; gone at the end, and hidden as `progress` is."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


def fits(table: Table, console: Console) -> bool:
    """Whether no line of a table has to be broken: a file or a pipe has no width to keep to."""
    return not console.is_terminal or _width(table, console) <= console.width


def print_whole(table: Table, console: Console) -> None:
    """Print a table, on a terminal within its width, elsewhere as wide as it needs."""
    if console.is_terminal:
        console.print(table)
    else:
        Console(file=console.file, width=_width(table, console)).print(table)


def _width(table: Table, console: Console) -> int:
    return console.measure(table, options=console.options.update(max_width=10_000)).maximum


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """Iterate over `items` under a progress bar."""
    with progress() as bar:
        yield from bar.track(items, total=total, description=description)
