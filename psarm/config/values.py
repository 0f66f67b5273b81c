"""Configuration dataclasses from plain values and back, with checks that name the offending key."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from typing import Any, Literal, TypeVar, get_args, get_origin

from psarm.errors import ConfigError

Group = TypeVar("Group")
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_LISTS = {int: "[8]", float: "[0.5]"}
# Numbers that YAML 1.1 reads as text: it wants 1.0e-4 and 1.5e+3.
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def from_dict(cls: type[Group], values: Any, where: str) -> Group:
    """Build a configuration dataclass from plain values, strictly; `where` starts the key path in messages."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: got {values!r}, needed a mapping.")
    hints: dict[str, Any] = typing.get_type_hints(cls)
    unknown = [key for key in values if key not in hints]
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; known keys are {', '.join(sorted(hints))}.")
    made = {}
    for key, value in values.items():
        kind = hints[key]
        made[key] = _value(kind, value, f"{where}: {key}")
    return cls(**made)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration dataclass as plain values (tuples become lists), the inverse of `from_dict`."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return {key: plain(value) for key, value in dataclasses.asdict(config).items()}


def check_values(config: Any, group: str) -> None:
    """Raise `ConfigError` where a field's value does not have the annotated type."""
    for name, kind in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        if not dataclasses.is_dataclass(kind) and not _fits(kind, value):
            raise ConfigError(f"{group}.{name} is {value!r}; needed {_describe(kind)}.")


def _value(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return from_dict(kind, value, where)
    return _plain(kind, value)


def _plain(kind: Any, value: Any) -> Any:
    if isinstance(kind, types.UnionType):
        lists = [option for option in get_args(kind) if get_origin(option) is tuple]
        return _plain(lists[0], value) if lists else value
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_plain(get_args(kind)[0], item) for item in value)
    if kind is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    return float(value) if kind is float and isinstance(value, int) and not isinstance(value, bool) else value


def _fits(kind: Any, value: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(get_args(kind)[0], item) for item in value)
    if isinstance(kind, types.UnionType):
        return any(_fits(option, value) for option in get_args(kind))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is kind


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"a list of {_WORDS[get_args(kind)[0]].removeprefix('a ')}s, such as {_LISTS[get_args(kind)[0]]}"
    if isinstance(kind, types.UnionType):
        return " or ".join(_describe(option) for option in get_args(kind) if option is not types.NoneType)
    return _WORDS[kind]


def require(holds: bool, key: str, value: Any, needed: str) -> None:
    """Raise `ConfigError` naming the key, what it is and what is needed, unless the condition holds."""
    if not holds:
        raise ConfigError(f"{key} is {value!r}; needed {needed}.")
