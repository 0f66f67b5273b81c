"""Sources of a gallery by the name a user gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from psarm.errors import UsageError

if TYPE_CHECKING:
    from psarm.runtime.gallery.gallery import Gallery


def full_name(gallery: Gallery, name: str) -> str:
    """A source's name in the gallery; a path may be given from the working directory.

    Raises `UsageError` for one that the gallery does not have.
    """
    names = {info.source.name for info in gallery.sources()}
    for candidate in (name, str(Path(name).absolute()), str(Path(name).resolve())):
        if candidate in names:
            return candidate
    raise UsageError(
        f"The gallery {gallery.where} has no source {name}; psarm gallery sources {gallery.where} lists those it has."
    )
