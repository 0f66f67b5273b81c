"""Running one of this folder's scripts as the psarm command runs: known errors are one sentence and an exit code."""

from __future__ import annotations

import sys

import click

from psarm.errors import PsarmError


def run(command: click.Command) -> None:
    """Run `command` on the command line's arguments and exit: 0 done, 1 failure, 2 usage, 130 interrupted."""
    try:
        command(standalone_mode=False)
    except PsarmError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted; run the same command again to start over.", err=True)
        sys.exit(130)
