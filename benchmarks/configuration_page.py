"""Write docs/configuration.md, the reference of every configuration key, from the dataclasses and their docstrings.

python -m psarm.benchmarks.configuration_page docs/configuration.md
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from psarm.benchmarks.script import run
from psarm.config import VARIANTS, Config, LossWeights
from psarm.console import out
from psarm.files import write_text
from psarm.presets import About

INTRODUCTION = """# Configuration keys

Written by `make docs` from the dataclasses in psarm/config; change the docstrings there.

A configuration is a YAML file with the groups `model`, `data` and `train`, such as the presets in
[configs](../configs). A key that a file leaves out has its default, which is PS-ARM as the paper has it.
`psarm train --config` takes a file or a preset's name, and `-o` changes keys of it:

```
psarm train --config psarm_prw -o train.batch_size=4 -o 'train.lr_steps=[6, 9]' -o train.loss_weights.oim=0.5
```

An unknown key, a value of another type or out of range is refused by name. `--data-root` is `data.root`, `--output` is
`train.output`. What the keys are for in practice: [training.md](training.md).
"""
VARIANTS_INTRODUCTION = """`model.variant` names the rows of the paper's Tables 1 and 2. Heads: `nae` detects and embeds
in one, `seqnet` has a detection head and then a re-id head, `cascaded` one more re-id head. Mixing is what stands
before res5 of every head:

"""
ABOUT = "Of presets only, for `psarm models`; training ignores it."


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for group, kind in typing.get_type_hints(Config).items():
        parts += _group(group, kind)
        if group == "model":
            parts.append(_variants())
    parts += _group("about", About, ABOUT)
    return "\n".join(parts)


def _group(name: str, cls: type[Any], note: str = "") -> Iterator[str]:
    """The heading, the docstring and the table of a group, then those of the groups in it."""
    hints, meanings = typing.get_type_hints(cls), attribute_docstrings(cls)
    inner: dict[str, Any] = {key: kind for key, kind in hints.items() if dataclasses.is_dataclass(kind)}
    yield f"## {name}\n"
    yield "\n\n".join(filter(None, [_one_line(inspect.getdoc(cls) or ""), note])) + "\n"
    if cls is LossWeights:  # a key is the name of a loss, which says it all
        rows: list[tuple[str, ...]] = [(f"`{field.name}`", _shown(field.default)) for field in dataclasses.fields(cls)]
        yield _table(("key", "default"), rows)
    else:
        fields = [field for field in dataclasses.fields(cls) if field.name not in inner]
        rows = [
            (f"`{field.name}`", _type(hints[field.name]), _shown(field.default), meanings.get(field.name, ""))
            for field in fields
        ]
        yield _table(("key", "type", "default", "meaning"), rows)
    for key, kind in inner.items():
        yield from _group(f"{name}.{key}", kind, meanings.get(key, ""))


def attribute_docstrings(cls: type[Any]) -> dict[str, str]:
    """The string that stands below each field of a dataclass, on one line."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            value = below.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found[field.target.id] = _one_line(value.value)
    return found


def _variants() -> str:
    rows = [(f"`{name}`", variant.heads, variant.mixing or "") for name, variant in VARIANTS.items()]
    return VARIANTS_INTRODUCTION + _table(("variant", "heads", "mixing"), rows)


def _table(titles: tuple[str, ...], rows: typing.Sequence[tuple[str, ...]]) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _type(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        return f"list of {_type(get_args(kind)[0])}s"
    if isinstance(kind, types.UnionType):
        return " or ".join(_type(option) for option in get_args(kind) if option is not type(None))
    names: dict[Any, str] = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return names[kind]


def _shown(value: Any) -> str:
    """A default as YAML has it; nothing for an empty text and for none."""
    if value is None or value == "":
        return ""
    if isinstance(value, tuple):
        value = list(value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _one_line(text: str) -> str:
    return " ".join(text.split())


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
def main(target: Path) -> None:
    """Write the reference of every configuration key to TARGET."""
    write_text(target, page())
    out.print(f"Written: {target}", soft_wrap=True)


if __name__ == "__main__":
    run(main)
