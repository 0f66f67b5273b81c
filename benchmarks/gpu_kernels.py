"""How fast the Triton kernels are beside their PyTorch forms, and whether they agree.

    python -m psarm.benchmarks.gpu_kernels --json kernels.json

on a GPU times each kernel and its form at the sizes of the released model on a 1080x1920 frame, the L2 cache emptied
before every call, and counts the bytes that have to be moved: what is read and what is written, once each. A kernel
that is not faster than its form should go. On a CPU, ``TRITON_INTERPRET=1 python -m psarm.benchmarks.gpu_kernels``
only looks at tiny sizes whether they agree.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from rich.table import Table
from torch import Tensor

from psarm.benchmarks.script import run
from psarm.console import out
from psarm.errors import PsarmError
from psarm.export.kernels import available
from psarm.files import write_json
from psarm.machine import describe_machine, package_versions

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 8e-2}
"""Largest difference over the largest value: a few roundings of the type."""


@dataclass(frozen=True)
class Sizes:
    """Of what the kernels work on."""

    rois: int
    channels: int
    cells: int
    """A side of a RoI."""
    map: tuple[int, int]
    candidates: int
    proposals: int
    frame: tuple[int, int]
    resized: tuple[int, int]
    padded: tuple[int, int]


FULL = Sizes(300, 256, 14, (54, 94), 1000, 300, (1080, 1920), (843, 1500), (864, 1504))
TINY = Sizes(3, 16, 4, (5, 7), 40, 20, (9, 13), (7, 11), (8, 16))


@dataclass(frozen=True)
class Case:
    """A kernel and its form on the same arguments."""

    name: str
    kernel: Callable[[], Any]
    form: Callable[[], Any]
    megabytes: float
    """Those read and written if each is once."""


@dataclass(frozen=True)
class Row:
    """One kernel, measured. Times are milliseconds a call, None where nothing is timed."""

    kernel: str
    dtype: str
    megabytes: float
    failure: str | None = None
    """Why there is nothing, or only the error."""
    error: float | None = None
    """Largest difference from the form over the form's largest value."""
    first_call_s: float | None = None
    """With its compilation."""
    ms: float | None = None
    form_ms: float | None = None
    gb_per_s: float | None = None

    @property
    def times_as_fast(self) -> float | None:
        """As the form."""
        return self.form_ms / self.ms if self.ms and self.form_ms else None


def measure_kernels(device: torch.device, dtype: torch.dtype, sizes: Sizes) -> list[Row]:
    """Compare, and on a GPU time, each kernel on data of `dtype`; one that fails is a row that says so."""
    rows = []
    with torch.inference_mode():
        for case in _cases(device, dtype, sizes):
            row = Row(case.name, str(dtype).removeprefix("torch."), case.megabytes)
            try:
                rows.append(_measure(row, case, device, TOLERANCES[dtype]))
            except Exception as error:  # whatever a compiler or a driver raises; the other kernels are still measured
                rows.append(replace(row, failure=f"{type(error).__name__}: {error}"))
    return rows


def _measure(row: Row, case: Case, device: torch.device, tolerance: float) -> Row:
    begun = time.perf_counter()
    answers = _tensors(case.kernel())
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    row = replace(row, first_call_s=time.perf_counter() - begun)
    error = max(_difference(ours, theirs) for ours, theirs in zip(answers, _tensors(case.form()), strict=True))
    if not error <= tolerance:
        return replace(row, failure=f"It differs from its PyTorch form by {error:.1e}; {tolerance:.0e} is allowed.")
    row = replace(row, error=error)
    if device.type != "cuda":
        return row
    from triton.testing import do_bench

    ms, form_ms = (do_bench(function, return_mode="median") for function in (case.kernel, case.form))
    return replace(row, ms=ms, form_ms=form_ms, gb_per_s=case.megabytes / ms)


def _cases(device: torch.device, dtype: torch.dtype, sizes: Sizes) -> list[Case]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator).to(device)

    return [*_box_cases(draw, dtype, sizes), _frame_case(draw, dtype, sizes), *_mixer_cases(draw, dtype, sizes)]


def _box_cases(draw: Callable[..., Tensor], dtype: torch.dtype, sizes: Sizes) -> list[Case]:
    from psarm.export.kernels import reference, roi_align, suppression

    pixels = 16 * torch.tensor(sizes.map[::-1], dtype=torch.float32)
    corners = draw(sizes.candidates, 2) * pixels.to(draw(1).device) * 0.8
    boxes = torch.cat([corners, corners + 8 + draw(sizes.candidates, 2) * pixels.to(corners.device) * 0.2], dim=1)
    valid = torch.ones(1, sizes.candidates, dtype=torch.bool, device=boxes.device)
    features = (draw(1, sizes.channels, *sizes.map) - 0.5).to(dtype)
    images = torch.zeros(sizes.rois, dtype=torch.int64, device=boxes.device)
    size = (sizes.cells, sizes.cells)
    written = sizes.rois * sizes.channels * sizes.cells**2
    megabytes = (features.numel() + written) * dtype.itemsize / 1e6
    cases = []
    for title, layout in (("channels last", torch.channels_last), ("channels first", torch.contiguous_format)):
        aligned = (
            features.contiguous(memory_format=layout),
            boxes[: sizes.rois],
            images,
            size,
            1 / 16,
            draw(sizes.channels),
        )
        cases.append(
            Case(
                f"roi_align, {title}",
                partial(roi_align.roi_align, *aligned),
                partial(reference.roi_align, *aligned),
                megabytes,
            )
        )
    suppressed = (boxes[None], valid, 0.7, sizes.proposals)
    moved = sizes.candidates * (16 + 2 * sizes.candidates / 8) / 1e6
    return [*cases, Case("nms", partial(suppression.nms, *suppressed), partial(reference.nms, *suppressed), moved)]


def _frame_case(draw: Callable[..., Tensor], dtype: torch.dtype, sizes: Sizes) -> Case:
    from psarm.export.kernels import frames, reference

    given = (draw(1, *sizes.frame, 3) * 255).byte()
    outs = [
        torch.empty(1, 3, *sizes.padded, dtype=dtype, device=given.device, memory_format=torch.channels_last)
        for _ in range(2)
    ]
    rule = (sizes.resized, MEAN, STD)
    return Case(
        "normalise_frames",
        partial(frames.normalise_frames, given, *rule, outs[0]),
        partial(reference.normalise_frames, given, *rule, outs[1]),
        (given.numel() + outs[0].numel() * dtype.itemsize) / 1e6,
    )


def _mixer_cases(draw: Callable[..., Tensor], dtype: torch.dtype, sizes: Sizes) -> list[Case]:
    from psarm.export.kernels import mixer, reference
    from psarm.export.kernels.fused_mixer import FusedMixer
    from psarm.export.mixer import MixerGraph, mixer_graph
    from psarm.model.arm import make_mixer

    rois, channels, tokens = sizes.rois, sizes.channels, sizes.cells**2
    x, y, z = ((draw(rois, tokens, channels) - 0.5).to(dtype) for _ in range(3))
    by_token, weight, bias = draw(tokens), draw(channels), draw(channels)
    logits = draw(rois, tokens, 1)
    one = x.numel() * dtype.itemsize / 1e6
    gated = (x, logits, False, weight, bias, 1e-5, dtype)
    summed = (x, y, z, False, True, True)
    graph = mixer_graph(make_mixer("arm", channels, tokens, 0.0, "paper").eval()).to(x.device)
    if not isinstance(graph, MixerGraph):
        raise TypeError(f"Needed a MixerGraph, got {type(graph).__name__}.")
    fused = FusedMixer(copy.deepcopy(graph), dtype)
    plain = graph.to(dtype)
    maps = x.reshape(rois, sizes.cells, sizes.cells, channels).permute(0, 3, 1, 2)
    cases = [
        Case(
            "pool, with a sum",
            lambda: mixer.pool(x, "tokens", False, y, by_token),
            lambda: reference.pool(x, "tokens", False, y, by_token),
            3 * one,
        ),
        Case("gate_norm", partial(mixer.gate_norm, *gated), partial(reference.gate_norm, *gated), 2 * one),
        Case(  # in place: both on a copy, whose cost is counted
            "bias_gelu_, and a copy",
            lambda: mixer.bias_gelu_(x.clone(), by_token),
            lambda: reference.bias_gelu_(x.clone(), by_token),
            4 * one,
        ),
        Case("add_simam", partial(mixer.add_simam, *summed), partial(reference.add_simam, *summed), 4 * one),
        Case("whole mixer", partial(fused, maps), partial(plain, maps), 2 * one),
    ]
    if x.is_cuda:  # compiled for a CPU it would say nothing, and take long
        compiled = torch.compile(plain, dynamic=False)
        cases.append(Case("whole mixer, its form compiled", partial(fused, maps), partial(compiled, maps), 2 * one))
    return cases


def _tensors(answer: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (answer,) if isinstance(answer, Tensor) else answer


def _difference(ours: Tensor, theirs: Tensor) -> float:
    largest = theirs.double().abs().max().clamp(min=1e-12)
    return float((ours.double() - theirs.double()).abs().max() / largest)


def kernel_table(rows: list[Row]) -> Table:
    """For the terminal."""
    table = Table("kernel", "type", "MB", "error", "ms", "GB/s", "PyTorch ms", "times as fast", "first call s")
    for row in rows:
        figures = (row.error, row.ms, row.gb_per_s, row.form_ms, row.times_as_fast, row.first_call_s)
        shown = ["" if value is None else f"{value:.2g}" for value in figures]
        table.add_row(row.kernel, row.dtype, f"{row.megabytes:.1f}", *shown)
    return table


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(json_path: Path | None) -> None:
    """Time the Triton kernels beside their PyTorch forms, or on a CPU see that they agree."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not available(device):
        raise PsarmError(
            "The kernels need triton and a CUDA GPU from compute capability 8.0 on; without one, TRITON_INTERPRET=1 "
            "compares them on the CPU."
        )
    dtypes = (torch.float16, torch.bfloat16) if device.type == "cuda" else (torch.float32,)
    sizes = FULL if device.type == "cuda" else TINY
    rows = [row for dtype in dtypes for row in measure_kernels(device, dtype, sizes)]
    out.print(kernel_table(rows))
    if json_path is not None:
        facts = {"machine": asdict(describe_machine()), "versions": package_versions()}
        write_json(json_path, {**facts, "rows": [asdict(row) for row in rows]})
    if failed := [f"{row.kernel}, {row.dtype}: {row.failure}" for row in rows if row.failure]:
        raise PsarmError("Kernels failed. " + " ".join(failed))


if __name__ == "__main__":
    run(main)
