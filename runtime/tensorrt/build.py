"""One ONNX graph → one strongly typed engine (a plan), with optimisation profiles, checked for its precision."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psarm.errors import ExportError, PsarmError, UsageError
from psarm.files import atomic_path
from psarm.runtime.tensorrt import layers
from psarm.runtime.tensorrt.flavour import Flavour, MessageLog
from psarm.runtime.tensorrt.library import Builder, BuilderConfig, Library, Network, OnnxParser, Shape

OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class ShapeRange:
    """The shapes one input of a profile may have; kernels are chosen for `optimum`."""

    minimum: Shape
    optimum: Shape
    maximum: Shape

    def __post_init__(self) -> None:
        same_rank = len(self.minimum) == len(self.optimum) == len(self.maximum)
        if not same_rank or not all(
            0 < low <= best <= high for low, best, high in zip(self.minimum, self.optimum, self.maximum, strict=True)
        ):
            raise UsageError(
                f"The shapes {_text(self.minimum)}, {_text(self.optimum)}, {_text(self.maximum)} are no range: needed "
                "as many sizes in each, above 0, and minimum <= optimum <= maximum."
            )


Profile = Mapping[str, ShapeRange]
MakeProfiles = Callable[[Mapping[str, Shape]], Sequence[Profile]]
"""From the shapes of a graph's inputs (-1 where a size varies) to the profiles to build."""


@dataclass(frozen=True)
class BuildSettings:
    """How to build, beside what."""

    workspace_mb: int | None = None
    """Scratch memory a kernel may use, in MiB; None for the library's own limit (all of the device's memory)."""
    timing_cache: Path | None = None
    """File that keeps kernel timings between builds (TensorRT only)."""
    compute_capabilities: tuple[str, ...] = ()
    """GPUs to build for, as 8.6 (TensorRT for RTX only); none: the GPU that is here, or all it knows where none is."""


@dataclass(frozen=True)
class Plan:
    """A built engine."""

    data: bytes
    layers: dict[str, int]
    """Layers of the finished engine by the type of their outputs: fp16, fp32, int8, …; all profiles together."""
    profiles: tuple[Profile, ...]
    seconds: float


def build_plan(
    flavour: Flavour,
    graph: Path,
    precision: str,
    make_profiles: MakeProfiles,
    settings: BuildSettings = BuildSettings(),
    on_progress: OnProgress = lambda phase: None,
) -> Plan:
    """Parse `graph` and build its engine; `on_progress` is told each phase, from another thread.

    Raises `ExportError` naming the node that the parser or the builder refuses, or where the engine of an fp16 or int8
    graph does not hold such layers; `UsageError` for settings that cannot be.
    """
    start = time.perf_counter()
    library, log = flavour.load(), flavour.logger()
    check_settings(flavour, settings)
    log.clear()
    builder = _make_builder(flavour, library, log)
    network = builder.create_network(flavour.creation_flags())
    parser = library.OnnxParser(network, log.handle)
    if not parser.parse_from_file(str(graph)) or network.num_outputs == 0:
        raise ExportError(_refusal(flavour, graph, parser))
    layers.check_network(network, precision, graph)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    profiles = tuple(make_profiles({tensor.name: tuple(tensor.shape) for tensor in inputs}))
    config = _configure(library, builder, settings, flavour)
    for profile in profiles:
        _add_profile(builder, config, profile, graph, log)
    cache = _read_timing_cache(config, settings.timing_cache)
    data = _run_builder(library, builder, network, config, on_progress)
    if data is None:
        raise ExportError(_failure(flavour, graph, log))
    if cache is not None and settings.timing_cache is not None:
        _write_timing_cache(cache, settings.timing_cache)
    counts = layers.count(layers.describe(flavour, data, log))
    log.clear()
    layers.check_engine(counts, precision, graph)
    return Plan(data, counts, profiles, time.perf_counter() - start)


def check_settings(flavour: Flavour, settings: BuildSettings) -> None:
    """Raise `UsageError` for settings this flavour does not have."""
    if settings.timing_cache is not None and flavour.ahead_of_time:
        raise UsageError(f"{flavour.title} has no timing cache: it times nothing while it builds; leave it out.")
    if settings.compute_capabilities and not flavour.ahead_of_time:
        raise UsageError(
            f"{flavour.title} builds for the GPU of this machine; only TensorRT for RTX builds for named ones."
        )
    for wanted in settings.compute_capabilities:
        _compute_capability(flavour.load(), wanted)


def _make_builder(flavour: Flavour, library: Library, log: MessageLog) -> Builder:
    try:
        return library.Builder(log.handle)
    except Exception as error:  # pybind raises TypeError where the library gives no builder
        why = next(iter(log.errors()), str(error))
        raise PsarmError(
            f"{flavour.title} cannot build here, it needs an NVIDIA GPU and its driver ({why})."
        ) from error


def _configure(library: Library, builder: Builder, settings: BuildSettings, flavour: Flavour) -> BuilderConfig:
    config = builder.create_builder_config()
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED  # so that the engine tells its layers' types
    config.clear_flag(library.BuilderFlag.TF32)  # fp32 means fp32: TF32 keeps ten bits of the mantissa
    if settings.workspace_mb is not None:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, settings.workspace_mb << 20)
    if settings.compute_capabilities:
        config.num_compute_capabilities = len(settings.compute_capabilities)
        for index, wanted in enumerate(settings.compute_capabilities):
            config.set_compute_capability(_compute_capability(library, wanted), index)
    return config


def _compute_capability(library: Any, wanted: str) -> Any:
    known = {
        f"{name[2:-1]}.{name[-1]}": value
        for name, value in library.ComputeCapability.__members__.items()
        if name.startswith("SM")
    }
    if wanted not in known:
        raise UsageError(
            f"TensorRT for RTX {library.__version__} does not build for compute capability {wanted!r}; "
            f"it knows {', '.join(known)}."
        )
    return known[wanted]


def _add_profile(builder: Builder, config: BuilderConfig, profile: Profile, graph: Path, log: MessageLog) -> None:
    made = builder.create_optimization_profile()
    for name, shapes in profile.items():
        made.set_shape(name, shapes.minimum, shapes.optimum, shapes.maximum)
    if config.add_optimization_profile(made) < 0:
        why = next(iter(log.errors()), "no reason given")
        raise ExportError(f"A profile of {graph.name} was refused: {why}.")


def _run_builder(
    library: Library, builder: Builder, network: Network, config: BuilderConfig, on_progress: OnProgress
) -> bytes | None:
    """Build in a second thread, so that Ctrl-C is heard at once and stops the build at its next step."""
    monitor = _progress_monitor(library)(on_progress)
    config.progress_monitor = monitor
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(builder.build_serialized_network, network, config)
        try:
            plan = future.result()
        except BaseException:
            monitor.cancelled = True
            raise
    if monitor.error is not None:
        raise monitor.error
    return None if plan is None else bytes(plan)


def _progress_monitor(library: Library) -> Any:
    base: Any = library.IProgressMonitor

    class ProgressMonitor(base):  # type: ignore[misc]  # a class that only exists once the library is there
        """Tells phases, and stops the build when `cancelled` or when the listener fails."""

        def __init__(self, on_progress: OnProgress) -> None:
            base.__init__(self)
            self.cancelled = False
            self.error: BaseException | None = None
            self._on_progress = on_progress

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            """Called by the library, from any of its threads; an exception must not reach it."""
            try:
                if not self.cancelled:
                    self._on_progress(phase)
            except BaseException as error:  # told to the caller once the build has stopped
                self.error, self.cancelled = error, True

        def step_complete(self, phase: str, step: int) -> bool:
            """False stops the build."""
            return not self.cancelled

        def phase_finish(self, phase: str) -> None:
            """Nothing to tell: the next phase will be."""

    return ProgressMonitor


def _read_timing_cache(config: BuilderConfig, path: Path | None) -> Any:
    if path is None:
        return None
    cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    if cache is None or not config.set_timing_cache(cache, False):
        raise UsageError(
            f"The timing cache {path} is of another GPU or TensorRT version, or damaged; give a new file or delete it."
        )
    return config.get_timing_cache()


def _write_timing_cache(cache: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(cache.serialize())


def _refusal(flavour: Flavour, graph: Path, parser: OnnxParser) -> str:
    """What the parser would not take, in one sentence naming the first node at fault."""
    what = f"{flavour.title_version()} does not take the graph {graph.name}"
    if not parser.num_errors:
        return f"{what}: it is empty or no ONNX file; export the bundle again."
    error = parser.get_error(0)
    why = next((line for line in error.desc().splitlines() if line and not line.startswith("Invalid Node")), "")
    if not error.node_operator():
        return f"{what}: {_short(why)}."
    return f"{what}: its node {error.node_name()!r} ({error.node_operator()}) is refused: {_short(why)}."


def _failure(flavour: Flavour, graph: Path, log: MessageLog) -> str:
    errors = log.errors()
    why = _short(errors[0]) if errors else "it gave no reason"
    advice = ""
    if any("memory" in error.lower() for error in errors):
        advice = "; the GPU's memory ran out: build for a smaller batch or frame size, or give less --workspace"
    return f"{flavour.title_version()} could not build {graph.name}: {why}{advice}."


def _short(text: str) -> str:
    """A message of the library without the place in its source."""
    return text.split(" In ")[0].strip().rstrip("(. ")[:300]


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))
