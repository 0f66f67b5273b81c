"""What goes out of a gallery, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psarm.runtime.gallery.records import Removed


def counts(removed: Removed) -> str:
    """`2 visits and 31 people in frames`."""
    return f"{removed.visits:,} visits and {removed.people:,} people in frames"
