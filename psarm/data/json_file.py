"""Reading other people's JSON: every value is looked at before it is used."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from psarm.errors import DataError

_INT64 = 1 << 63


def read_json(path: Path, expected: str, *, unique_keys: bool = False) -> Any:
    """The content of a JSON file; raises `DataError` naming the file and what was `expected` in it.

    Of a key that an object has more than once, the last value counts; with `unique_keys` that is an error.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique_keys if unique_keys else None)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); expected {expected}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file; expected {expected}.") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path} is not valid JSON ({error.msg} at {where}); expected {expected}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); expected {expected}.") from error


def read_json_object(path: Path, expected: str, *, unique_keys: bool = False) -> dict[str, Any]:
    """As `read_json`, and the content has to be an object."""
    content = read_json(path, expected, unique_keys=unique_keys)
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a JSON {json_kind(content)}; expected {expected}.")
    return content


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key!r} is in an object twice")
        content[key] = value
    return content


def json_kind(value: Any) -> str:
    """What JSON calls a value: object, array, string, number, true/false or null."""
    if value is None:
        return "null"
    kinds = ((bool, "true/false"), (str, "string"), (dict, "object"), (list, "array"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "number")


def as_whole(value: Any) -> int | None:
    """A number or a text of one (`3`, `3.0`, `"3"`) as an int that fits int64; None for anything else."""
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            return None
    if isinstance(value, float) and math.isfinite(value) and value == math.trunc(value):
        value = int(value)
    whole = isinstance(value, int) and not isinstance(value, bool) and -_INT64 <= value < _INT64
    return value if whole else None


def as_number(value: Any) -> float | None:
    """A finite JSON number as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def as_box(value: Any) -> tuple[float, float, float, float] | None:
    """An array of four finite numbers x, y, w, h; None for anything else."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    numbers = [as_number(item) for item in value]
    x, y, w, h = numbers
    return None if x is None or y is None or w is None or h is None else (x, y, w, h)
