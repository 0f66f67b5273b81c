"""`psarm engines`: TensorRT engines for the GPU of this machine, from a bundle's graphs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from psarm.errors import UsageError

if TYPE_CHECKING:
    from psarm.runtime.bundle import Bundle
    from psarm.runtime.manifest import Manifest
    from psarm.runtime.tensorrt.engine_files import Engines
    from psarm.runtime.tensorrt.profiles import FrameShapes

Command = TypeVar("Command", bound=Callable[..., object])
SHAPES = "1x3xHxW"


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """The options of `build_options`."""

    flavour: str | None = None
    sizes: tuple[str, ...] = ()
    max_batch: int | None = None
    min_shapes: tuple[str, ...] = ()
    opt_shapes: tuple[str, ...] = ()
    max_shapes: tuple[str, ...] = ()
    workspace: int | None = None
    timing_cache: Path | None = None
    cc: tuple[str, ...] = ()
    rebuild: bool = False

    @property
    def asks_for_engines(self) -> bool:
        """Whether what they are built with or for is named, so that not building them is a failure."""
        return bool(self.flavour or self.cc)

    def check(self) -> None:
        """Raise what `build` raises whatever the bundle.

        `UsageError` for what cannot be meant, `MissingExtraError` where the library is not installed, `PsarmError`
        where it does not load or needs a GPU that is not there.
        """
        from psarm.runtime.manifest import SIZE_DIVISOR
        from psarm.runtime.tensorrt.build import BuildSettings, check_settings
        from psarm.runtime.tensorrt.cache import gpu_to_build_for
        from psarm.runtime.tensorrt.flavour import find_flavour

        self._named_frames(SIZE_DIVISOR)
        flavour = find_flavour(self.flavour)
        check_settings(flavour, BuildSettings(self.workspace, self.timing_cache, self.cc))
        flavour.load()
        gpu_to_build_for(flavour)

    def frames(self, manifest: Manifest) -> tuple[FrameShapes, ...]:
        """The profiles asked for, or the bundle's default ones; raises `UsageError` for what cannot be."""
        from psarm.runtime.tensorrt.profiles import default_frames

        named = self._named_frames(manifest.preprocessing.size_divisor)
        return named or default_frames(manifest, self._batch)

    def _named_frames(self, divisor: int) -> tuple[FrameShapes, ...]:
        from psarm.runtime.tensorrt.profiles import frames_of_shapes, frames_of_sizes

        shapes = (self.min_shapes, self.opt_shapes, self.max_shapes)
        if any(shapes):
            if self.sizes or self.max_batch is not None:
                raise UsageError("--min-shapes, --opt-shapes and --max-shapes say all; leave out --sizes, --max-batch.")
            return frames_of_shapes(*shapes, divisor)
        return frames_of_sizes(self.sizes, self._batch, divisor)

    @property
    def _batch(self) -> int:
        return 1 if self.max_batch is None else self.max_batch


def build_options(command: Command) -> Command:
    """Add the options that say what engines are built for, as fields of `BuildOptions`."""
    for option in reversed(
        [
            click.option("--flavour", help="tensorrt or tensorrt_rtx  [default: the one installed, tensorrt first]."),
            click.option(
                "--sizes", multiple=True, metavar="HxW", help="Padded frame, height first: 864x1504 say; repeatable."
            ),
            click.option("--max-batch", type=click.IntRange(min=1), help="Most frames at a time  [default: 1]."),
            click.option("--min-shapes", multiple=True, metavar=SHAPES, help="Least shape of images; one a profile."),
            click.option("--opt-shapes", multiple=True, metavar=SHAPES, help="Shape kernels are chosen for."),
            click.option("--max-shapes", multiple=True, metavar=SHAPES, help="Largest shape of images."),
            click.option("--workspace", type=click.IntRange(min=1), metavar="MIB", help="Most scratch memory."),
            click.option(
                "--timing-cache",
                type=click.Path(dir_okay=False, path_type=Path),
                help="File that keeps kernel timings for the next build (TensorRT only).",
            ),
            click.option(
                "--cc", multiple=True, metavar="X.Y", help="Compute capability to build for (RTX); repeatable."
            ),
            click.option("--rebuild", is_flag=True, help="Build also where the engines are there."),
        ]
    ):
        command = option(command)
    return command


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option("--precision", metavar="LIST", help="Comma list, fp32,fp16 say  [default: all the bundle has].")
@build_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(bundle: Path, precision: str | None, as_json: bool, **options: Any) -> None:
    """Build TensorRT engines for this machine's GPU from a BUNDLE's graphs.

    The bundle needs graphs in TensorRT's form: psarm export --trt. Engines lie in BUNDLE/engines, or in the user's
    cache folder where that cannot be written to, and are built only where they are not there yet. Without further
    options they take landscape and portrait frames of every size, one at a time. TensorRT for RTX needs no GPU to
    build; name the ones to build for with --cc.
    """
    from psarm.runtime.bundle import Bundle

    opened = Bundle.open(bundle)
    precisions = None if precision is None else [name.strip() for name in precision.split(",") if name.strip()]
    if precisions == []:
        raise UsageError(f"--precision {precision!r} names none; give a comma list, fp32,fp16 say, or leave it out.")
    results = build(opened, precisions, BuildOptions(**options))
    if as_json:
        click.echo(json.dumps([_to_dict(engines, built) for engines, built in results], indent=2))
    else:
        show(results)


def build(bundle: Bundle, precisions: Sequence[str] | None, options: BuildOptions) -> list[tuple[Engines, bool]]:
    """The engines of every precision (None: all the bundle has), and which were built now; progress on stderr."""
    from psarm.console import err
    from psarm.runtime.tensorrt.build import BuildSettings
    from psarm.runtime.tensorrt.cache import build_engines, make_target
    from psarm.runtime.tensorrt.flavour import find_flavour

    wanted = list(bundle.manifest.tensorrt) if precisions is None else list(precisions)
    if not wanted:
        raise UsageError(f"The bundle {bundle.path} holds no TensorRT graphs; export it with psarm export --trt.")
    frames = options.frames(bundle.manifest)
    flavour = find_flavour(options.flavour)
    settings = BuildSettings(options.workspace, options.timing_cache)
    targets = [make_target(bundle, flavour, name, frames, tuple(dict.fromkeys(options.cc))) for name in wanted]
    results = []
    for target in targets:
        with _Progress(target.precision) as progress:
            results.append(
                build_engines(
                    bundle,
                    flavour,
                    target,
                    settings,
                    options.rebuild,
                    say=lambda text: err.print(text, markup=False),
                    on_phase=progress.tell,
                )
            )
    return results


def show(results: Sequence[tuple[Engines, bool]]) -> None:
    """A table of engines, and where they are."""
    from rich.table import Table

    from psarm.console import out, print_whole

    table = Table("precision", "graph", "profiles")
    for column in ("MB", "layers", "seconds"):
        table.add_column(column, justify="right")
    for engines, built in results:
        for graph, file in engines.files.items():
            layers = ", ".join(f"{count} {name}" for name, count in file.layers.items())
            seconds = f"{file.seconds:.1f}" if built else "there already"
            profiles = "\n".join(map(str, engines.target.frames))
            table.add_row(engines.target.precision, graph, profiles, f"{file.bytes / 1e6:.1f}", layers, seconds)
    print_whole(table, out)
    for engines, _ in results:
        target = engines.target
        out.print(
            f"Engines: {engines.path} ({target.precision}, {target.flavour} {target.version}, for {target.place()})",
            soft_wrap=True,
            markup=False,
        )


def _to_dict(engines: Engines, built: bool) -> dict[str, Any]:
    return {
        "path": str(engines.path),
        "built": built,
        "created": engines.created,
        "target": dataclasses.asdict(engines.target),
        "files": {graph: dataclasses.asdict(file) for graph, file in engines.files.items()},
    }


class _Progress:
    """What is being built: on a terminal a running line with the phase, elsewhere a line a graph."""

    def __init__(self, precision: str) -> None:
        from psarm.console import err, spinner

        self._precision, self._err, self._bar = precision, err, spinner()
        self._tasks: dict[str, Any] = {}

    def tell(self, graph: str, phase: str) -> None:
        """A phase of a graph's build has begun."""
        if graph not in self._tasks:
            self._tasks[graph] = self._bar.add_task(graph, total=None)
            if not self._err.is_terminal:
                self._err.print(f"Building {graph} in {self._precision}.", markup=False)
        self._bar.update(self._tasks[graph], description=f"{graph} in {self._precision}: {phase}")

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
