"""Engines of a bundle that has just been exported, where this machine can build them."""

from __future__ import annotations

from pathlib import Path

from psarm.cli.engines import BuildOptions, build, show
from psarm.errors import PsarmError, UsageError


def check_building(options: BuildOptions) -> None:
    """Raise, before anything is exported, what `psarm engines` would raise afterwards.

    What this machine lacks is an error only where engines are asked for by name (`BuildOptions.asks_for_engines`).
    """
    try:
        options.check()
    except UsageError:
        raise
    except PsarmError:
        if options.asks_for_engines:
            raise


def build_where_possible(path: Path, options: BuildOptions, show_table: bool) -> None:
    """Build the engines of all the TensorRT graphs in the bundle at `path`, or say in `psarm engines`' words why not.

    Raises what it raises where engines are asked for by name; the bundle is there then.
    """
    from psarm.console import err
    from psarm.runtime.bundle import Bundle

    try:
        results = build(Bundle.open(path), None, options)
    except PsarmError as error:
        if options.asks_for_engines:
            raise
        err.print(
            f"No engines were built. {error} The bundle is good; on the machine that will run them, with the same "
            f"options for shapes: psarm engines {path}",
            markup=False,
            soft_wrap=True,
        )
    else:
        if show_table:
            show(results)
