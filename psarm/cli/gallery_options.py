"""What the commands of `psarm gallery` share."""

from __future__ import annotations

from pathlib import Path

import click

from psarm.cli.gallery_path import GalleryPath

GALLERY = click.argument("gallery", type=GalleryPath())
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
AUDIT_LOG = click.option(
    "--audit-log",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the line on this to this file, not to the gallery's own.",
)
