"""The tables of a gallery, opened: what reading and writing stand on."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from psarm.errors import GalleryError
from psarm.extras import require
from psarm.files import is_taken
from psarm.runtime.gallery.durable import bring_to_disk, files_of
from psarm.runtime.gallery.lock import writer_lock
from psarm.runtime.gallery.records import GalleryFacts
from psarm.runtime.gallery.schema import FACTS, PEOPLE, SCHEMA_VERSION, SEGMENTS, SOURCES, VISITS, schemas

if TYPE_CHECKING:
    from lancedb.db import DBConnection
    from lancedb.table import Table

Result = TypeVar("Result")

TABLES = (SOURCES, PEOPLE, VISITS, SEGMENTS)

READS = 10
"""How often a read is begun again whose files a purge removed."""

TEMPORARY = ".tmp"
"""End of the name of the folder that a gallery is made in."""

INDEX_CACHE, METADATA_CACHE = 512 << 20, 64 << 20
"""Bytes that LanceDB may keep in memory; it takes gigabytes unless told."""


class Store:
    """A gallery's facts and its opened tables, each at the version of the last `refresh`."""

    def __init__(self, where: str, database: DBConnection, facts: GalleryFacts) -> None:
        """`Store.open` and `Store.create` make one."""
        self.where = where
        self.database = database
        self.facts = facts
        with _said(where, "is damaged and cannot be read"):
            try:
                opened = _again(lambda: {name: database.open_table(name) for name in TABLES})
            except ValueError as error:
                raise GalleryError(f"{where} is damaged: {error}; restore it from a copy, or index again.") from error
        self.sources: Table = opened[SOURCES]
        self.people: Table = opened[PEOPLE]
        self.visits: Table = opened[VISITS]
        self.segments: Table = opened[SEGMENTS]
        self._on_disk: dict[str, set[Path]] = {}  # by table

    @classmethod
    def create(cls, where: str | Path, facts: GalleryFacts) -> Self:
        """Make the tables, empty; raises `GalleryError`, and leaves nothing then.

        A new directory is a gallery or is not there. One that was there and empty has to be emptied after a kill.
        """
        address = _address(where)
        directory = _directory(address)
        if directory is None:
            database = _connect(address)
            with _said(address, "cannot be written"):
                if database.list_tables().tables:
                    raise GalleryError(f"{address} holds tables already; open it, or give an empty place.")
                try:
                    _make_tables(database, facts)
                except ValueError as error:  # another process was quicker
                    raise GalleryError(f"{address} cannot be made: {error}; open it, or give another place.") from error
            return cls(address, database, facts)
        if directory.exists() and (not directory.is_dir() or is_taken(directory)):
            raise GalleryError(f"{address} is there already; open it, or give a directory that does not exist yet.")
        try:
            _make_directory(directory, facts)
            bring_to_disk(files_of(directory), directory.parent)
        except OSError as error:
            raise GalleryError(f"{address} cannot be made: {error.strerror}.") from error
        return cls(address, _connect(address), facts)

    @classmethod
    def open(cls, where: str | Path) -> Self:
        """Open the tables; raises `GalleryError` where that cannot be done, and says why."""
        address = _address(where)
        directory = _directory(address)
        if directory is not None and not directory.exists():
            raise GalleryError(
                f"{address} does not exist; make a gallery with: psarm index BUNDLE VIDEO --gallery DIR."
            )
        if directory is not None and not directory.is_dir():
            raise GalleryError(f"{address} is a file; a gallery is a directory.")
        database = _connect(address)
        return cls(address, database, _read_facts(address, database))

    @property
    def directory(self) -> Path | None:
        """Where its files lie; None on object storage."""
        return _directory(self.where)

    def refresh(self) -> None:
        """See what was committed until now.

        Segments first, so that what they commit is in the others; sources last, so that nobody is of an unknown one.
        """
        tables: list[Any] = [self.segments, self.people, self.visits, self.sources]
        for table in tables:
            table.checkout_latest()

    def read(self, read: Callable[[Store], Result]) -> Result:
        """`read` on the tables as they are now; raises `GalleryError` where they cannot be read.

        A purge removes files at once; a read that was on them begins again.
        """

        def refreshed() -> Result:
            self.refresh()
            return read(self)

        with _said(self.where, "cannot be read"):
            return _again(refreshed)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the writer's lock; raises `GalleryError` where another process has it, or writing fails."""
        directory = self.directory
        with nullcontext() if directory is None else writer_lock(directory), self.said():
            self.refresh()
            self._on_disk = {name: files_of(_folder(directory, name)) for name in TABLES if directory}
            yield
            self.bring_to_disk(*TABLES)

    def bring_to_disk(self, *tables: str) -> None:
        """Wait until what was written to tables since `writing` began is on the disk; on object storage it is."""
        directory = self.directory
        if directory is None:
            return
        for name in tables:
            files = files_of(_folder(directory, name))
            bring_to_disk(files - self._on_disk[name], directory)
            self._on_disk[name] = files

    @contextmanager
    def said(self) -> Iterator[None]:
        """Turn what LanceDB raises in a write into a `GalleryError`."""
        with _said(self.where, "cannot be written"):
            yield


def _address(where: str | Path) -> str:
    text = str(where)
    return text if "://" in text else str(Path(text).absolute())


def _directory(address: str) -> Path | None:
    return None if "://" in address else Path(address)


def _folder(directory: Path, table: str) -> Path:
    return directory / f"{table}.lance"


def _connect(address: str) -> DBConnection:
    require("lancedb", "pyarrow", feature="a gallery", extra="gallery")
    import lancedb

    with _said(address, "cannot be opened"):
        try:
            session = lancedb.Session(index_cache_size_bytes=INDEX_CACHE, metadata_cache_size_bytes=METADATA_CACHE)
            return lancedb.connect(address, session=session)
        except ValueError as error:
            raise GalleryError(f"{address} cannot be opened: {_cause(error)}") from error


def _again(read: Callable[[], Result]) -> Result:
    """`read`, begun again where files were removed under it."""
    for _ in range(READS - 1):
        try:
            return read()
        except (RuntimeError, ValueError, OSError) as error:
            if not _is_gone(error):
                raise
    return read()


def _is_gone(error: Exception) -> bool:
    text = str(error).lower()
    return "lance" in text and "not found" in text


def _make_directory(directory: Path, facts: GalleryFacts) -> None:
    """Make a gallery in a directory that does not exist or is empty, whole or not at all."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    empty = directory.exists()  # may be a mount point, which nothing can be renamed to
    within = directory if empty else directory.parent
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", suffix=TEMPORARY, dir=within) as temporary:
        made = Path(temporary, directory.name)
        made.mkdir()  # with the rights of other directories, which the temporary one has not
        with _said(str(directory), "cannot be written"):
            _make_tables(_connect(str(made)), facts)
        bring_to_disk(files_of(made), made)  # which is where a full disk shows
        if not empty:
            made.rename(directory)  # fails where another process was quicker
            return
        for name in (*TABLES, FACTS):  # so does the first of these; the facts last: what has them is complete
            _folder(made, name).rename(_folder(directory, name))


def _is_half_made(directory: Path | None) -> bool:
    """Whether `_make_directory` did not come to its end in a directory without facts: nothing is in the tables."""
    if directory is None:
        return False
    begun = [path for path in directory.glob(f".*{TEMPORARY}") if path.name.startswith(f".{directory.name}.")]
    moved = _folder(directory, TABLES[0]).exists()
    return any(not moved or _folder(path / directory.name, FACTS).exists() for path in begun)


def _make_tables(database: DBConnection, facts: GalleryFacts) -> None:
    """The facts come last: what has them is complete."""
    import pyarrow as pa

    tables = schemas(facts.embedding_dim)
    for name in TABLES:
        database.create_table(name, schema=tables[name])
    text = json.dumps(asdict(facts), default=datetime.isoformat)
    database.create_table(FACTS, pa.table({"json": [text]}, schema=tables[FACTS]))


def _read_facts(address: str, database: DBConnection) -> GalleryFacts:
    with _said(address, "is damaged and cannot be read"):
        try:
            rows = _again(lambda: database.open_table(FACTS).search().to_list())
        except ValueError as error:
            if _is_half_made(_directory(address)):
                raise GalleryError(
                    f"{address} is no gallery yet: another process makes it, or was killed while it did; where none "
                    "does, remove all that is in this directory, hidden files too, and index again."
                ) from error
            raise GalleryError(
                f"{address} is no gallery, or a damaged one: {error}; give the directory of one that psarm index made."
            ) from error
    try:
        values: dict[str, Any] = json.loads(rows[0]["json"])
        version = values["schema"]
        if version != SCHEMA_VERSION:
            raise GalleryError(
                f"{address} has schema {version}, and this psarm reads {SCHEMA_VERSION}; "
                f"{'upgrade psarm' if version > SCHEMA_VERSION else 'index the videos again'}."
            )
        values["created"] = datetime.fromisoformat(values["created"]).astimezone(UTC)
        return GalleryFacts(**values)
    except (LookupError, TypeError, ValueError) as error:
        raise GalleryError(
            f"{address} is damaged: its facts are {rows} ({error!r}); restore it from a copy."
        ) from error


@contextmanager
def _said(address: str, what: str) -> Iterator[None]:
    """Turn what Lance raises, which names its source files, into a sentence."""
    try:
        yield
    except RuntimeError as error:
        if not _is_lance(error):
            raise
        raise GalleryError(f"{address} {what}: {_cause(error)}") from error
    except OSError as error:
        if error.filename is not None and not Path(str(error.filename)).is_relative_to(address):
            raise  # of another file, such as that of an export
        raise GalleryError(f"{address} {what}: {error}") from error


def _cause(error: Exception) -> str:
    """Lance's message without the lines of its source; object storage's can be a page."""
    message = re.sub(r"(, /\S+?\.rs:\d+:\d+)+", "", str(error).removeprefix("lance error: "))
    message = re.sub(r"LanceError\(\w+\): ", "", message)
    if answer := re.search(r"<Message>(.*?)</Message>", message):
        message = f"{answer[1]}."
    return message if len(message) < 400 else f"{message[:400]} …"


def _is_lance(error: RuntimeError) -> bool:
    return "lance" in str(error).lower()
