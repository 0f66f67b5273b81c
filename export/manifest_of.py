"""What a model's bundle says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from psarm import __version__
from psarm.config import ModelConfig
from psarm.export.bundle_files import BundleFiles
from psarm.export.tracing import OPSET, TracedGraph
from psarm.model.builder import IMAGE_MEAN, IMAGE_STD
from psarm.model.fingerprint import embedding_fingerprint
from psarm.model.person_search import PersonSearchModel
from psarm.model.roi_heads import MIN_BOX_SIDE
from psarm.runtime.manifest import (
    SIZE_DIVISOR,
    DatasetInfo,
    EmbeddingInfo,
    Manifest,
    ModelInfo,
    Preprocessing,
    Thresholds,
    describe_files,
    schema_of,
)

LICENCE = "Code: MIT. Weights: the terms of the data they were trained on (PRW and CUHK-SYSU: research only)."


def preprocessing_of(config: ModelConfig) -> Preprocessing:
    """How frames become what the detect graph takes."""
    sizes = (config.min_size, config.max_size, SIZE_DIVISOR)
    return Preprocessing(*sizes, IMAGE_MEAN, IMAGE_STD, "RGB", (0.0, 1.0), "bilinear")


def thresholds_of(config: ModelConfig) -> Thresholds:
    """What the host keeps of the graphs' answers."""
    return Thresholds(
        config.score_thresh,
        config.detection_nms_thresh,
        config.final_nms_thresh,
        config.detections_per_image,
        MIN_BOX_SIDE,
    )


def manifest_of(
    model: PersonSearchModel,
    dataset: DatasetInfo | None,
    graphs: Sequence[TracedGraph],
    files: BundleFiles,
) -> Manifest:
    """The manifest of a bundle of the traced `graphs` with `files`."""
    config = model.config
    specs = {graph.name: graph.spec for graph in graphs}
    return Manifest(
        schema=schema_of(specs),
        psarm_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=ModelInfo(
            config.variant, config.arm_layout, config.backbone, config.width, sum(p.numel() for p in model.parameters())
        ),
        embedding=EmbeddingInfo(config.embedding_dim, embedding_fingerprint(model)),
        preprocessing=preprocessing_of(config),
        thresholds=thresholds_of(config),
        graphs=specs,
        opset=OPSET,
        precisions=files.precisions,
        files=describe_files(files.directory, files.names),
        dataset=dataset,
        licence=LICENCE,
        tensorrt=files.tensorrt,
        weights=files.weights,
    )
