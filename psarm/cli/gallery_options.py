"""What the commands of `psarm gallery` share."""

from __future__ import annotations

import click

GALLERY = click.argument("gallery")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
