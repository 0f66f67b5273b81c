"""Options and behaviour that `psarm detect`, `psarm search` and `psarm index` share."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from psarm.errors import ImageError, UsageError

if TYPE_CHECKING:
    from psarm.runtime import PersonSearch, StreamResult
    from psarm.runtime.images import FrameSource
    from psarm.runtime.video import Frame

Command = TypeVar("Command", bound=Callable[..., object])

BACKEND_HELP = (
    "auto (the fastest that loads), tensorrt, tensorrt_rtx, openvino, onnxruntime, onnxruntime_tensorrt or torch; "
    "psarm doctor BUNDLE says which run the bundle, and in which precisions."
)
PRECISION_HELP = "auto (fp32: exact), fp32, bf16 (runs the fp32 graphs), fp16 or int8."
FEW_FRAMES = 32
"""Up to this many, loading the graphs again for a second request in the network takes longer than it saves."""
EXISTING = click.Path(exists=True, path_type=Path)


def network_options(command: Command) -> Command:
    """Add --backend, --precision, --threads, --conf and --batch."""
    for option in reversed(
        [
            click.option("--backend", default="auto", show_default=True, metavar="NAME", help=BACKEND_HELP),
            click.option("--precision", default="auto", show_default=True, metavar="NAME", help=PRECISION_HELP),
            click.option(
                "--threads",
                type=click.IntRange(min=1),
                help="CPU threads  [default: OMP_NUM_THREADS, or every usable core].",
            ),
            click.option("--conf", type=click.FloatRange(0, 1), help="Drop people scored lower  [default: bundle's]."),
            click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Frames at a time."),
        ]
    ):
        command = option(command)
    return command


def engine_options(command: Command) -> Command:
    """Add those of `network_options` and --every."""
    every = click.option(
        "--every", type=click.IntRange(min=1), default=1, show_default=True, help="Of a video, take every N-th frame."
    )
    return network_options(every(command))


class Frames:
    """Frames of the paths given, and their people; files that cannot be read are told on stderr and counted.

    Raises `UsageError` at once for a folder without pictures.
    """

    def __init__(self, paths: tuple[Path, ...], every: int, batch: int, skip: Path | None = None) -> None:
        from psarm.runtime.images import find_files

        quiet_decoders()
        self.every, self.batch = every, batch
        self._read = 0
        self._errors: list[ImageError] = []
        try:
            files = find_files(paths)
        except ImageError as error:
            raise UsageError(str(error)) from error
        self.files = [file for file in files if skip is None or not file.samefile(skip)]

    @property
    def total(self) -> int | None:
        """How many frames there are, None where a video leaves it open."""
        from psarm.runtime.video import VIDEO_SUFFIXES

        return None if any(f.suffix.lower() in VIDEO_SUFFIXES for f in self.files) else len(self.files)

    def detect(self, engine: PersonSearch) -> Iterator[tuple[FrameSource, StreamResult]]:
        """Frames and their people, one after the other; raises `ImageError` where the only file gives no frame."""
        from psarm.runtime.images import iter_images

        sources: deque[FrameSource] = deque()

        def frames() -> Iterator[Frame]:
            for source, frame in iter_images(self.files, self.every, self._report):
                sources.append(source)
                yield frame

        requests = 1 if self.total is not None and self.total <= FEW_FRAMES else None
        with engine.stream(frames(), self.batch, max_wait=None, requests=requests) as stream:
            for result in stream:
                self._read += 1
                yield sources.popleft(), result
        if self._errors and len(self.files) == 1 and not self._read:
            raise self._errors[0]

    def raise_if_unreadable(self) -> None:
        """End with exit code 1 when some files could not be read, or not to their end."""
        if self._errors and len(self.files) == 1:
            raise self._errors[0]
        if self._errors:
            raise ImageError(f"{len(self._errors)} of {len(self.files)} files could not be read (named above).")

    def _report(self, error: ImageError) -> None:
        from psarm.console import err

        self._errors.append(error)
        if len(self.files) > 1:
            err.print(f"Skipped: {error}", markup=False)


def check_bundle_first(bundle: Path, paths: tuple[Path, ...]) -> None:
    """Raise `UsageError` where BUNDLE is no bundle and a PATH is one: the arguments came in the wrong order."""
    from psarm.runtime.manifest import MANIFEST_NAME

    found = next((path for path in paths if (path / MANIFEST_NAME).is_file()), None)
    if found and not (bundle / MANIFEST_NAME).is_file():
        raise UsageError(f"BUNDLE comes first: {bundle} is no bundle and {found} is; swap them.")


def open_engine(bundle: Path, backend: str, precision: str, threads: int | None, conf: float | None) -> PersonSearch:
    """Open the bundle and say on stderr, in a line, what runs it, and why where that is not what was meant."""
    from psarm.console import err
    from psarm.machine import default_threads
    from psarm.runtime import PersonSearch
    from psarm.runtime.backends.ort_providers import cuda_obstacle

    engine = PersonSearch(bundle, backend, precision, threads or default_threads(), conf)
    why = ""
    if backend == "auto":
        why = ": the fastest that loads here; psarm doctor BUNDLE says more"
    elif backend == "onnxruntime" and (obstacle := cuda_obstacle()):
        why = f": {obstacle}"
    err.print(f"Running on {engine.summary}{why}.", markup=False, soft_wrap=True)
    return engine


def quiet_decoders() -> None:
    """Keep OpenCV and FFmpeg from writing their own lines about damaged files: ours says what matters."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
