"""The graphs' modules as a device runs them best: precision, shapes, layout, fused convolutions, compiled or not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from psarm.export.fused_convolutions import fuse_convolutions
from psarm.export.graphs import DetectGraph, RefineGraph, ReidGraph
from psarm.export.heads import TrunkGraph
from psarm.export.reduced import reduce_precision
from psarm.export.static_nms import ProductNms
from psarm.export.static_proposals import StaticProposalGraph
from psarm.export.torch_half import half_form
from psarm.export.torch_kernels import KernelProposalGraph, float_mixers, use_kernels
from psarm.model.person_search import PersonSearchModel
from psarm.runtime.manifest import GRAPH_OUTPUTS

Graph = TypeVar("Graph", bound=nn.Module)


@dataclass(frozen=True)
class Form:
    """How the modules are to run."""

    dtype: torch.dtype | None = None
    """Of the products: bfloat16 or float16; None for float32."""
    half_activations: bool = True
    """In 16 bits activations are too, as a GPU wants them; else they are float32 between the products."""
    static: bool = False
    """Make a form with static shapes too, to be recorded as a CUDA graph."""
    compiled: Literal["no", "whole", "parts"] = "no"
    """Let torch.compile have the static form, once for every set of shapes: all of it, or ARM's mixers and the choice
    of proposals, many small kernels, alone."""
    compiler: str = "inductor"
    """torch.compile's backend; `eager` only traces."""
    channels_last: bool = True
    fused: bool = False
    """Convolutions together with their bias, residual and ReLU in cuDNN."""
    kernels: bool = False
    """Triton kernels for RoIAlign, ARM's mixer and NMS (`psarm.export.kernels`)."""


@dataclass(frozen=True)
class GraphForms:
    """One graph on its device."""

    outputs: Sequence[str]
    """Names of what `ordinary` returns first."""
    ordinary: nn.Module
    module: nn.Module
    """With static shapes, where there is such a form."""
    static: Callable[..., Sequence[Tensor]] | None
    """The same with shapes that depend on no data; None where nobody asked for it."""
    static_outputs: Sequence[str]


def build_forms(model: PersonSearchModel, form: Form, device: torch.device) -> dict[str, GraphForms]:
    """`detect`, (`refine`) and `reid` of a model, by name; takes over the model, whose own modules they change.

    Raises `UsageError` for kernels that do not run on this device.
    """
    detect = _place(DetectGraph(model), form, device)
    fixed = _with_static_proposals(detect, model, form).to(device) if form.static else None
    names = [*GRAPH_OUTPUTS["detect"], *(["regions"] if detect.looks_at_proposals else [])]
    fixed_names = [*names, "exact"]
    static = _run(fixed, form, len(fixed_names)) if fixed is not None else None
    forms = {"detect": GraphForms(names, detect, fixed or detect, static, fixed_names)}
    heads: dict[str, nn.Module] = {"reid": ReidGraph(model)}
    if len(model.roi_heads.reid_heads) > 1:
        heads = {"refine": RefineGraph(model, 0), **heads}
    for name, head in heads.items():
        names = [*GRAPH_OUTPUTS[name]]
        placed = _place(head, form, device)
        static = _run(placed, form, len(names)) if form.static else None
        forms[name] = GraphForms(names, placed, placed, static, names)
    return forms


def _place(graph: Graph, form: Form, device: torch.device) -> Graph:
    graph = graph.eval().requires_grad_(False)
    mixers = float_mixers(graph) if form.kernels else {}
    if form.fused:
        fuse_convolutions(graph)
    if form.dtype is not None and form.half_activations:
        half_form(graph, form.dtype)
    elif form.dtype is not None:
        reduce_precision(graph, form.dtype)
    # Convolutions follow the layout of their weights.
    layout = torch.channels_last if form.channels_last else torch.contiguous_format
    graph.to(device, memory_format=layout)  # type: ignore[call-overload]
    if form.kernels:
        use_kernels(graph, mixers, form.dtype or torch.float32, device)
    if form.compiled == "parts":
        for part in graph.modules():
            if isinstance(part, TrunkGraph) and part.mixer is not None:
                part.mixer = _compiled(part.mixer, form)
    return graph


def _with_static_proposals(detect: DetectGraph, model: PersonSearchModel, form: Form) -> DetectGraph:
    """The same modules but for the choice of proposals, which is not on its device yet."""
    static = copy.copy(detect)
    static._modules = dict(detect._modules)
    proposals: nn.Module
    if form.kernels:
        proposals = KernelProposalGraph(model.rpn)
    else:
        proposals = StaticProposalGraph(model.rpn)
        proposals.nms = ProductNms(proposals.nms.threshold, proposals.nms.sweeps)
    static.proposals = cast(Any, _compiled(proposals, form) if form.compiled == "parts" else proposals)
    return static


def _compiled(module: nn.Module, form: Form) -> nn.Module:
    return torch.compile(module, dynamic=False, backend=form.compiler)  # type: ignore[return-value]


def _run(module: nn.Module, form: Form, wanted: int) -> Callable[..., Sequence[Tensor]]:
    """A function that gives the first outputs only: a recording keeps the memory of all it gives."""
    function: Any = _compiled(module, form) if form.compiled == "whole" else module

    def answer(*inputs: Tensor) -> Sequence[Tensor]:
        outputs: Any = function(*inputs)
        return (outputs,) if isinstance(outputs, Tensor) else outputs[:wanted]

    return answer
