"""Small models with random weights that behave like trained ones, and their bundles, exported once a test run.

Rounding is not amplified (the last norm of every residual block is scaled down), and no norm is the identity.
"""

import fcntl
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torchvision.models.convnext import CNBlock
from torchvision.models.resnet import BasicBlock, Bottleneck

from psarm.config import VARIANTS as PAPER_VARIANTS
from psarm.config import ModelConfig
from psarm.model import PersonSearchModel, build_model

if TYPE_CHECKING:
    from psarm.export.tracing import TracedGraph

SMALL = {
    "backbone": "resnet18",
    "width": 0.25,
    "min_size": 96,
    "max_size": 160,
    "anchor_sizes": (16, 32, 64),
    "pre_nms_top_n_test": 200,
    "post_nms_top_n_test": 40,
    "embedding_dim": 32,
    "num_identities": 7,
    "queue_size": 5,
}
VARIANTS = {
    "paper": {},
    "released": {"arm_layout": "released", "backbone": "resnet50", "width": 0.125},
    "seqnet": {"variant": "seqnet"},
}
"""Changes to SMALL that between them cover both models, both ARM layouts and both kinds of residual block."""
EVERY = {
    **{name: {"variant": name} for name in PAPER_VARIANTS},
    "psarm_24x8": {"roi_size": (12, 4)},
    "psarm_24x8_released": {"roi_size": (12, 4), "arm_layout": "released"},
    "cascaded_psarm_resnet101": {"variant": "cascaded_psarm", "backbone": "resnet101", "width": 0.125},
    "nae_arm_convnext": {"variant": "nae_arm", "backbone": "convnext_tiny", "width": 0.125},
    "seqnet_convnext": {"variant": "seqnet", "backbone": "convnext_tiny", "width": 0.125},
    "psarm_convnext": {"backbone": "convnext_base", "width": 0.0625, "roi_size": 7},
}
"""Changes to SMALL for every row of the paper, RoIs that are not square, and every kind of backbone."""


def small_model(seed: int = 0, **changes: object) -> PersonSearchModel:
    """A model in eval mode; `changes` go to its ModelConfig."""
    torch.manual_seed(seed)
    model = build_model(ModelConfig(**{**SMALL, **changes})).eval()
    randomise(model)
    return model


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Random norms, biases and RPN outputs in place of freshly initialised ones."""
    for part in model.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.weight.uniform_(0.5, 1.5)
            part.bias.normal_(std=0.1)
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 1.5)
        if isinstance(part, (nn.Linear, nn.Conv2d)) and part.bias is not None:
            part.bias.normal_(std=0.05)
        if isinstance(part, nn.LayerNorm):
            part.weight.uniform_(0.5, 1.5)
            part.bias.normal_(std=0.1)
    for part in model.modules():
        if isinstance(part, BasicBlock):
            part.bn2.weight.mul_(0.2)
        if isinstance(part, Bottleneck):
            part.bn3.weight.mul_(0.2)
        if isinstance(part, CNBlock):
            part.layer_scale.uniform_(0.1, 0.4)
    if isinstance(model, PersonSearchModel):
        model.rpn.head.cls_logits.weight.normal_(std=0.05)
        model.rpn.head.bbox_pred.weight.normal_(std=0.05)


def exported_once(factory, name: str) -> tuple[PersonSearchModel, Path]:
    """A model of VARIANTS or EVERY and its bundle, shared by all pytest-xdist processes of this run."""
    from psarm.export import export_bundle

    changes = VARIANTS.get(name) or EVERY.get(name, {})
    model = small_model(**changes)
    first = next(key for key, value in {**VARIANTS, **EVERY}.items() if ModelConfig(**SMALL | value) == model.config)
    return model, _made_once(factory, f"{first}.psarm", lambda path: export_bundle(model, path, verify=False))


def traced_for_tensorrt_once(factory) -> list["TracedGraph"]:
    """The graphs of the paper's variant in the form for TensorRT, traced once a run."""
    from psarm.export.tensorrt_form import trace_tensorrt

    def trace(path: Path) -> None:
        path.write_bytes(pickle.dumps(trace_tensorrt(small_model(**VARIANTS["paper"]))))

    return pickle.loads(_made_once(factory, "tensorrt.pickle", trace).read_bytes())


def _made_once(factory, name: str, make: Callable[[Path], object]) -> Path:
    """What `make` writes, unless a process of this run has written it already."""
    base = factory.getbasetemp()
    path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            make(path)
    return path


def skip_tracing(bundle: Path, monkeypatch) -> None:
    """Let the exporter have the graphs of `bundle`, exported before, in place of tracing a model of the same kind."""
    import onnx

    from psarm.export import exporter
    from psarm.export.tracing import TracedGraph
    from psarm.runtime.bundle import Bundle

    specs = Bundle.open(bundle).manifest.graphs

    def traced(name: str) -> TracedGraph:
        return TracedGraph(name, onnx.load(bundle / f"{name}.onnx"), specs[name])

    monkeypatch.setattr(exporter, "trace_detect", lambda graph: traced("detect"))
    monkeypatch.setattr(exporter, "trace_heads", lambda name, graph, channels: traced(name))
