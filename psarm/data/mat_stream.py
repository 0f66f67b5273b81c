"""Huge MATLAB struct arrays, element by element.

scipy makes a Python object of every array inside a struct. CUHK-SYSU's TestG4000.mat holds 35 million of them, which
is 12 GB; `stream_struct` hands out one element of the outer array after the other, and `Struct` reads the inner one
in place. The format is MathWorks' "MAT-File Format", level 5: elements made of a tag (type and size in bytes) and of
data padded to 8 bytes. A matrix is an element that holds elements: flags, dimensions, name, content.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from psarm.errors import DataError

_HEADER_SIZE = 128
_MATRIX, _COMPRESSED = 14, 15  # types of elements
_STRUCT, _CHARACTERS, _FIRST_NUMBERS = 2, 4, 6  # classes of matrices; those from 6 to 15 hold numbers
_NUMBERS = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_CHARACTER_SIZE = np.zeros(19, np.int64)  # bytes, by type of element; 0: no characters
_CHARACTER_SIZE[[1, 2, 16]], _CHARACTER_SIZE[[4, 17]] = 1, 2  # int8, uint8, UTF-8; uint16, UTF-16
_CHUNK = 1 << 18
# Where the parts of a matrix without name, of two dimensions, begin: in 32-bit words from its tag.
_FLAGS, _DIMENSIONS, _NAME, _CONTENT = 2, 6, 10, 12


@dataclass(frozen=True)
class Struct:
    """A struct array in memory, and where the values of its fields lie in it."""

    data: bytes
    fields: tuple[str, ...]
    tags: NDArray[np.int64]  # [elements, fields], offsets of the values' tags

    @classmethod
    def parse(cls, data: bytes) -> Struct:
        """Take apart the bytes that follow a matrix's tag; raises `DataError` where that is no struct array."""
        reader = _Reader(_from_memory(data))
        header = reader.matrix_header()
        fields = reader.fields(header)
        # Everything is a multiple of 8 bytes: a tag is one number, the type in its lower half, the size in its upper.
        units, at, found = memoryview(data)[: len(data) // 8 * 8].cast("Q"), reader.position // 8, []
        try:
            for _ in range(header.count * len(fields)):
                tag = units[at]
                if tag & 0xFFFFFFFF != _MATRIX:
                    raise DataError("the arrays of a struct are damaged.")
                found.append(at)
                at += 1 + (tag >> 35)
        except IndexError:
            raise DataError("the arrays of a struct are damaged.") from None
        if at * 8 != len(data):
            raise DataError("the arrays of a struct are damaged.")
        return cls(data, fields, 8 * np.array(found, np.int64).reshape(header.count, len(fields)))

    def texts(self, field: str) -> NDArray[np.bytes_]:
        """The values of a field that holds one line of ASCII text each; bytes [elements]."""
        tags = self._column(field)
        words = np.frombuffer(self.data, "<u4", len(self.data) // 4)
        at = tags // 4
        text = words[at + 1] >= 4 * _CONTENT  # the size of a matrix that has content
        at = np.where(text, at, 0)
        text &= (words[at + _FLAGS + 2] & 0xFF == _CHARACTERS) & (words[at + _NAME + 1] == 0)
        text &= (words[at + _DIMENSIONS + 1] == 8) & (words[at + _DIMENSIONS + 2] <= 1)
        # A tag whose upper half is not 0 holds its size there, and up to 4 bytes of data beside it.
        kind, size = words[at + _CONTENT].astype(np.int64), words[at + _CONTENT + 1].astype(np.int64)
        small = kind >> 16 > 0
        start = tags + 4 * _CONTENT + np.where(small, 4, 8)
        kind, size = kind & 0xFFFF, np.where(small, kind >> 16, size)
        width = _CHARACTER_SIZE[np.minimum(kind, len(_CHARACTER_SIZE) - 1)]
        if not (text & (width > 0) & (start + size <= len(self.data))).all():
            raise DataError(f"the field {field} should hold texts of one line.")
        return _gather(np.frombuffer(self.data, np.uint8), start, size, width)

    def is_empty(self, field: str) -> NDArray[np.bool_]:
        """Which values of a field are arrays without elements; bool [elements]."""
        at = self._column(field) // 4
        words = np.frombuffer(self.data, "<u4", len(self.data) // 4)
        bare = words[at + 1] == 0  # how MATLAB writes a field that was never set
        rows, columns = (words[np.minimum(at + _DIMENSIONS + offset, len(words) - 1)] for offset in (2, 3))
        empty: NDArray[np.bool_] = bare | (rows == 0) | (columns == 0)
        return empty

    def numbers(self, field: str, element: int) -> NDArray[np.float64]:
        """The numbers in one value of a field; float64 [n]."""
        reader = _Reader(_from_memory(self.data, int(self._column(field)[element])))
        reader.tag()
        header = reader.matrix_header()
        kind, content = reader.element()
        if header.kind < _FIRST_NUMBERS or kind not in _NUMBERS:
            raise DataError(f"the field {field} should hold numbers.")
        dtype = np.dtype(_NUMBERS[kind])
        return np.frombuffer(content, dtype, len(content) // dtype.itemsize).astype(np.float64)

    def _column(self, field: str) -> NDArray[np.int64]:
        if field not in self.fields:
            raise DataError(f"a struct has no field {field} (found: {', '.join(self.fields)}).")
        return self.tags[:, self.fields.index(field)]


@dataclass(frozen=True)
class _Header:
    kind: int
    count: int
    name: str


class _Reader:
    """Reads tags and elements in order from a source of bytes: `pull(n)` gives the next n, fewer at the end."""

    def __init__(self, pull: Callable[[int], bytes]) -> None:
        self._pull = pull
        self.position = 0

    def read(self, size: int) -> bytes:
        """The next `size` bytes; raises `DataError` where they end early."""
        data = self._pull(size)
        if len(data) < size:
            raise DataError("the file ends early.")
        self.position += size
        return data

    def finish(self) -> None:
        """Ask for one byte more: at their end, compressed data are compared with their checksum."""
        self._pull(1)

    def tag(self) -> tuple[int, int]:
        """Type and size of the next element, where that is a matrix."""
        kind, size = struct.unpack("<II", self.read(8))
        return kind, size

    def element(self) -> tuple[int, bytes]:
        """Type and data of the next element; up to 4 bytes may lie in the tag itself."""
        head = self.read(8)
        kind, size = struct.unpack("<II", head)
        if kind >> 16:
            return kind & 0xFFFF, head[4 : 4 + (kind >> 16)]
        data = self.read(size)
        self.read(-size % 8)
        return kind, data

    def matrix_header(self) -> _Header:
        """Class, number of elements and name of a matrix whose tag has just been read."""
        flags, dimensions, name = (self.element()[1] for _ in range(3))
        if len(flags) != 8 or len(dimensions) % 4:
            raise DataError("an array is damaged.")
        count = math.prod(struct.unpack(f"<{len(dimensions) // 4}I", dimensions))
        return _Header(flags[0], count, name.decode("ascii", "replace"))

    def fields(self, header: _Header) -> tuple[str, ...]:
        """The fields of a struct array whose header has just been read."""
        if header.kind != _STRUCT:
            raise DataError("something that should be a struct is not.")
        width = int.from_bytes(self.element()[1], "little")
        names = self.element()[1]
        if width == 0 or len(names) % width:
            raise DataError("a struct is damaged.")
        parts = (names[i : i + width] for i in range(0, len(names), width))
        return tuple(part.split(b"\0")[0].decode("ascii", "replace") for part in parts)


@contextmanager
def stream_struct(path: Path, variable: str) -> Iterator[tuple[int, Iterator[dict[str, bytes]]]]:
    """Open the struct array `variable` of a MATLAB file.

    Yields:
        How many elements it has, and an iterator over them: field → the bytes of its matrix, as `Struct.parse` takes
        them.

    Raises:
        DataError: the file is missing, damaged, no MATLAB 5 file, or has no struct array of that name; also one that
            the caller raises while reading: the sentence then begins with the file.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing.")
    try:
        with path.open("rb") as file:
            reader, header = _find(file, variable)
            fields = reader.fields(header)
            yield header.count, _elements(reader, header.count, fields)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (zlib.error, OSError) as error:
        raise DataError(f"{path} cannot be read as a MATLAB file ({error}).") from error


def _elements(reader: _Reader, count: int, fields: Sequence[str]) -> Iterator[dict[str, bytes]]:
    for _ in range(count):
        yield {field: _matrix(reader) for field in fields}
    reader.finish()


def _find(file: BinaryIO, variable: str) -> tuple[_Reader, _Header]:
    """The reader that stands behind the header of a variable, and that header."""
    if file.read(_HEADER_SIZE)[-2:] != b"IM":
        raise DataError("expected a MATLAB 5 file (little-endian), but it is none.")
    found = []
    while head := file.read(8):
        kind, size = struct.unpack("<II", head) if len(head) == 8 else (0, 0)
        end = file.tell() + size
        reader = _Reader(_inflate(file, size) if kind == _COMPRESSED else file.read)
        if kind == _COMPRESSED:
            kind, _ = reader.tag()
        if kind != _MATRIX:
            raise DataError("it is no MATLAB file, or a damaged one.")
        header = reader.matrix_header()
        if header.name == variable:
            return reader, header
        found.append(header.name)
        file.seek(end)
    raise DataError(f"it has no variable {variable} (found: {', '.join(found) or 'none'}).")


def _matrix(reader: _Reader) -> bytes:
    kind, size = reader.tag()
    if kind != _MATRIX:
        raise DataError("the arrays of a struct are damaged.")
    return reader.read(size)


def _from_memory(data: bytes, position: int = 0) -> Callable[[int], bytes]:
    def pull(size: int) -> bytes:
        nonlocal position
        position += size
        return data[position - size : position]

    return pull


def _inflate(file: BinaryIO, size: int) -> Callable[[int], bytes]:
    """Decompress the next `size` bytes of a file as they are asked for."""
    decompressor, left, buffer = zlib.decompressobj(), size, bytearray()

    def pull(wanted: int) -> bytes:
        nonlocal left
        while len(buffer) < wanted and not decompressor.eof:
            packed = decompressor.unconsumed_tail
            if not packed:
                packed = file.read(min(_CHUNK, left))
                left -= len(packed)
            plain = decompressor.decompress(packed, _CHUNK)
            if not packed and not plain:
                raise DataError("the file ends early.")
            buffer.extend(plain)
        part = bytes(buffer[:wanted])
        del buffer[:wanted]
        return part

    return pull


def _gather(
    data: NDArray[np.uint8], start: NDArray[np.int64], size: NDArray[np.int64], width: NDArray[np.int64]
) -> NDArray[np.bytes_]:
    """Texts that begin at `start`, of `size` bytes, a character being `width` bytes of which the first counts."""
    length = size // width
    texts = np.zeros(len(start), f"S{max(1, int(length.max(initial=0)))}")
    for characters, step in set(zip(length.tolist(), width.tolist(), strict=True)):
        if characters:
            rows = np.flatnonzero((length == characters) & (width == step))
            taken = data[start[rows, None] + step * np.arange(characters)]  # [rows, characters]
            texts[rows] = taken.view(f"S{characters}").ravel()
    return texts
