"""The backends `tensorrt` and `tensorrt_rtx`: a bundle's engines on an NVIDIA GPU.

What has run where: no GPU was at hand. Building engines runs in the tests (TensorRT for RTX); this module and its
runner ran against doubles of the device and the engine.

R boxes of all images together.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.errors import BundleError, MissingExtraError, PsarmError
from psarm.runtime.backends.base import Backend, Tensors
from psarm.runtime.bundle import Bundle
from psarm.runtime.tensorrt.cache import build_command, find_engines, tensorrt_graphs
from psarm.runtime.tensorrt.contexts import Contexts
from psarm.runtime.tensorrt.device import CudaDevice, Gpu, find_gpu
from psarm.runtime.tensorrt.engine_files import Engines
from psarm.runtime.tensorrt.flavour import TENSORRT, TENSORRT_RTX, Flavour
from psarm.runtime.tensorrt.runner import EngineRunner, check_spec

FEATURES = "features"
"""What stays on the device between the graphs."""
EXACT = "exact"
"""Output of the detect graph in TensorRT's form: whether an image's proposals are those of the ordinary graph."""
LEAST_ROWS = 8
"""Boxes are padded to this many, or to the next power of two above: each count of boxes has buffers of its own."""


class TensorRTBackend(Backend):
    """The graphs as engines of TensorRT."""

    name = "tensorrt"
    title = "TensorRT"
    flavour: Flavour = TENSORRT

    def __init__(self, bundle: Bundle, precision: str, threads: int | None = None) -> None:
        """Load the engines for this GPU; `threads` has no meaning here.

        Raises `UsageError` for a precision the bundle has no TensorRT graphs in, `BundleError` with the command that
        builds them where there are no engines for this GPU and this library, `PsarmError` where no GPU works.
        """
        super().__init__(bundle, precision, threads)
        tensorrt_graphs(bundle, precision)
        with ExitStack() as stack:
            device = CudaDevice()
            stack.callback(device.close)
            engines, plans = self._read_plans(bundle, device.gpu)
            command = build_command(bundle, self.flavour, precision)
            self._runners: dict[str, EngineRunner] = {}
            specs = {}
            for graph, described in self.graphs.items():
                compiled = engines.path / f"{graph}.compiled"
                contexts = Contexts(self.flavour, graph, plans.pop(graph), compiled, command)
                runner = EngineRunner(graph, contexts, device, frozenset({FEATURES}))
                stack.callback(runner.close)
                specs[graph] = check_spec(graph, runner.spec, described, FEATURES)
                self._runners[graph] = runner
            self.graphs = specs
            self.device = f"{device.gpu.name}, compute capability {device.gpu.compute_capability}"
            self._stack = stack.pop_all()

    @classmethod
    def probe(cls) -> tuple[bool, str]:
        """Whether the library loads and a GPU works."""
        try:
            version = cls.flavour.title_version()
        except MissingExtraError as error:
            what, _, advice = str(error).rstrip(".").partition("; ")
            return False, f"{cls.flavour.modules[0]} is not installed; {advice or what}"
        except PsarmError as error:
            return False, str(error).rstrip(".")
        gpu, why = find_gpu()
        if gpu is None:
            return False, f"{version} is installed, but {why}"
        return True, f"{version} on {gpu.name} (compute capability {gpu.compute_capability})"

    @staticmethod
    def precisions(bundle: Bundle) -> tuple[str, ...]:
        """Those of the bundle's TensorRT graphs; whether engines of them are there, `lacks` says."""
        return tuple(bundle.manifest.tensorrt)

    @classmethod
    def lacks(cls, bundle: Bundle, precision: str) -> str | None:
        """The engines, where none are there for this GPU."""
        gpu, _ = find_gpu()
        try:
            if gpu is not None:
                find_engines(bundle, cls.flavour, precision, gpu)
        except BundleError:
            return f"no engine for this GPU; run psarm engines {bundle.path} --flavour {cls.flavour.name}"
        return None

    def close(self) -> None:
        """Free the engines and all device memory."""
        self._runners.clear()
        self._stack.close()

    def _read_plans(self, bundle: Bundle, gpu: Gpu) -> tuple[Engines, dict[str, bytes]]:
        """The engines and all their plans, of one build: found anew where another one takes their place meanwhile."""
        engines = find_engines(bundle, self.flavour, self.precision, gpu)
        try:
            return engines, {graph: engines.read_plan(graph) for graph in self.graphs}
        except BundleError:
            engines = find_engines(bundle, self.flavour, self.precision, gpu)
            return engines, {graph: engines.read_plan(graph) for graph in self.graphs}

    def _run(self, graph: str, feeds: Tensors) -> Tensors:
        if graph not in self._runners:
            raise PsarmError("This engine is closed; make a new PersonSearch.")
        runner = self._runners[graph]
        if "boxes" in feeds:
            return _run_rows(runner, feeds)
        outputs: Tensors = runner.run(feeds)
        exact = outputs.pop(EXACT, None)
        if exact is not None and not exact.all():
            warnings.warn(
                f"In {np.count_nonzero(~exact)} of {len(exact)} images TensorRT's form of the detect graph may have "
                "missed proposals that the ordinary graph finds: it looks at fewer candidates.",
                stacklevel=2,
            )
        return outputs


class TensorRTForRTXBackend(TensorRTBackend):
    """The graphs as engines of TensorRT for RTX."""

    name = "tensorrt_rtx"
    title = "TensorRT for RTX"
    flavour = TENSORRT_RTX


def _run_rows(runner: EngineRunner, feeds: Tensors) -> Tensors:
    """Run a graph on any number of boxes: in parts as large as the engine takes, each padded to a usual number."""
    least, most = runner.row_limits("boxes", {FEATURES: tuple(feeds[FEATURES].shape)})
    parts = []
    for start in range(0, len(feeds["boxes"]), most):
        part = {name: feeds[name][start : start + most] for name in ("boxes", "batch_indices")}
        count = len(part["boxes"])
        wanted = min(most, max(least, usual_rows(count)))
        padded = {name: _pad(array, wanted) for name, array in part.items()}
        outputs: Any = runner.run({**feeds, **padded})
        parts.append({name: array[:count] for name, array in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def usual_rows(count: int) -> int:
    """The next power of two, at least `LEAST_ROWS`."""
    return max(LEAST_ROWS, 1 << (count - 1).bit_length())


def _pad(array: NDArray[Any], rows: int) -> NDArray[Any]:
    """Repeat the first row at the end, up to `rows`."""
    return np.concatenate([array, np.repeat(array[:1], rows - len(array), axis=0)])
