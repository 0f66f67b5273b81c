"""What goes out of a gallery, in words, and visits as a user names them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from psarm.runtime.gallery.records import Removed


def counts(removed: Removed) -> str:
    """`2 visits and 31 people in frames`."""
    return f"{counted(removed.visits, 'visit')} and {counted(removed.people, 'person', 'people')} in frames"


def counted(number: int, one: str, several: str | None = None) -> str:
    """`1 visit`, `1,200 visits`."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def parse_visits(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[int, ...]:
    """`3-17` as searches show it, or one number as their JSON has it → ids, each once."""
    return tuple(dict.fromkeys(map(_visit, value)))


def _visit(text: str) -> int:
    from psarm.runtime.gallery.schema import VISIT_BITS, visit_id

    if match := re.fullmatch(r"(?:([0-9]{1,10})-)?([0-9]{1,19})", text):
        source, number = match[1], int(match[2])
        visit = number if source is None else visit_id(int(source), number)
        if visit < 1 << 63 and (source is None or number < 1 << VISIT_BITS):
            return visit
    raise click.BadParameter(f"{text!r} is no visit; give it as psarm search --gallery shows it, such as 3-17.")
