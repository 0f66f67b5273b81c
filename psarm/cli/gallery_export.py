"""`psarm gallery export`: a gallery's people for other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from psarm.cli.gallery_options import AS_JSON, AUDIT_LOG, GALLERY
from psarm.errors import UsageError


@click.command()
@GALLERY
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "layout",
    type=click.Choice(["parquet", "coco", "mot"]),
    required=True,
    help="parquet: one file with embeddings; coco: one JSON file; mot: a directory with a text file a source.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="With mot: frames a second of sources that do not say it themselves, such as cameras.",
)
@click.option("--overwrite", is_flag=True, help="With parquet and coco: replace the file that is at OUT.")
@AUDIT_LOG
@AS_JSON
def export(
    gallery: str, out: Path, layout: str, rate: float | None, overwrite: bool, audit_log: Path | None, as_json: bool
) -> None:
    """Write the people of a gallery to OUT, for other tools. The audit log gets a line.

    Visits are named as searches show them, such as 3-17, in the column visit_name (parquet) and as visit (coco); mot
    numbers them from 1 in each source's file, so that 3-17 is 18 in that of source 3.
    """
    from psarm import console
    from psarm.runtime.gallery import export as exporting
    from psarm.runtime.gallery.gallery import Gallery

    _check(out, layout, rate, overwrite)
    facts: dict[str, Any]
    with Gallery.open(gallery, audit_log) as opened:
        if layout == "mot":
            files = exporting.write_mot(opened, out, rate)
            facts = {"files": {source: str(path) for source, path in files.items()}}
            text = f"{len(files):,} files"
        else:
            write = exporting.write_parquet if layout == "parquet" else exporting.write_coco
            count = write(opened, out)
            facts, text = {"people": count}, f"{count:,} people in frames"
    if as_json:
        click.echo(json.dumps({"out": str(out), **facts}))
    else:
        console.out.print(f"Wrote {out}: {text}.", markup=False)


def _check(out: Path, layout: str, rate: float | None, overwrite: bool) -> None:
    """Raise `UsageError` for options of another layout, and where OUT would take the place of something."""
    if layout == "mot":
        if overwrite:
            raise UsageError("--overwrite replaces one file, and mot is a new directory; leave it out.")
        return  # a directory with files in it is refused by what writes them
    if rate is not None:
        raise UsageError(f"--rate is of mot files; leave it out with --format {layout}.")
    if out.is_dir():
        raise UsageError(f"{out} is a directory; {layout} is one file.")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists already; replace it with --overwrite or give another name.")
