"""`psarm gallery audit`: who searched, exported and erased what."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psarm.cli.gallery_options import AS_JSON
from psarm.cli.gallery_path import GalleryPath
from psarm.cli.gallery_times import local
from psarm.errors import GalleryError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from psarm.runtime.gallery.gallery import Gallery

Entry = dict[str, Any]


def _there(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """The gallery, which has to be there only where its own log is read."""
    return value if context.params["audit_log"] else GalleryPath().convert(value, parameter, context)


@click.command()
@click.argument("gallery", callback=_there)
@click.option(
    "--audit-log",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    is_eager=True,
    help="Read this file, where --audit-log was given then. GALLERY may be gone.",
)
@AS_JSON
def audit(gallery: str, audit_log: Path | None, as_json: bool) -> None:
    """List the searches, exports and erasures. When, by whom, with which picture's name or to which file, of whom.

    An erasure that is not finished was broken off, or could not be written down once more. --json prints the lines as
    they are in the log, two an erasure: one from before it.
    """
    from psarm.console import out, print_whole
    from psarm.runtime.gallery.gallery import Gallery

    if audit_log is None:
        with Gallery.open(gallery) as opened:
            audit_log = _own_log(opened)
    entries = _read(audit_log)
    if as_json:
        for entry in entries:
            click.echo(json.dumps(entry))
    elif entries:
        print_whole(_table(entries), out)
    else:
        out.print("Nobody has searched, exported or erased anything yet.")


def _own_log(gallery: Gallery) -> Path:
    from psarm.runtime.gallery.audit import AUDIT_FILE

    if gallery.store.directory is None:
        raise UsageError(f"{gallery.where} is on object storage and keeps no audit log; say where it is: --audit-log.")
    return gallery.store.directory / AUDIT_FILE


def _read(path: Path) -> list[Entry]:
    if not path.exists():
        return []
    entries = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            entry = json.loads(line)
            _cells(entry)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise GalleryError(
                f"Line {number} of {path} is none of an audit log: it was changed or cut short; take it out to read "
                "the others."
            ) from error
        entries.append(entry)
    return entries


def _table(entries: list[Entry]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("time", "user", "what", "pictures or file", "filters", "how many")
    ended = {str(entry.get("erasure")) for entry in entries if _counts(entry)}
    for entry in entries:
        if _counts(entry) or str(entry["erasure"]) not in ended:
            table.add_row(*map(Text, _cells(entry)))
    return table


def _cells(entry: Entry) -> tuple[str, ...]:
    """A line of the table; raises some error or other for what is not of the log."""
    filters = ", ".join(f"{name} {_text(value)}" for name, value in entry["filters"].items())
    counts = _counts(entry)
    if counts:
        many = "failed" if None in counts.values() else ", ".join(f"{count} {name}" for name, count in counts.items())
    elif "erasure" in entry:
        many = "not finished"
    else:
        raise LookupError("how many")
    time = local(datetime.fromisoformat(entry["time"]))
    files = entry.get("query", entry.get("out", ""))  # an erasure has none
    return time, _text(entry["user"]), _text(entry["what"]), _text(files), filters, many


def _counts(entry: Entry) -> dict[str, int | None]:
    """How many; nothing for the line from before an erasure."""
    return {name: entry[name] for name in ("hits", "visits", "people") if name in entry}


def _text(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.encode(errors="backslashreplace").decode()  # names of files may be any bytes
