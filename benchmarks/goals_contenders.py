"""Who runs in the benchmark of the deployment goals, backends by name and precision, and what the goals are."""

from __future__ import annotations

from dataclasses import dataclass

from psarm.benchmarks.engines import SearchEngine
from psarm.errors import UsageError
from psarm.runtime import Bundle, PersonSearch

YARDSTICK = "yardstick"
"""Name of the yardstick's row."""
ROUNDED = "fp16, rounded after every operator"
"""Name of the row of what fp16 costs on a device that computes in half; CPU runtimes compute fp16 in float32."""
TIMES_AS_FAST = {"fp32": 2.5, "bf16": 5.0, "int8": 8.0}
"""By precision: how many times as fast as the yardstick the fastest CPU backend should be."""
PARITY = {"boxes": 1e-3, "embeddings": 1e-6}
"""Largest errors of fp32 beside the PyTorch model: pixels, and as they are."""
POINTS_LOST = {"fp16": (0.2, 0.3), "int8": (0.5, None)}
"""By precision: points of mAP and of top-1 (None: no goal) that may be lost to fp32."""


@dataclass(frozen=True)
class Contender:
    """A backend in a precision."""

    backend: str
    precision: str

    @property
    def name(self) -> str:
        """As `--only` takes it: `openvino-bf16`."""
        return f"{self.backend}-{self.precision}"

    def open(self, bundle: Bundle, threads: int) -> SearchEngine:
        """The bundle, loaded; raises `PsarmError` where it does not run here."""
        return PersonSearch(bundle, self.backend, self.precision, threads)


CONTENDERS = tuple(
    Contender(backend, precision)
    for backend, precisions in {
        "onnxruntime": ("fp32", "fp16", "int8"),
        "openvino": ("fp32", "bf16", "fp16", "int8"),
        "torch": ("fp32", "bf16"),
    }.items()
    for precision in precisions
)


def chosen(names: tuple[str, ...]) -> list[Contender]:
    """The contenders of these names, all where none is given; raises `UsageError` for a name that there is not."""
    known = {contender.name: contender for contender in CONTENDERS}
    for name in names:
        if name not in known:
            raise UsageError(f"--only {name}: there is no such contender; known: {', '.join(known)}.")
    return [contender for contender in CONTENDERS if not names or contender.name in names]
