"""A plan → an engine and its execution contexts, where TensorRT and TensorRT for RTX differ most.

What has run where: loading a plan that no GPU can take is refused in the tests; the rest needs a GPU and has only been
held against the members that TensorRT for RTX's bindings have.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from psarm.errors import BundleError, PsarmError
from psarm.files import atomic_path
from psarm.runtime.manifest import GraphSpec, TensorSpec
from psarm.runtime.tensorrt.device import Device, DeviceMemoryError
from psarm.runtime.tensorrt.flavour import Flavour
from psarm.runtime.tensorrt.library import Engine, ExecutionContext, Shape

Limits = tuple[Shape, Shape]  # least and largest


class Contexts:
    """An engine that was loaded, and the maker of its execution contexts."""

    def __init__(self, flavour: Flavour, graph: str, plan: bytes, compiled: Path, command: str) -> None:
        """Load `plan`.

        `compiled`: where TensorRT for RTX keeps the kernels it finished here; `command`: what builds engines.
        Raises `BundleError` where the library or the GPU does not take the plan.
        """
        self._flavour, self._library, self._log = flavour, flavour.load(), flavour.logger()
        self._log.clear()
        self._runtime = self._library.Runtime(self._log.handle)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BundleError(
                f"{flavour.title_version()} does not take the engine of the {graph} graph ({self.reason()}); build it "
                f"again here with: {command} --rebuild."
            )
        self._engine: Engine = engine
        self.records = not flavour.ahead_of_time
        """Whether the runner is to record CUDA graphs; TensorRT for RTX records its own."""
        self._compiled = compiled
        self._config: Any = self._runtime_config() if flavour.ahead_of_time else None
        self._cache: Any = self._read_compiled() if flavour.ahead_of_time else None

    @property
    def scratch_size(self) -> int:
        """Bytes of device memory that a context needs while it runs."""
        return int(self._engine.device_memory_size_v2)

    @property
    def profiles(self) -> list[dict[str, Limits]]:
        """Of every profile, least and largest shape of each input."""
        names = list(self.spec().inputs)
        made = []
        for index in range(self._engine.num_optimization_profiles):
            ranges = {name: self._engine.get_tensor_profile_shape(name, index) for name in names}
            made.append({name: (tuple(shapes[0]), tuple(shapes[-1])) for name, shapes in ranges.items()})
        return made

    def spec(self) -> GraphSpec:
        """Inputs and outputs of the engine; sizes that vary are -1."""
        inputs: dict[str, TensorSpec] = {}
        outputs: dict[str, TensorSpec] = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            dtype = np.dtype(self._library.nptype(self._engine.get_tensor_dtype(name))).name
            spec = TensorSpec(dtype, tuple(int(size) for size in self._engine.get_tensor_shape(name)))
            is_input = self._engine.get_tensor_mode(name) == self._library.TensorIOMode.INPUT
            (inputs if is_input else outputs)[name] = spec
        return GraphSpec(inputs, outputs)

    def make(self, profile: int, device: Device, scratch: int, size: int) -> ExecutionContext:
        """A context on a profile, with `size` bytes of scratch memory that all contexts of the engine share."""
        strategy = self._library.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy if self._config is None else self._config)
        if context is None:
            why = self.reason()
            if "memory" in why.lower():
                raise DeviceMemoryError(f"The GPU's memory ran out ({why}); use a smaller batch or smaller frames.")
            raise PsarmError(f"{self._flavour.title} gave no execution context: {why}.")
        context.set_device_memory(scratch, size)
        if not context.set_optimization_profile_async(profile, device.stream):
            raise PsarmError(f"{self._flavour.title} does not take profile {profile}: {self.reason()}.")
        device.synchronise()
        return context

    def reason(self) -> str:
        """What the library said last."""
        return next(reversed(self._log.errors()), "it gave no reason")

    def close(self) -> None:
        """Keep the kernels that were finished here, for the next start; a warning where they cannot be written."""
        if self._cache is None or not self._compiled.parent.is_dir():  # the engines were deleted meanwhile
            return
        try:
            with atomic_path(self._compiled) as temporary:
                temporary.write_bytes(self._cache.serialize())
        except OSError as error:
            warnings.warn(
                f"The kernels finished on this GPU are not kept, {self._compiled.parent} cannot be written to "
                f"({error.strerror}): the next start finishes them again.",
                stacklevel=2,
            )

    def _runtime_config(self) -> Any:
        library: Any = self._library
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(library.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.cuda_graph_strategy = library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return config

    def _read_compiled(self) -> Any:
        cache = self._config.create_runtime_cache()
        if self._compiled.is_file():
            cache.deserialize(self._compiled.read_bytes())  # refuses, and stays empty, where the machine has changed
        self._config.set_runtime_cache(cache)
        return cache
