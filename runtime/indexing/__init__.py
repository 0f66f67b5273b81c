"""Videos, pictures and cameras → a gallery: read frames, find people, follow them, commit."""

from psarm.runtime.indexing.detecting import detect_with
from psarm.runtime.indexing.indexer import Indexer
from psarm.runtime.indexing.sampling import Sampling
from psarm.runtime.indexing.sources import find_readers

__all__ = ["Indexer", "Sampling", "detect_with", "find_readers"]
