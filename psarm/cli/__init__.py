"""The `psarm` command line: one module a command, imported only when it runs."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import Any

import click

from psarm import __version__
from psarm.cli.termination import terminated_as_interrupted
from psarm.errors import PsarmError

# One-line purposes live here so that `psarm --help` imports no command (and so no torch).
COMMANDS = {
    "data": "Make and check data sets on disk (synth, check, convert).",
    "models": "List the presets: rows of the paper, size, work, accuracy.",
    "train": "Train a model from a preset or a configuration file.",
    "convert": "Turn a released SeqNet or PS-ARM .pth file into a psarm checkpoint.",
    "export": "Turn a checkpoint into a bundle: ONNX graphs and a manifest.",
    "engines": "Build TensorRT engines for this machine's GPU from a bundle.",
    "detect": "Find every person in images with a bundle.",
    "index": "Put the people of videos and cameras into a gallery.",
    "search": "Find one person in images and videos, or in a gallery.",
    "gallery": "Look after a gallery: contents, retention, exports, calibration.",
    "bench": "Accuracy and speed beside PyTorch; the paper's tables and figures.",
    "doctor": "Show versions and which backends load here, and why others do not.",
}
DISK_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "your quota of disk space is used up"}


class LazyGroup(click.Group):
    """A click group whose commands live in modules of the same name, imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import `psarm.cli.<name>` and return its `command`."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"psarm.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="psarm")
def cli() -> None:
    """Person search: find a given person in whole scene images."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; known errors end as one sentence on stderr and an exit code, never a traceback."""
    sys.exit(run(arguments))


@terminated_as_interrupted()  # or SIGTERM would leave what is half-written
def run(arguments: list[str] | None = None) -> int:
    """As `main`, but return the exit code: 0 done, 1 failure, 2 usage, 130 interrupted (by SIGTERM too)."""
    try:
        result: Any = cli.main(args=arguments, prog_name="psarm", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except PsarmError as error:
        click.echo(f"Error: {error}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as stop:
        # click turns Ctrl-C into an Abort without text; the command's own sentence is in its cause.
        click.echo(f"Interrupted. {stop.__cause__ or stop}".strip(), err=True)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`psarm ... | head`): nothing left to say, and nowhere to say it.
        _discard_output()
        return 1
    except OSError as error:
        click.echo(f"Error: {_system_error(error)}", err=True)
        _flush_or_discard_output()
        return 1
    except MemoryError as error:
        detail = f" ({_first_line(error)})" if str(error) else ""
        click.echo(f"Error: memory ran out{detail}; use smaller pictures or a smaller batch.", err=True)
        return 1
    return result if isinstance(result, int) else 0


def _system_error(error: OSError) -> str:
    """What the system refused, in one sentence."""
    if error.errno in DISK_FULL:
        where = f" while writing {error.filename}" if error.filename else ""
        return f"{DISK_FULL[error.errno]}{where}; nothing half-written was left behind; free space and run again."
    reason = error.strerror or _first_line(error)
    return reason if error.filename is None else f"{reason}: {error.filename}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _flush_or_discard_output() -> None:
    """Drop what standard output refused to take: Python would try again on leaving and report it in its own words."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
