"""Backends that run a bundle's graphs; `open_backend` picks one and says why.

A backend's module is imported only when that backend is tried, and its library only when it is probed.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from psarm.errors import PsarmError, UsageError
from psarm.runtime.backends import compiled_cache, ort_providers
from psarm.runtime.backends.base import Backend
from psarm.runtime.bundle import Bundle

BACKENDS = {
    "tensorrt": "psarm.runtime.tensorrt.backend:TensorRTBackend",
    "tensorrt_rtx": "psarm.runtime.tensorrt.backend:TensorRTForRTXBackend",
    "openvino": "psarm.runtime.backends.openvino:OpenVINOBackend",
    "onnxruntime": "psarm.runtime.backends.onnxruntime:OnnxRuntimeBackend",
    "onnxruntime_tensorrt": "psarm.runtime.backends.onnxruntime:OnnxRuntimeTensorRTBackend",
    "torch": "psarm.export.torch_backend:TorchBackend",
}
"""Name → the class that is it, as `module:class`. Fastest first, but for ONNX Runtime on a GPU: `_fastest_first`."""
ONLY_AS_ASKED = ("onnxruntime_tensorrt",)
"""`auto` leaves it alone: it would build engines, for minutes, in the middle of the first calls."""
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
"""Every precision some backend knows; bf16 has no graphs of its own, the fp32 ones are run in it."""


@dataclass(frozen=True)
class BackendStatus:
    """One backend on this machine."""

    name: str
    loads: bool
    detail: str
    """Version and device, or why it does not load."""

    @property
    def brief(self) -> str:
        """The fact alone, without what to do about it."""
        return self.detail.partition(";")[0]


def load_backend(name: str) -> type[Backend]:
    """The class of a backend of `BACKENDS`; its library is not imported yet."""
    module, _, attribute = BACKENDS[name].partition(":")
    kind: type[Backend] = getattr(importlib.import_module(module), attribute)
    return kind


def probe_backend(name: str) -> BackendStatus:
    """Start a backend of `BACKENDS`, without a bundle."""
    return BackendStatus(name, *load_backend(name).probe())


def probe_backends() -> list[BackendStatus]:
    """Every backend that psarm knows; each is really started."""
    return [probe_backend(name) for name in BACKENDS]


def conditions(bundle: Bundle, name: str) -> dict[str, str | None]:
    """Precisions of `bundle` for the backend `name` → what must be made here before it runs them, None where nothing.

    Empty where the backend does not load, or has nothing to run.
    """
    kind = load_backend(name)
    if not probe_backend(name).loads:
        return {}
    return {precision: kind.lacks(bundle, precision) for precision in kind.precisions(bundle)}


def runnable(bundle: Bundle, name: str) -> tuple[str, ...]:
    """Precisions the backend `name` runs `bundle` in on this machine, as things are; none where it does not load."""
    return tuple(precision for precision, missing in conditions(bundle, name).items() if missing is None)


def check_options(bundle: Bundle, name: str, precision: str, here: bool = True) -> None:
    """Raise `UsageError` for what `open_backend` would refuse, as far as that shows without loading graphs.

    `here`: on this machine, and not on another one, of which only the names can be checked.
    """
    if name not in ("auto", *BACKENDS):
        known = ", ".join(["auto", *BACKENDS])
        raise UsageError(f"Backend {name!r}: there is no backend of that name; available: {known}.")
    if precision not in ("auto", *PRECISIONS):
        known = ", ".join(["auto", *PRECISIONS])
        raise UsageError(f"Precision {precision!r}: there is no precision of that name; available: {known}.")
    if not here:
        return
    if name == "auto":
        if precision != "auto":
            _check_some_runs(bundle, precision)
        return
    status = probe_backend(name)
    if not status.loads:
        raise UsageError(f"The backend {name} does not load: {status.detail}.")
    runs = load_backend(name).precisions(bundle)
    if runs and precision not in ("auto", *runs):
        raise UsageError(f"The backend {name} runs {bundle.path} in {', '.join(runs)}, and not in {precision}.")


def open_backend(
    bundle: Bundle, name: str = "auto", precision: str = "auto", threads: int | None = None
) -> tuple[Backend, str]:
    """Load a bundle's graphs; returns the backend and why it was picked.

    `auto` takes the fastest backend that really loads and runs this bundle in this precision, and the fp32 graphs where
    the bundle holds them; the reason names what was passed over, and why.
    Raises `UsageError` for a backend or precision that is not there, saying which are, and for a limit of compiled
    graphs in the environment that is none.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}; needed 1 or more.")
    check_options(bundle, name, precision, here=False)
    compiled_cache.check_limit()  # here, where `auto` does not take it for a failure of the backends that keep graphs
    wanted = bundle.resolve_precision("auto") if precision == "auto" else precision
    if name == "auto":
        return _open_fastest(bundle, wanted, threads)
    status = probe_backend(name)
    if not status.loads:
        raise UsageError(f"The backend {name} does not load: {status.detail}.")
    return load_backend(name)(bundle, wanted, threads), f"as asked; {status.brief}"


def _open_fastest(bundle: Bundle, precision: str, threads: int | None) -> tuple[Backend, str]:
    passed_over: list[BackendStatus] = []
    if why := ort_providers.cuda_obstacle():
        passed_over.append(BackendStatus("onnxruntime on a GPU", False, why))
    failures: list[PsarmError] = []
    for name in _fastest_first():
        status, fits = _judge(bundle, name, precision)
        if not fits:
            passed_over.append(status)
            continue
        try:
            backend = load_backend(name)(bundle, precision, threads)
        except PsarmError as error:
            failures.append(error)
            passed_over.append(BackendStatus(name, True, str(error).rstrip(".")))
            continue
        others = "; ".join(f"{one.name}: {one.brief}" for one in passed_over)
        why = f"the fastest that loads for this bundle and precision, {status.brief}"
        return backend, why + (f"; passed over: {others}" if others else "")
    if failures:
        raise failures[0]
    _refuse(bundle, precision, passed_over)


def _check_some_runs(bundle: Bundle, precision: str) -> None:
    passed_over: list[BackendStatus] = []
    for name in _fastest_first():
        status, fits = _judge(bundle, name, precision)
        if fits:
            return
        passed_over.append(status)
    _refuse(bundle, precision, passed_over)


def _judge(bundle: Bundle, name: str, precision: str) -> tuple[BackendStatus, bool]:
    """A backend as `auto` sees it, and whether it takes it, as far as that shows without loading graphs."""
    status = probe_backend(name)
    if not status.loads:
        return status, False
    runs = load_backend(name).precisions(bundle)
    if precision in runs:
        return status, True
    why = f"runs this bundle in {', '.join(runs)} only" if runs else "the bundle holds nothing for it"
    return BackendStatus(name, True, why), False


def _refuse(bundle: Bundle, precision: str, passed_over: Sequence[BackendStatus]) -> NoReturn:
    """Raise `UsageError`: none of the backends, which are all `passed_over`, runs the bundle in this precision."""
    if any(status.loads for status in passed_over) and precision != "bf16":
        bundle.resolve_precision(precision)  # raises where the bundle holds no such graphs
    reasons = "; ".join(f"{one.name}: {one.detail}" for one in passed_over)
    if any(status.loads for status in passed_over):
        raise UsageError(f"No backend runs the bundle {bundle.path} in {precision} here: {reasons}.")
    raise UsageError(f"No backend loads: {reasons}.")


def _fastest_first() -> list[str]:
    """Names of all backends in the order in which `auto` tries them."""
    names = [name for name in BACKENDS if name not in ONLY_AS_ASKED]
    if ort_providers.probe(ort_providers.CUDA)[0]:
        names.remove("onnxruntime")
        names.insert(names.index("openvino"), "onnxruntime")
    return names
