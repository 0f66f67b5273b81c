"""`psarm gallery info` and `sources`: what is in a gallery."""

from __future__ import annotations

import json
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from psarm.cli.gallery_options import AS_JSON, GALLERY
from psarm.cli.gallery_search_notes import threshold_rate
from psarm.cli.gallery_times import local, span, zone

if TYPE_CHECKING:
    from rich.table import Table

    from psarm.runtime.gallery.calibration import Calibration
    from psarm.runtime.gallery.records import GalleryInfo, SourceInfo


@click.command()
@GALLERY
@AS_JSON
def info(gallery: str, as_json: bool) -> None:
    """Show what a gallery holds."""
    from psarm.runtime.gallery.gallery import Gallery

    with Gallery.open(gallery) as opened:
        found = opened.info()
        calibration = opened.calibration()
        where = opened.where
    record = {
        "gallery": where,
        **_info_record(found),
        "calibrated": None if calibration is None else calibration.created,
        "calibration": None if calibration is None else _calibration_record(calibration),
    }
    if as_json:
        click.echo(json.dumps(record))
    else:
        _print_info(record, found, calibration)


def _calibration_record(calibration: Calibration) -> dict[str, float]:
    threshold = calibration.threshold
    return {
        "threshold": threshold,
        "false_match_rate": calibration.false_match_rate(threshold),
        "bound": calibration.bound(threshold),
    }


def _info_record(found: GalleryInfo) -> dict[str, Any]:
    facts = found.facts
    return {
        "bundle": facts.bundle,
        "fingerprint": facts.fingerprint,
        "embedding_dim": facts.embedding_dim,
        "created": facts.created.isoformat(),
        "thumbnails": facts.thumbnails,
        "keeps_people": facts.people,
        "sources": found.sources,
        "cameras": list(found.cameras),
        "people": found.people,
        "visits": found.visits,
        "start": None if found.start is None else found.start.isoformat(),
        "end": None if found.end is None else found.end.isoformat(),
        "bytes": found.bytes,
        "indexed": list(found.indexed),
    }


def _calibrated(calibration: Calibration | None) -> str:
    if calibration is None:
        return "no"
    created = local(datetime.fromisoformat(calibration.created))
    return (
        f"{created}: from {calibration.threshold:.3f} on {threshold_rate(calibration)} of other people are as similar"
    )


def _print_info(record: dict[str, Any], found: GalleryInfo, calibration: Calibration | None) -> None:
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    from psarm.console import out

    seen = "at times nobody knows"
    if found.start is not None and found.end is not None:
        seen = f"{span(found.start, found.end)} ({zone(found.start)})"
    rows = {
        "gallery": record["gallery"],
        "bundle": record["bundle"],
        "embeddings": f"space {record['fingerprint'][:12]}, {record['embedding_dim']} values",
        "created": local(found.facts.created),
        "cameras": ", ".join(found.cameras) or "–",
        "sources": f"{found.sources:,}",
        "visits": f"{found.visits:,}{' with thumbnails' if found.facts.thumbnails else ''}",
        "people in frames": f"{found.people:,}" if found.facts.people else "not kept, visits only",
        "seen": seen,
        "size": "–" if found.bytes is None else decimal(found.bytes),
        "index": ", ".join(found.indexed) or "none: searches are exact",
        "calibrated": _calibrated(calibration),
    }
    table = Table.grid(padding=(0, 2))
    for name, text in rows.items():
        table.add_row(name, Text(text))
    out.print(table)


@click.command()
@GALLERY
@AS_JSON
def sources(gallery: str, as_json: bool) -> None:
    """List the sources of a gallery and how far each is. People found in it are counted, also those erased since."""
    from psarm.cli.narrow_tables import print_fitting
    from psarm.console import out
    from psarm.runtime.gallery.gallery import Gallery

    with Gallery.open(gallery) as opened:
        found = opened.sources()
    if as_json:
        click.echo(json.dumps([_source_record(info) for info in found]))
    elif found:
        print_fitting(partial(_sources_table, found), out)
    else:
        out.print("No source was indexed yet.")


def _source_record(info: SourceInfo) -> dict[str, Any]:
    source, progress = info.source, info.progress
    return {
        "name": source.name,
        "camera": source.camera,
        "kind": source.kind,
        "settings": dict(source.settings),
        "start": None if source.start is None else source.start.isoformat(),
        "rate": source.rate,
        "added": info.added.isoformat(),
        "planned": source.planned,
        "indexed": progress.frames,
        "skipped": progress.skipped,
        "reasons": dict(progress.reasons),
        "to_do": _to_do(info),
        "people": progress.people,
        "finished": progress.finished,
    }


def _to_do(info: SourceInfo) -> int | None:
    """Frames still to be indexed; None where nobody knows."""
    if info.progress.finished:
        return 0
    return None if info.source.planned is None else info.source.planned - info.progress.frames - info.progress.skipped


def _sources_table(found: list[SourceInfo], narrow: bool) -> Table:
    from rich.text import Text

    from psarm.cli.narrow_tables import PathCell, new_table

    table = new_table(narrow)
    table.add_column("source")
    table.add_column("camera", overflow="fold")
    table.add_column("begins", no_wrap=True)
    for title in ("indexed", "skipped", "to do", "people\nfound"):
        table.add_column(title, justify="right", no_wrap=True)
    for info in found:
        progress, to_do = info.progress, _to_do(info)
        reasons = (",\n" if narrow else ", ").join(f"{count} {reason}" for reason, count in progress.reasons.items())
        begins = "–" if info.source.start is None else local(info.source.start)
        table.add_row(
            PathCell(info.source.name),
            Text(info.source.camera),
            begins.replace(" ", "\n") if narrow else begins,
            f"{progress.frames:,}",
            Text(reasons or "0"),
            "–" if to_do is None else f"{to_do:,}",
            f"{progress.people:,}",
        )
    return table
