"""Picture and video files → frames as OpenCV has them: uint8 [H,W,3], BGR.

Handled as a viewer shows them: grey becomes three equal channels, transparency is laid over white, 16 bits are scaled
to 8, EXIF rotation is applied. Anything that cannot be read raises `ImageError` with one sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from psarm.errors import ImageError
from psarm.runtime.video import VIDEO_SUFFIXES, Frame, read_frame, read_video

# What a folder is searched for; a file that is named is read whatever its suffix.
IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2", ".avif"]
)
BLOCK_PIXELS = 1 << 18  # converted at a time
PNG, JPEG, TIFF = b"\x89PNG", b"\xff\xd8", (b"II*\0", b"MM\0*")  # how the files begin


@dataclass(frozen=True)
class FrameSource:
    """Where a frame came from."""

    path: Path
    number: int | None = None
    """Frame number in a video, from 0; None for a picture."""

    @property
    def name(self) -> str:
        """The path, of a video with the frame number: `clip.mp4#000123`."""
        return str(self.path) if self.number is None else f"{self.path}#{self.number:06d}"

    def read(self) -> Frame:
        """Read the frame (again)."""
        return read_image(self.path) if self.number is None else read_frame(self.path, self.number)


def read_image(path: str | Path) -> Frame:
    """Read one picture file as uint8 [H,W,3] BGR; raises `ImageError`."""
    path = Path(path)
    data = _read_bytes(path)
    # A PNG that is cut short makes libpng write to stderr on its own: say it before decoding.
    if data.startswith(PNG) and b"IEND" not in data:
        raise ImageError(f"{path} is cut short: the end of the PNG file is missing.")
    image = _decode(path, data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path} has {image.dtype} pixels; pictures of 8 or 16 bits a channel are needed.")
    if _may_be_transparent(data):
        # libtiff has already multiplied 8-bit colours by their alpha.
        premultiplied = data.startswith(TIFF) and image.dtype == np.uint8
        image = _over_white(image, _decode(path, data, cv2.IMREAD_UNCHANGED), premultiplied)
    return _to_8_bits(image)


def find_files(paths: Iterable[str | Path]) -> list[Path]:
    """Expand folders to the pictures and videos under them, sorted, hidden ones left out; files stay as given.

    Raises `ImageError` for a path that does not exist and for a folder without pictures.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise ImageError(f"There is no file or folder {path}.")
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(file for file in path.rglob("*") if _is_media(file.relative_to(path)) and file.is_file())
        if not inside:
            raise ImageError(f"The folder {path} holds no picture or video file.")
        found += inside
    return found


def iter_images(
    paths: Iterable[str | Path], every: int = 1, on_error: Callable[[ImageError], None] | None = None
) -> Iterator[tuple[FrameSource, Frame]]:
    """Frames of pictures, folders (sorted, with subfolders) and videos (every `every`-th frame), one after the other.

    A file that cannot be read raises `ImageError`; with `on_error` it is handed there and the others go on.
    """
    for path in find_files(paths):
        try:
            if path.suffix.lower() in VIDEO_SUFFIXES:
                for number, image in read_video(path, every):
                    yield FrameSource(path, number), image
            else:
                yield FrameSource(path), read_image(path)
        except ImageError as error:
            if on_error is None:
                raise
            on_error(error)


def _is_media(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def _read_bytes(path: Path) -> bytes:
    # Not cv2.imread: it cannot open every unicode path on every system, and hides why a file cannot be read.
    if path.is_dir():
        raise ImageError(f"{path} is a folder; a picture file is needed.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"Cannot read the picture {path}: {error.strerror}.") from error
    if not data:
        raise ImageError(f"{path} is empty (0 bytes); a picture file is needed.")
    return data


def _may_be_transparent(data: bytes) -> bool:
    """Whether it is worth decoding a second time for an alpha channel."""
    if data.startswith(PNG):
        colour_type = data[25]  # 4, 6: with alpha; else a tRNS chunk before the pixels may name a colour or palette
        return colour_type in (4, 6) or b"tRNS" in data[: data.find(b"IDAT")]
    return not data.startswith(JPEG)


def _decode(path: Path, data: bytes, flags: int) -> NDArray[Any]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error):
            raise ImageError(f"{path} has more pixels than OpenCV decodes (2^30); make the picture smaller.") from error
        raise ImageError(f"{path} cannot be decoded: {' '.join(str(error.err).split())}.") from error
    if image is None:
        hint = " (videos are read by psarm detect and psarm search)" if path.suffix.lower() in VIDEO_SUFFIXES else ""
        raise ImageError(f"{path} is damaged or not a picture that OpenCV reads{hint}.")
    return image


def _over_white(image: NDArray[Any], unchanged: NDArray[Any], premultiplied: bool) -> NDArray[Any]:
    """`image` [H,W,3], changed in place: the transparency of `unchanged` [h,w,4], if it has any, laid over white."""
    if unchanged.ndim != 3 or unchanged.shape[2] != 4:
        return image
    limit = np.iinfo(image.dtype).max
    oriented = _oriented_as(unchanged, image)
    for rows in _blocks(image):
        alpha = oriented[rows, :, 3:].astype(np.float32) / limit
        blended = image[rows] * (1 if premultiplied else alpha) + limit * (1 - alpha)
        image[rows] = np.rint(blended).clip(0, limit).astype(image.dtype)
    return image


def _oriented_as(unchanged: NDArray[Any], image: NDArray[Any]) -> NDArray[Any]:
    """`unchanged` turned as `image` is: OpenCV applies EXIF rotation only where it drops the alpha channel."""
    for turned in (unchanged, unchanged[:, ::-1]):
        for quarter_turns in range(4):
            candidate = np.rot90(turned, quarter_turns)
            same_shape = candidate.shape[:2] == image.shape[:2]
            if same_shape and all(np.array_equal(candidate[rows, :, :3], image[rows]) for rows in _blocks(image)):
                return candidate
    raise ImageError("The transparent and the plain reading of a picture differ; save it without transparency.")


def _to_8_bits(image: NDArray[Any]) -> Frame:
    if image.dtype == np.uint8:
        return image
    small = np.empty(image.shape, np.uint8)
    for rows in _blocks(image):
        small[rows] = (image[rows].astype(np.uint32) + 128) // 257
    return small


def _blocks(image: NDArray[Any]) -> Iterator[slice]:
    """All rows, a few at a time: a wider type then takes little memory, however large the picture."""
    height, width = image.shape[:2]
    step = max(1, BLOCK_PIXELS // width)
    return (slice(top, top + step) for top in range(0, height, step))
