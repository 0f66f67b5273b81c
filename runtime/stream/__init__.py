"""Video through an engine: decoding, preprocessing, network and post-processing at the same time, in bounded memory."""

from psarm.runtime.stream.options import StreamOptions
from psarm.runtime.stream.sources import StreamSource
from psarm.runtime.stream.stream import Stream, StreamResult

__all__ = ["Stream", "StreamOptions", "StreamResult", "StreamSource"]
