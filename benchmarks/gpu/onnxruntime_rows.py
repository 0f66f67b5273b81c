"""ONNX Runtime's GPU providers on the same frame, where its wheel was brought."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path

from psarm.benchmarks.gpu.journal import Journal, Row
from psarm.benchmarks.gpu.measure import take_turns
from psarm.benchmarks.gpu.subject import Subject
from psarm.runtime.backends import probe_backend

BACKENDS = {"onnxruntime": "CUDAExecutionProvider", "onnxruntime_tensorrt": "TensorrtExecutionProvider"}
EXPORT_SECONDS = 120.0


def onnxruntime_rows(journal: Journal, subject: Subject, folder: Path, rounds: int) -> None:
    """End-to-end rows, or rows that say why there is nothing to measure."""
    present: list[str] = []
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        present = onnxruntime.get_available_providers()
    for backend, provider in BACKENDS.items():
        row: Row = {"group": "ONNX Runtime", "name": provider, "precision": "fp16", "batch": 1}
        if provider not in present:
            found = f"onnxruntime offers {', '.join(present)}" if present else "onnxruntime is not installed"
            journal.add({**row, "failure": f"{found}; the wheel onnxruntime-gpu brings it"})
        elif not (status := probe_backend(backend)).loads:
            journal.add({**row, "failure": status.detail})
        elif journal.left < EXPORT_SECONDS:
            journal.add({**row, "failure": f"left out: {journal.left:.0f} s were left of the budget"})
        else:
            with journal.guarded(row):
                journal.add({**row, **_measure(backend, subject, folder, rounds)})


def _measure(backend: str, subject: Subject, folder: Path, rounds: int) -> Row:
    from psarm.export import export_bundle
    from psarm.export.precision.settings import PrecisionSettings
    from psarm.runtime import PersonSearch

    bundle = folder / "onnx.psarm"
    if not bundle.exists():
        export_bundle(subject.model(), bundle, verify=False, settings=PrecisionSettings(("fp32", "fp16")))
    with PersonSearch(bundle, backend, "fp16") as engine:
        detect = partial(engine.detect, [subject.frame])
        for _ in range(3):
            detect()
        times = take_turns({backend: detect}, subject.device, rounds, host=True)[backend]
        stages = {name: 1000 * seconds for name, seconds in engine.last_timings.items()}
    return {"ms": times.median, "frames_per_second": 1000 / times.median, "stages_ms": stages}
