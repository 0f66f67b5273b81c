"""People of hours of video in a LanceDB store, and the search among them."""

from psarm.runtime.gallery.gallery import Gallery
from psarm.runtime.gallery.records import FrameHit, VisitHit, Where
from psarm.runtime.gallery.search import Approximate

__all__ = ["Approximate", "FrameHit", "Gallery", "VisitHit", "Where"]
