"""Doubles of a GPU and of engines on it, for the logic around them: "device" memory is numpy, kernels are ONNX Runtime.

Nothing here shows that CUDA or TensorRT would do the same.
"""

from pathlib import Path

import numpy as np
import onnxruntime

from psarm.runtime.manifest import GraphSpec, TensorSpec
from psarm.runtime.tensorrt.device import DeviceMemoryError, Gpu


class DeviceDouble:
    """Memory by address; copies and kernels wait until they are synchronised or recorded, as on a stream."""

    def __init__(self, memory=1 << 30):
        self.gpu, self.stream = Gpu("NVIDIA L4", "8.9"), 7
        self.memory, self.free_bytes, self.next = {}, memory, 1 << 20
        self.pinned, self.queue, self.recording = [], [], None
        self.launches = 0
        self.records = True
        self.closed = False

    def allocate(self, size):
        if size > self.free_bytes:
            raise DeviceMemoryError("The GPU's memory ran out; use a smaller batch or smaller frames.")
        self.free_bytes -= size
        address, self.next = self.next, self.next + size + 256
        self.memory[address] = np.full(size, 0xAB, np.uint8)
        return address

    def free(self, address):
        self.free_bytes += len(self.memory.pop(address))

    def allocate_pinned(self, size):
        memory = np.full(size, 0xCD, np.uint8)
        self.pinned.append(memory)
        return memory

    def free_pinned(self, memory):
        self.pinned = [one for one in self.pinned if one is not memory]

    def enqueue(self, work):
        (self.queue if self.recording is None else self.recording).append(work)

    def copy_in(self, address, source):
        assert any(np.shares_memory(source, one) for one in self.pinned), "not from pinned memory"
        self.enqueue(lambda: self.memory[address].__setitem__(slice(None), source))

    def copy_out(self, target, address):
        assert any(np.shares_memory(target, one) for one in self.pinned), "not to pinned memory"
        self.enqueue(lambda: target.__setitem__(slice(None), self.memory[address]))

    def record(self, work):
        if not self.records:
            raise DeviceMemoryError("CUDA failed: operation not permitted when stream is capturing.")
        self.recording = steps = []
        work()
        self.recording = None
        return RecordingDouble(self, steps)

    def synchronise(self):
        while self.queue:
            self.queue.pop(0)()

    def close(self):
        self.closed = True


class RecordingDouble:
    def __init__(self, device, steps):
        self.device, self.steps, self.freed = device, steps, False

    def launch(self):
        assert not self.freed
        self.device.launches += 1
        for step in self.steps:
            self.device.enqueue(step)

    def free(self):
        self.freed = True


class ContextsDouble:
    """An "engine" of an ONNX graph, with the given profiles: input → (least, largest) shape."""

    def __init__(self, graph: Path, profiles, half=()):
        self.session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        self.profiles, self.half = profiles, half
        self.scratch_size, self.records, self.closed, self.made = 1024, True, False, []
        self.fails = False

    def spec(self):
        def spec(tensors):
            return {
                t.name: TensorSpec(self.dtype(t), tuple(s if isinstance(s, int) else -1 for s in t.shape))
                for t in tensors
            }

        return GraphSpec(spec(self.session.get_inputs()), spec(self.session.get_outputs()))

    def dtype(self, tensor):
        plain = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(bool)": "bool"}[tensor.type]
        return "float16" if tensor.name in self.half else plain

    def make(self, profile, device, scratch, size):
        assert size >= self.scratch_size and scratch in device.memory
        self.made.append(ContextDouble(self, profile, device))
        return self.made[-1]

    def reason(self):
        return "it gave no reason"

    def close(self):
        self.closed = True


class ContextDouble:
    def __init__(self, engine, profile, device):
        self.engine, self.profile, self.device = engine, profile, device
        self.shapes, self.addresses = {}, {}

    def set_input_shape(self, name, shape):
        least, most = self.engine.profiles[self.profile][name]
        self.shapes[name] = shape
        return all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))

    def get_tensor_shape(self, name):
        feeds = {
            t.name: np.ones(self.shapes[t.name], self.engine.spec().inputs[t.name].dtype.replace("16", "32"))
            for t in self.engine.session.get_inputs()
        }
        feeds |= {"batch_indices": np.zeros_like(feeds["batch_indices"])} if "batch_indices" in feeds else {}
        return self.engine.session.run([name], feeds)[0].shape

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        assert stream == self.device.stream
        if self.engine.fails:
            return False
        self.device.enqueue(self.compute)
        return True

    def compute(self):
        spec = self.engine.spec()
        feeds = {}
        for name, tensor in spec.inputs.items():
            raw = self.device.memory[self.addresses[name]].view(tensor.dtype).reshape(self.shapes[name])
            feeds[name] = raw.astype(np.float32) if raw.dtype == np.float16 else raw
        for name, value in zip(spec.outputs, self.engine.session.run(list(spec.outputs), feeds), strict=True):
            value = np.ascontiguousarray(value.astype(spec.outputs[name].dtype))
            self.device.memory[self.addresses[name]][...] = value.reshape(-1).view(np.uint8)
