"""A name for an embedding space: embeddings are comparable only where the fingerprints are equal."""

from __future__ import annotations

import hashlib
import json

from psarm.config import GATED
from psarm.model.builder import IMAGE_MEAN, IMAGE_STD
from psarm.model.person_search import PersonSearchModel


def embedding_fingerprint(model: PersonSearchModel) -> str:
    """SHA-256 over all that a given box's embedding depends on: settings, and names and values of weights."""
    config = model.config
    height, width = config.roi_shape
    settings = {
        "variant": config.variant,
        "arm_layout": config.arm_layout if config.parts.mixing in GATED else None,
        "roi_size": height if height == width else [height, width],
        "min_size": config.min_size,
        "max_size": config.max_size,
        "mean": IMAGE_MEAN,
        "std": IMAGE_STD,
    }
    head = (
        "roi_heads."
        if len(model.roi_heads.reid_heads) == 1
        else f"roi_heads.further.{len(model.roi_heads.further) - 1}."
    )
    parts = ("backbone.", f"{head}reid_head.", f"{head}embedding_head.res")
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        if name.startswith(parts) and value.is_floating_point():
            digest.update(name.encode())
            digest.update(value.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes())
    return digest.hexdigest()
