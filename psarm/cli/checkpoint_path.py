"""The path of a checkpoint as an argument: a file, and no bundle; with a name before it where several are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from psarm.errors import UsageError


class CheckpointPath(click.Path):
    """An existing file; a bundle, the likeliest folder to be given instead, gets its own sentence."""

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; raises `UsageError` for a bundle and click's `BadParameter` for what else is no file."""
        from psarm.runtime.manifest import MANIFEST_NAME

        if (Path(value) / MANIFEST_NAME).is_file():
            raise UsageError(
                f"{value} is a bundle (it has a {MANIFEST_NAME}); give the checkpoint it was made from, such as "
                "model.safetensors."
            )
        return super().convert(value, param, ctx)


class NamedCheckpointPath(CheckpointPath):
    """`CKPT` or `NAME=CKPT`, as a `psarm.benchmarks.paper.NamedCheckpoint`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The name and the path, which has to be as `CheckpointPath` wants it; `UsageError` for an empty name."""
        from psarm.benchmarks.paper.settings import NamedCheckpoint

        given = NamedCheckpoint.parse(value)
        super().convert(given.path, param, ctx)
        return given
