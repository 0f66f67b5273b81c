"""Backends that run a bundle's graphs; `open_backend` picks one and says why.

A backend's library is imported only when that backend is tried.
"""

from __future__ import annotations

from dataclasses import dataclass

from psarm.errors import UsageError
from psarm.runtime.backends import onnxruntime
from psarm.runtime.backends.base import Backend
from psarm.runtime.bundle import Bundle

# Fastest first: the order in which `auto` tries them.
BACKENDS = {"onnxruntime": (onnxruntime.OnnxRuntimeBackend, onnxruntime.probe)}
PLANNED = ("openvino", "tensorrt", "tensorrt_rtx", "torch")


@dataclass(frozen=True)
class BackendStatus:
    """One backend on this machine."""

    name: str
    loads: bool
    detail: str
    """Version and device, or why it does not load."""


def probe_backends() -> list[BackendStatus]:
    """Every backend psarm knows by name; each one that it has is really started."""
    found = [BackendStatus(name, *probe()) for name, (_, probe) in BACKENDS.items()]
    return found + [BackendStatus(name, False, "this version of psarm has no such backend yet") for name in PLANNED]


def open_backend(
    bundle: Bundle, name: str = "auto", precision: str = "auto", threads: int | None = None
) -> tuple[Backend, str]:
    """Load a bundle's graphs; returns the backend and one sentence on what was picked and why.

    `auto` takes the fastest backend that really loads, and the fp32 graphs where the bundle holds them.
    Raises `UsageError` for a backend or precision that is not there, saying which are.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}; needed 1 or more.")
    status = _choose(name)
    chosen_precision = bundle.resolve_precision(precision)
    kind, _ = BACKENDS[status.name]
    backend = kind(bundle, chosen_precision, threads)
    why = "the fastest backend that loads" if name == "auto" else "as asked"
    reason = f"{status.name}, {backend.device}, {chosen_precision} ({why}; {status.detail})"
    return backend, reason


def _choose(name: str) -> BackendStatus:
    if name != "auto" and name not in BACKENDS:
        known = ", ".join(["auto", *BACKENDS])
        why = "this version of psarm has no such backend yet" if name in PLANNED else "there is no backend of that name"
        raise UsageError(f"Backend {name!r}: {why}; available: {known}.")
    tried = [BackendStatus(n, *probe()) for n, (_, probe) in BACKENDS.items() if name in ("auto", n)]
    for status in tried:
        if status.loads:
            return status
    raise UsageError("No backend loads: " + "; ".join(f"{s.name}: {s.detail}" for s in tried) + ".")
