"""Engines of a bundle that has just been exported, where this machine can build them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from psarm.cli.engines import BuildOptions, build, show
from psarm.errors import MissingExtraError, PsarmError

if TYPE_CHECKING:
    from psarm.runtime.tensorrt.engine_files import Engines


def build_where_possible(path: Path, options: BuildOptions, show_table: bool) -> None:
    """Build the engines of all the TensorRT graphs in the bundle at `path`, or say why not and how to do it later.

    What was asked for by `--flavour` or `--cc` is tried in any case, and raises what `psarm engines` does; so do
    profiles that cannot be. The bundle is there then.
    """
    from psarm.console import err
    from psarm.runtime.bundle import Bundle

    asked_for = bool(options.flavour or options.cc)
    obstacle = None if asked_for else _obstacle()
    results: list[tuple[Engines, bool]] = []
    if obstacle is None:
        bundle = Bundle.open(path)
        options.frames(bundle.manifest)
        try:
            results = build(bundle, None, options)
        except PsarmError as error:
            if asked_for:
                raise
            obstacle = str(error).rstrip(".")
    if obstacle is not None:
        err.print(
            f"No engines were built ({obstacle}); with the same options for shapes, on the machine that will run them: "
            f"psarm engines {path}",
            markup=False,
            soft_wrap=True,
        )
    elif show_table:
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
