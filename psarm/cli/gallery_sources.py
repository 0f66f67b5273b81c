"""Sources of a gallery by the name a user gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from psarm.errors import UsageError

if TYPE_CHECKING:
    from psarm.runtime.gallery.gallery import Gallery


def full_name(gallery: Gallery, name: str) -> str:
    """A source's name in the gallery; a path may be given from the working directory, or its end if only one has it.

    Raises `UsageError` for one that the gallery does not have, and for an end of several.
    """
    names = [info.source.name for info in gallery.sources()]
    for candidate in (name, str(Path(name).absolute()), str(Path(name).resolve())):
        if candidate in names:
            return candidate
    end = "/" + name.removeprefix("./")
    ending = [full for full in names if full.endswith(end)]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise UsageError(
            f"The gallery {gallery.where} has {len(ending)} sources that end in {name}: {', '.join(ending)}; give more "
            "of the path."
        )
    raise UsageError(
        f"The gallery {gallery.where} has no source {name}; psarm gallery sources {gallery.where} lists those it has."
    )
