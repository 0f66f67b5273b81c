"""The part of TensorRT's Python API that psarm uses: what TensorRT 10.x, 11.x and TensorRT for RTX share, as types.

The libraries bring no type stubs. A test holds every member below against the real TensorRT for RTX bindings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Shape = tuple[int, ...]


class Tensor(Protocol):
    """`ITensor`: an input or output of a network that is being built."""

    name: str
    shape: Sequence[int]
    dtype: Any


class Layer(Protocol):
    """`ILayer`."""

    type: Any
    num_outputs: int

    def get_output(self, index: int) -> Tensor | None:
        """One output; None where the layer leaves it out."""


class Network(Protocol):
    """`INetworkDefinition`."""

    num_inputs: int
    num_outputs: int
    num_layers: int

    def get_input(self, index: int) -> Tensor:
        """One input."""

    def get_output(self, index: int) -> Tensor:
        """One output."""

    def get_layer(self, index: int) -> Layer:
        """One layer."""


class ParserError(Protocol):
    """`IParserError`: one thing the ONNX parser would not take."""

    def node_name(self) -> str:
        """Name of the ONNX node, empty where it concerns none."""

    def node_operator(self) -> str:
        """The node's operator, `TopK`."""

    def desc(self) -> str:
        """What is wrong, over one line or several."""


class OnnxParser(Protocol):
    """`IParser` of ONNX."""

    num_errors: int

    def parse_from_file(self, model: str) -> bool:
        """Fill the network from a file; False with errors otherwise."""

    def get_error(self, index: int) -> ParserError:
        """One error."""


class OptimizationProfile(Protocol):
    """`IOptimizationProfile`: the input shapes an engine is made for."""

    def set_shape(self, input: str, min: Shape, opt: Shape, max: Shape) -> None:
        """The range of one input's shape."""


class BuilderConfig(Protocol):
    """`IBuilderConfig`; `*_compute_capability` exist in TensorRT for RTX only."""

    profiling_verbosity: Any
    progress_monitor: Any
    num_compute_capabilities: int

    def add_optimization_profile(self, profile: OptimizationProfile) -> int:
        """Its index, -1 where it was refused."""

    def clear_flag(self, flag: Any) -> None:
        """Switch a `BuilderFlag` off."""

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        """Bytes a memory pool may use while building and running."""

    def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
        """The GPUs an RTX engine is made for."""

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        """A cache of kernel timings, empty for no bytes."""

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        """Use a cache; False where it comes from another GPU or version."""

    def get_timing_cache(self) -> Any:
        """The cache in use; its `serialize()` gives a buffer."""


class Builder(Protocol):
    """`IBuilder`."""

    def create_network(self, flags: int) -> Network:
        """An empty network."""

    def create_builder_config(self) -> BuilderConfig:
        """Default settings."""

    def create_optimization_profile(self) -> OptimizationProfile:
        """An empty profile."""

    def build_serialized_network(self, network: Network, config: BuilderConfig) -> Any:
        """The plan as a buffer (`IHostMemory`), None where it failed."""


class ExecutionContext(Protocol):
    """`IExecutionContext`: an engine with shapes and buffers, ready to run."""

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Choose the profile; before shapes are set."""

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        """The shape of one input; False outside the profile."""

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        """The shape of an output, once all inputs have theirs."""

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Where on the device an input or output lies."""

    def set_device_memory(self, memory: int, size: int) -> None:
        """Scratch memory, for a context made without."""

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Enqueue one run on a stream."""


class Engine(Protocol):
    """`ICudaEngine`; `create_runtime_config` exists in TensorRT for RTX, and in TensorRT from 10.9 on."""

    num_io_tensors: int
    num_optimization_profiles: int
    device_memory_size_v2: int

    def get_tensor_name(self, index: int) -> str:
        """Name of an input or output."""

    def get_tensor_mode(self, name: str) -> Any:
        """`TensorIOMode.INPUT` or `OUTPUT`."""

    def get_tensor_dtype(self, name: str) -> Any:
        """Its `DataType`."""

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        """Its shape, -1 where it varies."""

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Sequence[Sequence[int]]:
        """Least, best and largest shape of an input in a profile."""

    def create_execution_context(self, strategy: Any) -> ExecutionContext | None:
        """A context; an RTX engine takes an `IRuntimeConfig` in the place of the strategy."""

    def create_runtime_config(self) -> Any:
        """Settings of a context: CUDA graphs, runtime cache, memory strategy."""

    def create_engine_inspector(self) -> Any:
        """Its `get_engine_information(format)` describes every layer."""


class Runtime(Protocol):
    """`IRuntime`."""

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
        """The engine of a plan; None where this library or this GPU cannot take it."""


class Library(Protocol):
    """The module `tensorrt` or `tensorrt_rtx`; enumerations are taken as they come."""

    __version__: str
    ILogger: Any
    IProgressMonitor: Any
    NetworkDefinitionCreationFlag: Any
    ProfilingVerbosity: Any
    MemoryPoolType: Any
    BuilderFlag: Any
    LayerInformationFormat: Any
    TensorIOMode: Any
    DataType: Any
    ExecutionContextAllocationStrategy: Any

    def Builder(self, logger: Any) -> Builder:
        """A builder; `tensorrt` needs a GPU for it, TensorRT for RTX does not."""

    def OnnxParser(self, network: Network, logger: Any) -> OnnxParser:
        """A parser that fills `network`."""

    def Runtime(self, logger: Any) -> Runtime:
        """What turns plans into engines."""

    def nptype(self, trt_type: Any) -> Any:
        """numpy's type of a `DataType`."""
