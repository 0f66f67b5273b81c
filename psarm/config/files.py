"""Configuration files: YAML with the groups of a `Config`, and `group.key=value` overrides."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from pathlib import Path
from typing import Any

from psarm.config.run import Config
from psarm.config.values import from_dict
from psarm.errors import ConfigError


def load_config(path: str | Path, overrides: typing.Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `group.key=value` overrides; raises `ConfigError` naming the file or override.

    The group `about` is for readers of presets (`psarm.presets`) and ignored here.
    """
    import yaml

    tree = read_groups(path)
    tree.pop("about", None)
    for override in overrides:
        try:
            _apply_override(tree, override, yaml.safe_load)
        except yaml.YAMLError as error:
            raise ConfigError(f"Override {override!r} has a value that is not valid YAML; quote it.") from error
    return from_dict(Config, tree, str(path))


def read_groups(path: str | Path) -> dict[str, Any]:
    """The groups of a configuration file, `about` among them, not checked yet."""
    import yaml

    path = Path(path)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"There is no configuration file {path}; configs/ of a checkout holds presets.") from error
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration file {path}: {error.strerror}.") from error
    except (UnicodeDecodeError, yaml.reader.ReaderError) as error:
        raise ConfigError(f"{path} is not a text file; a YAML file in UTF-8 is needed.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ConfigError(f"{path} is not valid YAML{where}.") from error
    if tree is None or tree == {}:
        raise ConfigError(
            f"{path} is empty; it needs the groups {', '.join(typing.get_type_hints(Config))} (see configs/)."
        )
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path} holds a {type(tree).__name__}; a mapping with the groups model, data and train is needed."
        )
    return tree


def _apply_override(tree: dict[str, Any], override: str, parse: typing.Callable[[str], Any]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"Override {override!r} is not of the form group.key=value, such as train.epochs=4.")
    value = parse(text) if text else ""  # YAML would read nothing as null
    _check_override(override, key.split("."), value)
    *groups, last = key.split(".")
    place: Any = tree
    for group in groups:
        place = place.setdefault(group, {})
        if not isinstance(place, dict):  # the file is wrong, not the override: `from_dict` says so
            return
    place[last] = value


def _check_override(override: str, parts: list[str], value: Any) -> None:
    """Raise `ConfigError` unless `parts` lead to a key, or to a group that `value` holds keys of."""
    kind: Any = Config
    for depth, part in enumerate(parts):
        if not dataclasses.is_dataclass(kind):
            raise ConfigError(f"Override {override!r}: {'.'.join(parts[:depth])} is a value, not a group.")
        hints = typing.get_type_hints(kind)
        if part not in hints:
            raise ConfigError(f"Override {override!r}: {_unknown(parts, depth, list(hints))}")
        kind = hints[part]
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            keys = ", ".join(typing.get_type_hints(kind))
            raise ConfigError(f"Override {override!r}: {'.'.join(parts)} is a group; give one of its keys: {keys}.")
        for name, inner in value.items():
            _check_override(override, [*parts, str(name)], inner)


def _unknown(parts: list[str], depth: int, known: list[str]) -> str:
    """What is wrong with `parts[depth]`, which is not among the `known` names there, and what may be meant."""
    group = ".".join(parts[:depth])
    wrong = f"{group} has no key {parts[depth]!r}" if group else f"there is no group or key {parts[depth]!r}"
    paths = list(_key_paths(Config))
    meant = [path for path in paths if path.rpartition(".")[2] == parts[-1]]
    meant = meant or difflib.get_close_matches(".".join(parts), paths, n=1, cutoff=0.8)
    if len(meant) == 1:
        return f"{wrong}; did you mean {meant[0]}?"
    return f"{wrong}; {'known keys' if group else 'the groups'} are {', '.join(known)}."


def _key_paths(cls: Any, before: str = "") -> typing.Iterator[str]:
    """Dotted names of all keys below a configuration dataclass."""
    for name, kind in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind):
            yield from _key_paths(kind, f"{before}{name}.")
        else:
            yield before + name
