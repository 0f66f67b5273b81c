"""`psarm gallery`: look after a gallery."""

from __future__ import annotations

import click

from psarm.cli.gallery_audit import audit
from psarm.cli.gallery_export import export
from psarm.cli.gallery_info import info, sources
from psarm.cli.gallery_keeping import compact, delete_source, delete_visit, purge
from psarm.cli.gallery_learning import calibrate, index


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Look after a gallery: what is in it, how long it is kept, where it goes.

    A GALLERY is a directory, or s3://… and the like; psarm index makes one, psarm search --gallery searches it.
    """


for subcommand in (info, sources, compact, purge, delete_source, delete_visit, export, calibrate, index, audit):
    command.add_command(subcommand)
