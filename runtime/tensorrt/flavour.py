"""The two libraries that build and run engines: TensorRT 10.x and 11.x, and TensorRT for RTX.

They share one Python API (`library.py`); a `Flavour` holds the few things in which they differ.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from psarm.errors import MissingExtraError, PsarmError, UsageError
from psarm.runtime.tensorrt.library import Library


@dataclass(frozen=True)
class Flavour:
    """One of the two libraries."""

    name: str
    title: str
    modules: tuple[str, ...]
    """Import names, the first that is installed is taken."""
    extra: str
    """The optional dependencies of psarm that bring it."""
    ahead_of_time: bool
    """Builds for named compute capabilities and without a GPU; the kernels are finished where the engine runs."""
    versions: str
    """What psarm is written for."""

    @property
    def installed(self) -> bool:
        """Whether a module of it can be found; it may still not load."""
        return any(importlib.util.find_spec(module) for module in self.modules)

    def load(self) -> Library:
        """Import the library.

        Raises `MissingExtraError` where it is not installed, `PsarmError` where it is and does not load.
        """
        for module in self.modules:
            if importlib.util.find_spec(module) is not None:
                return _import(self, module)
        raise MissingExtraError(self.title, self.extra, f"{self.modules[0]} is not installed")

    def title_version(self) -> str:
        """For people: `TensorRT for RTX 1.7.1.116`."""
        return f"{self.title} {self.load().__version__}"

    def creation_flags(self) -> int:
        """Flags of a strongly typed network: the types of the ONNX graph are those of the engine.

        TensorRT 10 has to be asked for it, later ones know nothing else.
        """
        flag = getattr(self.load().NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    def logger(self) -> MessageLog:
        """The log of this process: TensorRT keeps the first logger it is given, so there is only one."""
        return _logger(self)


TENSORRT = Flavour("tensorrt", "TensorRT", ("tensorrt",), "trt", False, "10.4 or newer")
TENSORRT_RTX = Flavour(
    "tensorrt_rtx", "TensorRT for RTX", ("tensorrt_rtx", "tensorrt_rtx_bindings"), "trt-rtx", True, "1.7.1 or newer"
)
FLAVOURS = {flavour.name: flavour for flavour in (TENSORRT, TENSORRT_RTX)}


class MessageLog:
    """What the library said since `clear`; `handle` is the logger to be given to it."""

    def __init__(self) -> None:
        self.messages: deque[tuple[str, str]] = deque(maxlen=10_000)  # level and text
        self.handle: Any = None

    def clear(self) -> None:
        """Forget all messages."""
        self.messages.clear()

    def errors(self) -> list[str]:
        """First lines of the errors, in the order they came."""
        return [
            text.strip().splitlines()[0]
            for level, text in self.messages.copy()  # the library adds some from its threads
            if level in ("ERROR", "INTERNAL_ERROR") and text.strip() and "catchCudaError" not in text
        ]


def find_flavour(name: str | None) -> Flavour:
    """The flavour of that name, or for None the one that is installed, TensorRT first.

    Raises `UsageError` for an unknown name, `MissingExtraError` where none is installed.
    """
    if name is not None:
        if name not in FLAVOURS:
            raise UsageError(f"There is no TensorRT flavour {name!r}; choose {' or '.join(FLAVOURS)}.")
        return FLAVOURS[name]
    for flavour in FLAVOURS.values():
        if flavour.installed:
            return flavour
    raise MissingExtraError("Building engines", "trt", "neither tensorrt nor tensorrt_rtx is installed")


def _import(flavour: Flavour, module: str) -> Library:
    try:
        library = importlib.import_module(module)
    except Exception as error:  # a missing CUDA library shows as ImportError, OSError or RuntimeError
        raise PsarmError(
            f"{flavour.title} is installed but does not load ({_first_line(error)}); where a library is missing, its "
            "wheel is made for another CUDA than this machine has: install the one that fits (-cu12, -cu13)."
        ) from error
    if not hasattr(library, "Builder"):
        raise PsarmError(f"The installed {module} has no builder; install psarm[{flavour.extra}].")
    return cast(Library, library)


@functools.cache
def _logger(flavour: Flavour) -> MessageLog:
    log = MessageLog()
    log.handle = _logger_class(flavour.load())(lambda level, text: log.messages.append((level, text)))
    return log


def _logger_class(library: Library) -> Any:
    base: Any = library.ILogger

    class Logger(base):  # type: ignore[misc]  # a class that only exists once the library is there
        """Hands every message on."""

        def __init__(self, take: Callable[[str, str], None]) -> None:
            base.__init__(self)
            self._take = take

        def log(self, severity: Any, text: str) -> None:
            """Called by the library, from any thread."""
            self._take(severity.name, text)

    return Logger


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(". ")
