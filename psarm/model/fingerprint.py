"""A name for an embedding space: embeddings are comparable only where the fingerprints are equal."""

from __future__ import annotations

import hashlib
import json

from psarm.model.builder import IMAGE_MEAN, IMAGE_STD
from psarm.model.person_search import PersonSearchModel

_EMBEDDING_PARTS = ("backbone.", "roi_heads.reid_head.", "roi_heads.embedding_head.res")


def embedding_fingerprint(model: PersonSearchModel) -> str:
    """SHA-256 over all that a given box's embedding depends on: settings, and names and values of weights."""
    config = model.config
    settings = {
        "variant": config.variant,
        "arm_layout": config.arm_layout if config.variant == "psarm" else None,
        "roi_size": config.roi_size,
        "min_size": config.min_size,
        "max_size": config.max_size,
        "mean": IMAGE_MEAN,
        "std": IMAGE_STD,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        if name.startswith(_EMBEDDING_PARTS) and value.is_floating_point():
            digest.update(name.encode())
            digest.update(value.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes())
    return digest.hexdigest()
