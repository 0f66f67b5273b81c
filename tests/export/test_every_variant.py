"""Every variant and backbone as a bundle: verified against PyTorch, and run by the one runtime."""

import numpy as np
import onnx
import pytest
import torch
from small_models import EVERY, exported_once

from psarm.export.verify import verify_bundle
from psarm.runtime import Bundle, PersonSearch

# Largest errors in units of the limits that `psarm export` checks: what float32 gives on these small models.
TIGHT = {"boxes": 1e-3, "scores": 1e-5, "embeddings": 1e-5}
ALIKE = ("cascaded_psarm_resnet101", "nae_arm_convnext")
"""A deeper ResNet, and heads and a backbone that others have too: their slow export adds little."""


@pytest.mark.parametrize("name", [name for name in EVERY if name not in ALIKE])
def test_bundle(name, tmp_path_factory):
    model, bundle = exported_once(tmp_path_factory, name)
    comparisons = verify_bundle(model, bundle)
    for kind, limit in TIGHT.items():
        errors = [value for c in comparisons if (value := getattr(c, kind)) is not None]
        assert errors and max(errors) <= limit, kind
    heads = model.config.parts.heads
    manifest = Bundle.open(bundle).manifest
    assert manifest.model.variant == model.config.variant
    assert set(manifest.graphs) == {"detect", "reid"} | ({"refine"} if heads == "cascaded" else set())
    assert ("regions" in manifest.graphs["detect"].outputs) == (heads == "nae")
    assert manifest.schema == (1 if heads == "seqnet" else 2)
    detect = onnx.load(bundle / "detect.onnx")
    assert not any(node.op_type == "BatchNormalization" for node in detect.graph.node)
    assert nobody_found_is_an_answer(bundle, model.config.embedding_dim)


def nobody_found_is_an_answer(bundle, dim):
    frames = [np.zeros((50, 70, 3), np.uint8), np.full((70, 50, 3), 255, np.uint8)]
    with PersonSearch(bundle, "onnxruntime", threads=torch.get_num_threads(), score_thresh=1.0) as engine:
        people = engine.detect(frames)
    return [len(p) for p in people] == [0, 0] and people[0].embeddings.shape == (0, dim)
