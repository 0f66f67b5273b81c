"""Times and spans of the gallery's commands: read from options, and written for people."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_time(context: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    """`2026-03-01T14:30` → an aware time; without a zone it is this machine's local time."""
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{value!r} is not a time; write it as 2026-03-01T14:30, with +01:00 or Z behind for another time zone."
        ) from error


def parse_age(context: click.Context, parameter: click.Parameter, value: str | None) -> timedelta | None:
    """`30d` → so long: a number of s, m (minutes), h, d or w."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is not a length of time; write a number and s, m, h, d or w, such as 30d.")
    try:
        age = timedelta(**{UNITS[match[2]]: float(match[1])})
        datetime.now(UTC) - age
    except OverflowError as error:
        raise click.BadParameter(f"{value!r} reaches back before the year 1.") from error
    return age


def local(time: datetime) -> str:
    """`2026-03-01 14:30:05` by this machine's clock."""
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}"


def zone(time: datetime) -> str:
    """`UTC+01:00`: the offset of this machine's clock at that time."""
    offset = f"{time.astimezone():%z}"
    return f"UTC{offset[:3]}:{offset[3:5]}"


def span(start: datetime, end: datetime) -> str:
    """`2026-03-01 14:30:05–14:31:10`: of the end only what differs."""
    begin, finish = local(start), local(end)
    if begin == finish:
        return begin
    return f"{begin}–{finish[11:]}" if begin[:10] == finish[:10] else f"{begin}–{finish}"


def place(seconds: float) -> str:
    """`01:05` or `1:01:05`: the place in a video."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


def places(start: float, end: float) -> str:
    """`01:05–01:20`, or one place where they are the same second."""
    begin, finish = place(start), place(end)
    return begin if begin == finish else f"{begin}–{finish}"


def length(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
