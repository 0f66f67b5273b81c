"""Engines of a bundle that has just been exported, where this machine can build them."""

from __future__ import annotations

from pathlib import Path

from psarm.cli.engines import BuildOptions, build, show
from psarm.errors import MissingExtraError


def build_where_possible(path: Path, options: BuildOptions, show_table: bool) -> None:
    """Build the engines of all the TensorRT graphs in the bundle at `path`, or say why not and how to do it later.

    What was asked for by `--flavour` or `--cc` is tried in any case. Raises what `psarm engines` does; the bundle is
    there then.
    """
    from psarm.console import err
    from psarm.runtime.bundle import Bundle

    obstacle = None if options.flavour or options.cc else _obstacle()
    if obstacle is not None:
        err.print(
            f"No engines were built ({obstacle}); on the machine that will run them: psarm engines {path}",
            markup=False,
            soft_wrap=True,
        )
        return
    results = build(Bundle.open(path), None, options)
    if show_table:
        show(results)


def _obstacle() -> str | None:
    """Why engines cannot be built here."""
    from psarm.runtime.tensorrt.device import find_gpu
    from psarm.runtime.tensorrt.flavour import find_flavour

    try:
        find_flavour(None)
    except MissingExtraError:
        return "neither TensorRT nor TensorRT for RTX is installed"
    gpu, why = find_gpu()
    return why if gpu is None else None
