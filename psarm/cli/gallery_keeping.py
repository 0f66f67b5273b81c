"""`psarm gallery compact`, `purge`, `delete-source`, `delete-visit`: keep a gallery small, no longer than allowed."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from psarm.cli.gallery_options import AS_JSON, AUDIT_LOG, GALLERY
from psarm.cli.gallery_sources import full_name
from psarm.cli.gallery_times import local, parse_age, zone
from psarm.cli.gallery_words import counts, parse_visits
from psarm.errors import UsageError

if TYPE_CHECKING:
    from psarm.runtime.gallery.records import Removed

YES = click.option("--yes", is_flag=True, help="Do not ask.")


@click.command()
@GALLERY
@AS_JSON
def compact(gallery: str, as_json: bool) -> None:
    """Join the small files that indexing leaves. Versions older than an hour are removed."""
    from rich.filesize import decimal

    from psarm.console import out
    from psarm.runtime.gallery.gallery import Gallery

    with Gallery.open(gallery) as opened:
        before = opened.info().bytes
        opened.compact()
        after = opened.info().bytes
    if as_json:
        click.echo(json.dumps({"bytes_before": before, "bytes_after": after}))
    elif before is None or after is None:
        out.print("Compacted.")
    else:
        grown = " What was replaced is kept for an hour; a compaction after that removes it." if after > before else ""
        out.print(f"Compacted: {decimal(after)}, before {decimal(before)}.{grown}")


@click.command()
@GALLERY
@click.option(
    "--older-than",
    callback=parse_age,
    required=True,
    metavar="AGE",
    help="Such as 30d, 12h or 4w: kept is what is newer.",
)
@click.option("--dry-run", is_flag=True, help="Count what would be erased, and erase nothing.")
@YES
@AUDIT_LOG
@AS_JSON
def purge(gallery: str, older_than: timedelta, dry_run: bool, yes: bool, audit_log: Path | None, as_json: bool) -> None:
    """Erase who was seen longer ago than AGE, from the disk too. The audit log gets a line.

    Where nobody knows when a source was taken, it counts from when it was indexed. Run it every day by cron to keep to
    a retention period.
    """
    from psarm.runtime.gallery.gallery import Gallery

    moment = datetime.now(UTC) - older_than
    with Gallery.open(gallery, audit_log) as opened:
        found = opened.to_be_purged(moment)
        before = f"seen before {local(moment)} ({zone(moment)})"
        if dry_run:
            _tell(found, f"would be erased, {before}", as_json)
            return
        if found.people or found.visits:
            _confirm(f"Erase {counts(found)} {before} from {opened.where}?", yes)
        _tell(opened.purge(moment), f"erased, {before}", as_json)


@click.command()
@GALLERY
@click.argument("name")
@YES
@AUDIT_LOG
@AS_JSON
def delete_source(gallery: str, name: str, yes: bool, audit_log: Path | None, as_json: bool) -> None:
    """Erase the source NAME with its people and visits. They go from the disk too; it can be indexed again then.

    The end of its path, such as the file's name, will do where no other source has it. The audit log gets a line.
    """
    from psarm.runtime.gallery.gallery import Gallery

    with Gallery.open(gallery, audit_log) as opened:
        name = full_name(opened, name)
        _confirm(f"Erase {name} with all that was found in it from {opened.where}?", yes)
        _tell(opened.delete_source(name), f"of {name} erased", as_json)


@click.command()
@GALLERY
@click.argument("visits", nargs=-1, required=True, metavar="VISIT...", callback=parse_visits)
@click.option("--dry-run", is_flag=True, help="Count what would be erased, and erase nothing.")
@YES
@AUDIT_LOG
@AS_JSON
def delete_visit(
    gallery: str, visits: tuple[int, ...], dry_run: bool, yes: bool, audit_log: Path | None, as_json: bool
) -> None:
    """Erase VISITs with their people, from the disk too. For somebody who asks to be forgotten.

    psarm search --gallery shows which visits there are, as 3-17, and its JSON as one number. They are not indexed again
    by the same psarm index. The audit log gets a line.
    """
    from psarm.runtime.gallery.gallery import Gallery

    with Gallery.open(gallery, audit_log) as opened:
        found = opened.visits_to_be_deleted(visits)
        if dry_run:
            _tell(found, "would be erased", as_json)
            return
        _confirm(f"Erase {counts(found)} from {opened.where}?", yes)
        _tell(opened.delete_visits(visits), "erased", as_json)


def _confirm(question: str, yes: bool) -> None:
    """Ask, unless --yes says so already; raises `UsageError` where there is nobody to ask."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody can be asked here; add --yes.")
    click.confirm(question, abort=True, err=True)


def _tell(removed: Removed, what: str, as_json: bool) -> None:
    from psarm.console import err, out

    if as_json:
        record = {"people": removed.people, "visits": removed.visits, "index_dropped": list(removed.index_dropped)}
        click.echo(json.dumps(record))
    else:
        out.print(f"{counts(removed)} {what}.", markup=False)
    if removed.index_dropped:
        err.print(f"The index of {' and '.join(removed.index_dropped)} went with them; run psarm gallery index again.")
