"""The Triton kernels: parity in the interpreter, in a process of its own, and that they compile for Hopper."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from psarm.benchmarks.gpu_kernels import main
from psarm.errors import PsarmError
from psarm.export.kernels import available

triton = pytest.importorskip("triton")

PARITY = [str(Path(__file__).with_name(name)) for name in ("parity_boxes.py", "parity_mixer.py", "parity_graphs.py")]
TYPES = {
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.uint8: "*u8",
    torch.bool: "*i1",
}


def test_parity_with_pytorch():
    """Triton asks for the interpreter when it is imported, so that the suite's own process cannot have both."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--noconftest", "-p", "no:cacheprovider", *PARITY]
    tests = Path(__file__).parents[2]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tests)}
    done = subprocess.run(command, env=environment, cwd=tests.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def test_a_cpu_without_the_interpreter_has_no_kernels(monkeypatch):
    assert not available(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PsarmError, match="TRITON_INTERPRET=1 compares them on the CPU"):
        main.main([], standalone_mode=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not available(torch.device("cuda"))


class Compiler:
    """Stands for a kernel: compiles it for an H200 for the arguments it would be launched with."""

    def __init__(self, kernel, compiled):
        self.kernel = kernel
        self.compiled = compiled

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *values, num_warps, enable_fp_fusion=True, **more):
        values = {**dict(zip(self.kernel.arg_names, values, strict=False)), **more}
        signature, constants, attributes = {}, {}, {}
        for place, parameter in enumerate(self.kernel.params):
            value, name = values[parameter.name], parameter.name
            if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
                signature[name], constants[(place,)] = "constexpr", value  # as triton does with ones
            elif isinstance(value, torch.Tensor):
                signature[name] = TYPES[value.dtype]
            else:
                signature[name] = "fp32" if isinstance(value, float) else "i32"
            if isinstance(value, torch.Tensor) or (type(value) is int and value % 16 == 0):
                attributes[(place,)] = [["tt.divisibility", 16]]
        source = triton.compiler.ASTSource(self.kernel, signature, constants, attributes)
        target = triton.backends.compiler.GPUTarget("cuda", 90, 32)
        options = {"num_warps": num_warps, "enable_fp_fusion": enable_fp_fusion}
        self.compiled[self.kernel.__name__] = triton.compile(source, target=target, options=options)


def test_every_kernel_compiles_for_hopper(monkeypatch, tmp_path):
    """At sizes of one too, which triton takes for constants."""
    from psarm.export.kernels import frames, mixer, roi_align, suppression

    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    compiled = {}
    names = {roi_align: ["_roi_align"], suppression: ["_compare", "_sweep"], frames: ["_normalise_frames"]}
    names[mixer] = ["_pool", "_gate_norm", "_bias_gelu", "_add_simam"]
    for module, kernels in names.items():
        for name in kernels:
            monkeypatch.setattr(module, name, Compiler(getattr(module, name), compiled))

    def empty(*shape, dtype=torch.float16):
        return torch.empty(shape, dtype=dtype, device="meta")

    boxes, images = empty(3, 4, dtype=torch.float32), empty(3, dtype=torch.int64)
    roi_align.roi_align(empty(1, 64, 1, 6), boxes, images, (14, 14), 1 / 16)
    suppression.nms(boxes[None], empty(1, 3, dtype=torch.bool), 0.5, 300)
    frames.normalise_frames(empty(1, 1, 9, 3, dtype=torch.uint8), (1, 5), (0.5,) * 3, (0.5,) * 3, empty(1, 3, 32, 32))
    x, vector = empty(2, 196, 64), empty(64, dtype=torch.float32)
    mixer.pool(x, "tokens", True, x, empty(196, dtype=torch.float32))
    mixer.gate_norm(x, empty(2, 196, 1, dtype=torch.float32), True, vector, vector, 1e-5, torch.float16)
    mixer.bias_gelu_(x, empty(196, dtype=torch.float32))
    mixer.add_simam(x, x, x, True, True, True)
    assert sorted(compiled) == sorted(name for kernels in names.values() for name in kernels)
    assert all("cubin" in kernel.asm for kernel in compiled.values())
