"""Person search without torch: open a bundle, find people in frames, compare them.

>>> engine = PersonSearch("prw.psarm")
>>> people = engine.detect(read_image("street.jpg"))
"""

from psarm.runtime.bundle import Bundle
from psarm.runtime.detections import Detections, Person
from psarm.runtime.engine import PersonSearch
from psarm.runtime.images import iter_images, read_image
from psarm.runtime.search import Hit, rank
from psarm.runtime.stream import Stream, StreamResult

__all__ = [
    "Bundle",
    "Detections",
    "Hit",
    "Person",
    "PersonSearch",
    "Stream",
    "StreamResult",
    "iter_images",
    "rank",
    "read_image",
]
