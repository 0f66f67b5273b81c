"""What is timed: the literal model, and the exact rewrites in every form that torch can run them in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from psarm.benchmarks.gpu.measure import Function
from psarm.benchmarks.gpu.subject import Case, Subject
from psarm.export.recordings import Recording, record_cuda
from psarm.export.torch_forms import Form, build_forms
from psarm.export.torch_graphs import pad_rows

DTYPES: dict[str, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Prepared:
    """A contender ready to be timed on one case."""

    network: Function
    """From images on the device to embeddings there."""
    stages: dict[str, Function] = field(default_factory=dict)
    """Its parts, where it has any: detect and reid."""
    answer: Callable[[], dict[str, Tensor]] | None = None
    """Features and embeddings, to see that they are right; `exact` where a form may choose other proposals."""
    people_found: int | None = None
    """By a contender that looks for them itself."""


class Built(Protocol):
    """A contender's model on the device."""

    def prepare(self, case: Case) -> Prepared:
        """Run it once on `case`, recorded or compiled where it is to be."""


@dataclass(frozen=True)
class Contender:
    """One way to run the model."""

    name: str
    precision: str
    build: Callable[[Subject], Built]
    seconds: float = 15.0
    """About as long it takes to build and measure."""


class Literal:
    """The released model as it is written; its network is the backbone, the RPN and all heads with their NMS."""

    def __init__(self, subject: Subject, precision: str, autocast: bool) -> None:
        self.model = subject.model().to(subject.device)
        self.dtype = DTYPES[precision]
        self.autocast = autocast and precision != "fp32"
        if not self.autocast:
            self.model = self.model.to(self.dtype)

    def prepare(self, case: Case) -> Prepared:
        """As `Built`."""
        model, device = self.model, case.images.device
        sizes = [(int(height), int(width)) for height, width in case.sizes.tolist()]
        batch = ImageList(case.images.contiguous() if self.autocast else case.images.contiguous().to(self.dtype), sizes)

        def network() -> Any:
            with torch.autocast(device.type, self.dtype) if self.autocast else nullcontext():
                features = model.backbone(batch.tensors)
                proposals, _ = model.rpn(batch, {"map": features})
                return model.roi_heads.detect(features, proposals, sizes)

        return Prepared(network, people_found=len(network()[0].boxes))


class Rewrites:
    """The exact rewrites as `psarm.export.torch_forms` makes them, run eagerly or as recordings."""

    def __init__(self, subject: Subject, form: Form, recorded: bool) -> None:
        self.forms = build_forms(subject.model(), form, subject.device)
        self.recorded = recorded

    def prepare(self, case: Case) -> Prepared:
        """As `Built`."""
        detect_inputs = (case.images, case.sizes)
        detect = self._function("detect", detect_inputs)
        features = detect()[3]
        rows = (case.boxes, case.numbers)
        if self.recorded:
            rows = (pad_rows(case.boxes), pad_rows(case.numbers))
        reid = self._function("reid", (features.clone(), *rows), lambda: (features, *rows))

        def answer() -> dict[str, Tensor]:
            names = self.forms["detect"].static_outputs if self.recorded else self.forms["detect"].outputs
            found = dict(zip(names, detect(), strict=False))
            wanted = {name: value.clone() for name, value in found.items() if name in ("features", "exact")}
            return {**wanted, "embeddings": reid()[1][: len(case.boxes)].clone()}

        def network() -> None:
            detect()
            reid()

        network()
        return Prepared(network, {"detect": detect, "reid": reid}, answer)

    def _function(
        self, name: str, inputs: Sequence[Tensor], given: Callable[[], Sequence[Tensor]] | None = None
    ) -> Callable[[], Sequence[Tensor]]:
        form = self.forms[name]
        given = given or (lambda: inputs)
        if not self.recorded or form.static is None:
            ordinary: Callable[..., Sequence[Tensor]] = form.ordinary
            return lambda: ordinary(*given())
        recording = record(form.static, inputs)
        return lambda: recording(*given())


def record(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> Recording:
    """A CUDA graph; on a CPU the function itself."""
    if inputs[0].is_cuda:
        return record_cuda(function, inputs)
    own = tuple(inputs)

    def replay() -> None:
        function(*own)

    return Recording(own, tuple(function(*own)), replay)


def literal(precision: str, autocast: bool = True) -> Contender:
    """The yardstick: eager; in 16 bits by autocast, or with all its weights and inputs in them."""
    name = "literal eager" + ("" if precision == "fp32" else ", autocast" if autocast else ", all in 16 bits")
    return Contender(name, precision, lambda subject: Literal(subject, precision, autocast))


def rewrites(name: str, precision: str, recorded: bool = True, seconds: float = 15.0, **changes: Any) -> Contender:
    """The rewrites; `changes` go to their `Form`."""
    dtype = None if precision == "fp32" else DTYPES[precision]
    form = Form(dtype, static=recorded, **changes)
    return Contender(f"rewrites {name}", precision, lambda subject: Rewrites(subject, form, recorded), seconds)
