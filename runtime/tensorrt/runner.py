"""One engine on a device: shapes, buffers, execution contexts and recorded runs.

Every combination of input shapes has a `ShapedRun` of its own: an execution context, device buffers, pinned host
buffers and, with TensorRT, a CUDA graph of copies and kernels (TensorRT for RTX records its own). The least recently
used one makes way when there are too many. Outputs that the next graph reads stay on the device.

What has run where: this module ran against a double of the device and of the engine only, which compute with numpy.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.errors import PsarmError, UsageError
from psarm.runtime.manifest import GraphSpec, TensorSpec
from psarm.runtime.tensorrt.contexts import Contexts
from psarm.runtime.tensorrt.device import Device, Recording
from psarm.runtime.tensorrt.library import ExecutionContext, Shape

SHAPES_KEPT = 8
"""Combinations of input shapes whose buffers are kept at a time."""


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """An output that stayed on the device, to be given to another graph of the same backend before the next run."""

    shape: Shape
    dtype: np.dtype[Any]
    address: int
    run: ShapedRun
    number: int
    """Of the run that wrote it; the next one overwrites it."""

    def check(self) -> None:
        """Raise `PsarmError` where a later run has overwritten it."""
        if self.number != self.run.number:
            raise PsarmError(
                "These features are gone: they stay on the GPU only until the next frames are run; run all graphs of "
                "one batch before the next."
            )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The values on the host."""
        self.check()
        return self.run.fetch(self).astype(dtype or self.dtype, copy=False)


Feeds = Mapping[str, "NDArray[Any] | DeviceArray"]


class EngineRunner:
    """An engine that runs on host arrays and device arrays by name; `close` frees what it holds."""

    def __init__(self, graph: str, contexts: Contexts, device: Device, resident: frozenset[str]) -> None:
        """`resident`: outputs that stay on the device.

        Raises `DeviceMemoryError` where the scratch memory does not fit.
        """
        self.graph = graph
        self.spec = contexts.spec()
        self._contexts, self._device, self._resident = contexts, device, resident
        self._runs: OrderedDict[Any, ShapedRun] = OrderedDict()
        self._scratch_size = max(1, contexts.scratch_size)
        self._scratch = device.allocate(self._scratch_size)

    def run(self, feeds: Feeds) -> dict[str, NDArray[Any] | DeviceArray]:
        """Run on inputs of one profile's shapes; host results are copies.

        Raises `UsageError` where no profile takes the shapes, `DeviceMemoryError` where the buffers do not fit.
        """
        for value in feeds.values():
            if isinstance(value, DeviceArray):
                value.check()
        shapes = {name: tuple(value.shape) for name, value in feeds.items()}
        resident = {name: value.address for name, value in feeds.items() if isinstance(value, DeviceArray)}
        key = (tuple(sorted(shapes.items())), tuple(sorted(resident.items())))
        if key not in self._runs:
            profile = self.find_profile(shapes)
            while len(self._runs) >= SHAPES_KEPT:
                self._runs.popitem(last=False)[1].free()
            self._runs[key] = self._prepare(profile, shapes, resident)
        self._runs.move_to_end(key)
        return self._runs[key].run({n: v for n, v in feeds.items() if not isinstance(v, DeviceArray)})

    def find_profile(self, shapes: Mapping[str, Shape]) -> int:
        """The first profile that takes inputs of these shapes."""
        profiles = self._contexts.profiles
        for index, profile in enumerate(profiles):
            if all(_within(shapes[name], *limits) for name, limits in profile.items()):
                return index
        raise self._no_profile(shapes)

    def row_limits(self, name: str, others: Mapping[str, Shape]) -> tuple[int, int]:
        """Fewest and most rows of an input, in the profile that takes most beside the `others`."""
        profiles = [
            profile
            for profile in self._contexts.profiles
            if all(_within(shape, *profile[other]) for other, shape in others.items())
        ]
        if not profiles:
            raise self._no_profile(others)
        least, most = max((profile[name] for profile in profiles), key=lambda limits: limits[1][0])
        return least[0], most[0]

    def close(self) -> None:
        """Free all device memory; it cannot run afterwards."""
        with ExitStack() as stack:  # all of it, also where one thing fails
            stack.callback(self._device.free, self._scratch)
            stack.callback(self._contexts.close)
            for run in self._runs.values():
                stack.callback(run.free)
            self._runs.clear()

    def _no_profile(self, shapes: Mapping[str, Shape]) -> UsageError:
        """Names the first input that no profile takes, or all where each is taken by some."""
        profiles = self._contexts.profiles
        alone = [n for n, shape in shapes.items() if not any(_within(shape, *one[n]) for one in profiles)]
        name = (alone or list(shapes))[0]
        ranges = " or ".join(f"{_text(one[name][0])} to {_text(one[name][1])}" for one in profiles)
        return UsageError(
            f"The {self.graph} engine takes {name} of {ranges}, got {_text(shapes[name])}; use a smaller batch, or "
            "build engines that take it with psarm engines --max-batch or --sizes."
        )

    def _prepare(self, profile: int, shapes: Mapping[str, Shape], resident: Mapping[str, int]) -> ShapedRun:
        context = self._contexts.make(profile, self._device, self._scratch, self._scratch_size)
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise PsarmError(
                    f"The {self.graph} engine refuses {name} of {_text(shape)}: {self._contexts.reason()}."
                )
        return ShapedRun(self, context, shapes, resident)


class ShapedRun:
    """An engine at given input shapes, with all buffers."""

    def __init__(
        self,
        runner: EngineRunner,
        context: ExecutionContext,
        shapes: Mapping[str, Shape],
        resident: Mapping[str, int],
    ) -> None:
        self.number = 0
        """How often it has run; what stays on the device is of the last time only."""
        self._runner, self._context = runner, context
        self._device = runner._device
        self._given: dict[str, tuple[NDArray[Any], int]] = {}
        self._taken: dict[str, tuple[NDArray[Any], int]] = {}
        self._kept: dict[str, tuple[Shape, np.dtype[Any], int]] = {}
        self._recording: Recording | None = None
        self._records = runner._contexts.records
        with ExitStack() as stack:
            for name, spec in runner.spec.inputs.items():
                if name in resident:
                    self._place(name, resident[name])
                else:
                    self._given[name] = self._buffers(stack, name, shapes[name], spec)
            for name, spec in runner.spec.outputs.items():
                shape = tuple(context.get_tensor_shape(name))
                if name in runner._resident:
                    self._kept[name] = (shape, np.dtype(spec.dtype), self._on_device(stack, name, shape, spec))
                else:
                    self._taken[name] = self._buffers(stack, name, shape, spec)
            self._stack = stack.pop_all()

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any] | DeviceArray]:
        """Copy in, run, copy out."""
        self.number += 1
        for name, array in feeds.items():
            self._given[name][0][...] = array
        if self._recording is not None:
            self._recording.launch()
        else:
            self._enqueue()  # also settles what the engine puts off, which recording does not allow
        self._device.synchronise()
        if self._records:
            self._record()
        results: dict[str, NDArray[Any] | DeviceArray] = {name: host.copy() for name, (host, _) in self._taken.items()}
        for name, (shape, dtype, address) in self._kept.items():
            results[name] = DeviceArray(shape, dtype, address, self, self.number)
        return results

    def fetch(self, array: DeviceArray) -> NDArray[Any]:
        """A copy on the host of what it kept on the device."""
        memory = self._device.allocate_pinned(int(np.prod(array.shape)) * array.dtype.itemsize)
        self._device.copy_out(memory, array.address)
        self._device.synchronise()
        values = memory.view(array.dtype).reshape(array.shape).copy()
        self._device.free_pinned(memory)
        return values

    def free(self) -> None:
        """Free the buffers; what it kept on the device is gone."""
        self.number += 1
        if self._recording is not None:
            self._recording.free()
        self._stack.close()

    def _enqueue(self) -> None:
        for host, address in self._given.values():
            self._device.copy_in(address, _bytes(host))
        if not self._context.execute_async_v3(self._device.stream):
            raise PsarmError(f"The {self._runner.graph} engine failed: {self._runner._contexts.reason()}.")
        for host, address in self._taken.values():
            self._device.copy_out(_bytes(host), address)

    def _record(self) -> None:
        """Record the run, once."""
        self._records = False
        try:
            self._recording = self._device.record(self._enqueue)
        except PsarmError as error:
            text = str(error).rstrip(".")
            warnings.warn(f"The {self._runner.graph} engine runs without a CUDA graph: {text}.", stacklevel=2)

    def _buffers(self, stack: ExitStack, name: str, shape: Shape, spec: TensorSpec) -> tuple[NDArray[Any], int]:
        address = self._on_device(stack, name, shape, spec)
        memory = self._device.allocate_pinned(_size(shape, spec))
        stack.callback(self._device.free_pinned, memory)
        return memory.view(spec.dtype).reshape(shape), address

    def _on_device(self, stack: ExitStack, name: str, shape: Shape, spec: TensorSpec) -> int:
        if any(size < 0 for size in shape):
            raise PsarmError(
                f"The size of {name} of the {self._runner.graph} engine depends on the data ({list(shape)}); psarm's "
                "TensorRT graphs have none such: export the bundle again."
            )
        address = self._device.allocate(_size(shape, spec))
        stack.callback(self._device.free, address)
        self._place(name, address)
        return address

    def _place(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise PsarmError(f"The {self._runner.graph} engine has no {name}: {self._runner._contexts.reason()}.")


def check_spec(graph: str, found: GraphSpec, described: GraphSpec, resident: str) -> GraphSpec:
    """The specs the engine runs by: the manifest's, `resident` in the type the engine keeps it in.

    Raises `UsageError` where the engine is not of the graph that the manifest describes.
    """
    merged = []
    for ours, theirs in ((found.inputs, described.inputs), (found.outputs, described.outputs)):
        for name, spec in theirs.items():
            if name not in ours or not _agree(ours[name], spec, any_type=name == resident):
                has = f"{ours[name].dtype} {list(ours[name].shape)}" if name in ours else "none"
                raise UsageError(
                    f"The {graph} engine has {has} for {name}, the bundle's graph {spec.dtype} {list(spec.shape)}; "
                    "delete the engines and build them again with psarm engines."
                )
        merged.append({name: TensorSpec(ours[name].dtype, spec.shape) for name, spec in theirs.items()})
    return GraphSpec(*merged)


def _agree(found: TensorSpec, described: TensorSpec, any_type: bool) -> bool:
    fits = len(found.shape) == len(described.shape) and all(
        isinstance(b, str) or a == -1 or a == b for a, b in zip(found.shape, described.shape, strict=True)
    )
    return fits and (any_type or found.dtype == described.dtype)


def _within(shape: Shape, least: Shape, most: Shape) -> bool:
    return len(shape) == len(least) and all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))


def _size(shape: Shape, spec: TensorSpec) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize


def _bytes(host: NDArray[Any]) -> NDArray[np.uint8]:
    return host.reshape(-1).view(np.uint8)


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))
