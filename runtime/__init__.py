"""Person search without torch: open a bundle, find people in frames, compare them.

>>> engine = PersonSearch("prw.psarm")
>>> people = engine.detect(read_image("street.jpg"))
"""

from typing import TYPE_CHECKING, Any

from psarm.runtime.bundle import Bundle
from psarm.runtime.detections import Detections, Person
from psarm.runtime.engine import PersonSearch
from psarm.runtime.images import iter_images, read_image
from psarm.runtime.search import Hit, rank
from psarm.runtime.stream import Stream, StreamResult

if TYPE_CHECKING:
    from psarm.runtime.gallery import Gallery

__all__ = [
    "Bundle",
    "Detections",
    "Gallery",
    "Hit",
    "Person",
    "PersonSearch",
    "Stream",
    "StreamResult",
    "iter_images",
    "rank",
    "read_image",
]


def __getattr__(name: str) -> Any:
    """`Gallery`, imported when it is asked for: who only finds people does not wait for it."""
    if name == "Gallery":
        from psarm.runtime.gallery import Gallery

        return Gallery
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
