"""Where a gallery is, as an argument: a directory that is there, or an address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class GalleryPath(click.ParamType[str]):
    """A directory, which has to be there, or an address (`s3://…`), of which nothing is known before it is opened."""

    name = "directory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """What was given; fails where it is a path and nothing is there."""
        if "://" not in value and not Path(value).exists():
            self.fail(f"Directory '{value}' does not exist.", param, ctx)
        return str(value)
