"""Every error psarm raises on purpose.

The tree, with the exit code the command line turns each into::

    PsarmError                 1   anything that failed for a reason we can name
    ├── UsageError             2   an argument or option that cannot work
    │   └── ConfigError        2   a configuration key or value that cannot work
    ├── MissingExtraError      2   an optional dependency is not installed
    ├── DataError              1   a data set or annotation on disk
    ├── ImageError             1   an image or video that cannot be read
    ├── CheckpointError        1   a checkpoint that cannot be loaded
    ├── BundleError            1   an exported bundle that cannot be opened
    ├── StreamError            1   a stream of frames that cannot go on
    ├── GalleryError           1   a gallery that cannot be opened, read or written
    ├── ExportError            1   an export that failed or did not verify
    └── TrainingError          1   training that cannot go on

Messages are one sentence that says what came, what was needed and what to do.
"""

from __future__ import annotations

from typing import Any


class PsarmError(Exception):
    """Base of all errors psarm raises on purpose."""

    exit_code = 1


class UsageError(PsarmError):
    """An argument or option that cannot work."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration key or value that cannot work; the message names it."""


class MissingExtraError(PsarmError):
    """An optional dependency is needed and not installed; the message holds the install command."""

    exit_code = 2

    def __init__(self, feature: str, extra: str, cause: str) -> None:
        super().__init__(
            f"{feature} needs the '{extra}' extra ({cause}); install it with: pip install 'psarm[{extra}]'."
        )


class DataError(PsarmError):
    """A data set or annotation on disk that cannot be used."""


class ImageError(PsarmError):
    """An image or video that cannot be read."""


class CheckpointError(PsarmError):
    """A checkpoint that cannot be loaded."""


class BundleError(PsarmError):
    """An exported bundle that cannot be opened."""


class StreamError(PsarmError):
    """A stream of frames that cannot go on, because of one of its sources or of what runs the network."""

    def __init__(self, message: str, source: str | None = None, last_good: dict[str, int] | None = None) -> None:
        """`source`: the one that failed, None where it was none of them."""
        super().__init__(message)
        self.source = source
        self.last_good: dict[str, int] = last_good or {}
        """By source, the index of the last frame whose result was given out."""


class GalleryError(PsarmError):
    """A gallery that cannot be opened, read or written."""


class ExportError(PsarmError):
    """An export that failed or did not pass its verification.

    `report` is None, or the `psarm.export.ExportReport` of one that failed for what was measured.
    """

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


class TrainingError(PsarmError):
    """Training that cannot go on."""
