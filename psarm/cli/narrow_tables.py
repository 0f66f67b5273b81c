"""Tables that keep their numbers whole on a narrow terminal: paths give way, from the left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from psarm.console import fits, print_whole

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

SHORTEST = 12
"""Cells that a path keeps where it is longer."""


def print_fitting(build: Callable[[bool], Table], console: Console) -> None:
    """Print a table: `build(False)` where that fits, else, on a terminal, `build(True)`, which is to be narrow."""
    wide = build(False)
    print_whole(wide if fits(wide, console) else build(True), console)


def new_table(narrow: bool) -> Table:
    """A table without columns; a narrow one has no lines between them."""
    from rich import box
    from rich.table import Table

    if narrow:
        return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    return Table()


def shortened(path: str, width: int) -> str:
    """The end of a path in `width` cells: `…/clip.mp4`, or `…the-end.mp4` where not even its last part fits."""
    from rich.cells import cell_len

    if cell_len(path) <= width:
        return path
    ends = [path[index:] for index in range(1, len(path)) if cell_len(path[index:]) < width]
    whole = [end for end in ends if end.startswith("/")]
    return "…" + (whole or ends or [""])[0]


class PathCell:
    """A path in a table, which takes the width that is left."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """From `SHORTEST` cells to all of it."""
        from rich.cells import cell_len
        from rich.measure import Measurement

        length = cell_len(self._path)
        return Measurement(min(length, SHORTEST), length).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """As much as fits."""
        from rich.text import Text

        yield Text(shortened(self._path, options.max_width), no_wrap=True)
