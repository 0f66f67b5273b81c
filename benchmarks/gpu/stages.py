"""Where the network's time goes: each part of the best form recorded and timed alone, with its multiply-adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from psarm.benchmarks.gpu.contenders import Built, Rewrites, record
from psarm.benchmarks.gpu.measure import count_macs, take_turns
from psarm.benchmarks.gpu.network import Work
from psarm.benchmarks.gpu.subject import Case, Subject
from psarm.export.boxes import clip_boxes, decode_boxes
from psarm.export.graphs import DetectGraph, ReidGraph
from psarm.export.torch_forms import Form, build_forms

Part = tuple[Callable[..., Any], Sequence[Tensor]]


def count_work(subject: Subject) -> Work:
    """Multiply-adds of the rewritten graphs on one frame, and for each person."""
    forms = build_forms(subject.model(), Form(), subject.device)
    case = subject.case(1, 1)
    with torch.inference_mode():
        features = forms["detect"].ordinary(case.images, case.sizes)[3]
        return Work(
            count_macs(forms["detect"].ordinary, case.images, case.sizes),
            count_macs(forms["reid"].ordinary, features, case.boxes, case.numbers),
        )


def stage_times(
    rewrites: Built, plain: Built, case: Case, rounds: int, tera_macs: float | None
) -> dict[str, dict[str, Any]]:
    """By part: `ms`, `gmacs` and `share_of_gemm` (of `tera_macs`, 10^12 multiply-adds a second).

    `rewrites` has static forms; multiply-adds are counted on `plain`, where each is an operator that torch knows. Parts
    read and write memory of their own here, so that their sum is somewhat more than the whole.
    """
    found: dict[str, dict[str, Any]] = {}
    with torch.inference_mode():
        recorded = {
            name: record(_answers(function), given) for name, (function, given) in _parts(rewrites, case).items()
        }
        functions = {name: recording.replay for name, recording in recorded.items()}
        times = take_turns(functions, case.images.device, rounds)
        for name, (function, inputs) in _parts(plain, case).items():
            macs = count_macs(function, *inputs)
            row: dict[str, Any] = {"ms": times[name].median, "gmacs": macs / 1e9}
            if macs and tera_macs:
                row["share_of_gemm"] = macs / (1e9 * times[name].median) / tera_macs
            found[name] = row
    return found


def _parts(rewrites: Built, case: Case) -> dict[str, Part]:
    if not isinstance(rewrites, Rewrites):
        raise TypeError("Only the rewrites have stages.")
    detect, reid = (rewrites.forms[name].module for name in ("detect", "reid"))
    if not isinstance(detect, DetectGraph) or not isinstance(reid, ReidGraph):
        raise TypeError("Needed a detect and a reid graph.")
    return {**_detect_parts(detect, case), **_reid_parts(reid, detect, case)}


def _detect_parts(graph: DetectGraph, case: Case) -> dict[str, Part]:
    res4 = graph.backbone(case.images)
    features = res4 if graph.reduce is None else graph.reduce(res4)
    first = features if graph.reduce_first is None else graph.reduce_first(res4)
    [objectness], [deltas] = graph.rpn_head([res4])
    proposals = graph.proposals(objectness, deltas, case.sizes)[0]
    limit = proposals.shape[1]
    number = torch.arange(case.batch, device=proposals.device).repeat_interleave(limit)
    trunk: Any = graph.head.trunk if hasattr(graph.head, "trunk") else graph.head.head.trunk  # type: ignore[union-attr]
    parts: dict[str, Part] = {
        "backbone": (graph.backbone, [case.images]),
        "reductions": (lambda x: [layer(x) for layer in (graph.reduce, graph.reduce_first) if layer], [res4]),
        "rpn head": (lambda x: [value for values in graph.rpn_head([x]) for value in values], [res4]),
        "proposals": (lambda *given: graph.proposals(*given)[0], [objectness, deltas, case.sizes]),
        "detection head": (graph.head, [first, proposals.flatten(0, 1), number]),
        "detection boxes": (_decode, [torch.zeros_like(proposals), proposals, case.sizes]),
    }
    return {**parts, **_trunk_parts("detection", trunk, [first, proposals.flatten(0, 1), number])}


def _reid_parts(graph: ReidGraph, detect: DetectGraph, case: Case) -> dict[str, Part]:
    features = detect.backbone(case.images)
    features = features if detect.reduce is None else detect.reduce(features)
    inputs = [features, case.boxes, case.numbers]
    return {"reid": (graph, inputs), **_trunk_parts("reid", graph.head.trunk, inputs)}


def _trunk_parts(name: str, trunk: Any, inputs: Sequence[Tensor]) -> dict[str, Part]:
    rois = trunk.align(*inputs, *trunk.roi_shape, 1 / 16)
    parts: dict[str, Part] = {
        f"{name} RoIAlign": (lambda *given: trunk.align(*given, *trunk.roi_shape, 1 / 16), inputs)
    }
    if trunk.mixer is not None:
        mix = trunk.mixer if trunk.bias is None else lambda x: trunk.mixer(x + trunk.bias)
        parts[f"{name} ARM's mixer"] = (mix, [rois])
        rois = mix(rois)
    if trunk.expand is not None:
        rois = trunk.expand(rois)
    parts[f"{name} res5"] = (lambda x: trunk.res5(x).amax(dim=(2, 3)), [rois])
    return parts


def _decode(deltas: Tensor, proposals: Tensor, sizes: Tensor) -> Tensor:
    return clip_boxes(decode_boxes(deltas, proposals), sizes)


def _answers(function: Callable[..., Any]) -> Callable[..., Sequence[Tensor]]:
    def answers(*inputs: Tensor) -> Sequence[Tensor]:
        answer: Any = function(*inputs)
        return (answer,) if isinstance(answer, Tensor) else tuple(answer)

    return answers
