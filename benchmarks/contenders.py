"""Who takes part in a benchmark: the PyTorch model and every backend of the bundle, opened."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from psarm.benchmarks.engines import SearchEngine
from psarm.benchmarks.fresh_process import Subject
from psarm.benchmarks.report import PYTORCH, Row
from psarm.benchmarks.settings import BenchSettings
from psarm.benchmarks.workloads import Workload
from psarm.errors import PsarmError, UsageError
from psarm.evaluation import DetectionsFile
from psarm.extras import require
from psarm.runtime import Bundle, PersonSearch
from psarm.runtime.backends import BACKENDS, check_options, conditions


@dataclass
class Contender:
    """An engine, and what all of its rows have in common."""

    row: Row
    engine: SearchEngine | None
    """None where it did not open; the row says why."""
    found: DetectionsFile | None = None

    @property
    def title(self) -> str:
        """`onnxruntime fp32`."""
        return f"{self.row.name} {self.row.precision}"

    @property
    def is_torch(self) -> bool:
        """Whether it is the PyTorch model, not the bundle."""
        return self.row.name == PYTORCH

    def workloads(self, settings: BenchSettings) -> list[Workload]:
        """Those to time it under: the PyTorch model frame by frame with the people it finds, whatever was asked for."""
        asked = settings.workloads()
        return list(dict.fromkeys(Workload(size=one.size) for one in asked)) if self.is_torch else asked

    def subject(self, settings: BenchSettings, row: Row, threads: int, frames: Sequence[Path]) -> Subject:
        """What to open in a process of its own."""
        work = row.workload
        return Subject(
            None if self.is_torch else str(settings.bundle),
            str(settings.checkpoint) if self.is_torch else None,
            *(row.name, row.precision, threads, [str(path) for path in frames[: work.batch]]),
            *(work.batch, work.people, work.size),
        )


def open_contenders(settings: BenchSettings, threads: int, cleanup: ExitStack) -> list[Contender]:
    """The PyTorch model first.

    Raises:
        BundleError, CheckpointError: one cannot be opened, or they are not of the same weights.
        MissingExtraError: a checkpoint is given and torch is not installed.
    """
    return _open_torch(settings, threads, cleanup) + _open_bundle(settings, threads, cleanup)


def _open_torch(settings: BenchSettings, threads: int, cleanup: ExitStack) -> list[Contender]:
    if settings.checkpoint is None:
        return []
    require("torch", "torchvision", "safetensors", feature="A benchmark with --checkpoint", extra="train")
    from psarm.benchmarks.torch_engine import load_engine

    engine = load_engine(settings.checkpoint, threads)
    cleanup.callback(engine.close)
    if settings.bundle is not None:
        engine.check_exported_as(Bundle.open(settings.bundle))
    size = settings.checkpoint.stat().st_size
    return [Contender(Row(PYTORCH, engine.precision, engine.device, size, requested=True), engine)]


def _open_bundle(settings: BenchSettings, threads: int, cleanup: ExitStack) -> list[Contender]:
    if settings.bundle is None:
        return []
    bundle = Bundle.open(settings.bundle)
    contenders = []
    requested = bool(settings.backends or settings.precisions)
    for backend, precision in _choices(settings, bundle):
        try:
            engine = PersonSearch(bundle, backend, precision, threads)
        except PsarmError as error:
            contenders.append(Contender(Row(backend, precision, failure=str(error), requested=requested), None))
            continue
        cleanup.callback(engine.close)
        size = bundle.graph_bytes(engine.precision)
        row = Row(engine.backend, engine.precision, engine.device, size, requested=requested)
        contenders.append(Contender(row, engine))
    return contenders


def check_some_run(settings: BenchSettings) -> None:
    """Raise `UsageError` where nothing of the backends and precisions asked for by name runs the bundle here."""
    if settings.bundle is None or not (settings.backends or settings.precisions):
        return
    bundle, reasons = Bundle.open(settings.bundle), []
    if not settings.backends and set(settings.precisions) == {"int8"}:
        try:
            bundle.resolve_precision("int8")
        except UsageError as error:  # said before every backend is asked, and torch loaded for it
            raise UsageError(f"Nothing was measured: {error}") from None
    for backend, precision in _choices(settings, bundle):
        try:
            check_options(bundle, backend, precision)
        except PsarmError as error:
            reasons.append(str(error))
        else:
            return
    raise UsageError("Nothing was measured: " + " ".join(dict.fromkeys(reasons)))


def _choices(settings: BenchSettings, bundle: Bundle) -> list[tuple[str, str]]:
    """Backend and precision of every row: what was asked for by name, whether it runs or not, else all that run.

    What has to be made first, engines say, has a row too: it says so.
    """
    wanted = dict.fromkeys(settings.precisions)
    if settings.backends:
        return [
            (backend, precision)
            for backend in dict.fromkeys(settings.backends)
            for precision in wanted or (conditions(bundle, backend) if backend in BACKENDS else ()) or ("auto",)
        ]
    running = [(backend, precision) for backend in BACKENDS for precision in conditions(bundle, backend)]
    found = [choice for choice in running if not wanted or choice[1] in wanted]
    return found + [("auto", precision) for precision in wanted if precision not in {one for _, one in found}]
