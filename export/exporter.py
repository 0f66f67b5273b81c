"""A checkpoint becomes a bundle: trace its graphs, write them with their manifest, verify, put it in place."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx

from psarm import __version__
from psarm.errors import ExportError, UsageError
from psarm.export.comparison import LIMITS, Comparison
from psarm.export.graphs import DetectGraph, RefineGraph, ReidGraph
from psarm.export.tracing import OPSET, SIZE_DIVISOR, TracedGraph, first_line, simplified, trace_detect, trace_heads
from psarm.export.verify import verify_bundle
from psarm.files import atomic_directory, is_taken
from psarm.model.builder import IMAGE_MEAN, IMAGE_STD, build_model
from psarm.model.checkpoint import load_state, read_checkpoint
from psarm.model.fingerprint import embedding_fingerprint
from psarm.model.person_search import PersonSearchModel
from psarm.model.roi_heads import MIN_BOX_SIDE
from psarm.runtime.manifest import (
    MANIFEST_NAME,
    DatasetInfo,
    EmbeddingInfo,
    Manifest,
    ModelInfo,
    Preprocessing,
    Thresholds,
    describe_files,
    schema_of,
    write_manifest,
)

LICENCE = "Code: MIT. Weights: the terms of the data they were trained on (PRW and CUHK-SYSU: research only)."


@dataclass(frozen=True)
class ExportReport:
    """What was exported."""

    bundle: Path
    sizes: dict[str, int]
    """Bytes of each graph's file."""
    nodes: dict[str, int]
    """Nodes of each graph."""
    comparisons: list[Comparison]
    """Errors against the PyTorch model; empty where the export was not verified."""
    dataset: str | None
    """Name of the data set that the model was trained on, where the checkpoint knows it."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "bundle": str(self.bundle),
            "bytes": self.sizes,
            "nodes": self.nodes,
            "limits": LIMITS,
            "dataset": self.dataset,
            "verification": [comparison.to_dict() for comparison in self.comparisons],
        }


def export_bundle(
    source: str | Path | PersonSearchModel,
    out: str | Path,
    verify: bool = True,
    simplify: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda message: None,
) -> ExportReport:
    """Export a checkpoint file (or a model in eval mode) to the bundle directory `out`.

    `verify` compares the graphs with the PyTorch model; `simplify` runs onnxslim; `overwrite` replaces a bundle that is
    there already; `say` gets a line before each step. Raises `UsageError` where `out` is taken, `CheckpointError` for a
    checkpoint that cannot be loaded and `ExportError` where a graph does not compute what the model does; nothing is
    left at `out` then.
    """
    out = Path(out)
    _check_target(out, overwrite)
    model, dataset = _load(source)
    graphs = _trace_all(model, say)
    with atomic_directory(out) as directory:
        files = {graph.name: f"{graph.name}.onnx" for graph in graphs}
        models = {graph.name: simplified(graph.model) if simplify else graph.model for graph in graphs}
        for name, graph_model in models.items():
            _check_graph(name, graph_model)
            onnx.save(graph_model, directory / files[name])
        write_manifest(directory, _manifest(model, dataset, graphs, files, directory))
        comparisons = verify_bundle(model, directory, say) if verify else []
    nodes = {name: len(graph_model.graph.node) for name, graph_model in models.items()}
    sizes = {name: (out / file).stat().st_size for name, file in files.items()}
    return ExportReport(out, sizes, nodes, comparisons, dataset.name if dataset else None)


def _trace_all(model: PersonSearchModel, say: Callable[[str], None]) -> list[TracedGraph]:
    """All graphs of the model's bundle, in the order they run."""
    say("tracing detect…")
    graphs = [trace_detect(DetectGraph(model))]
    channels = int(graphs[0].spec.outputs["features"].shape[1])
    if len(model.roi_heads.reid_heads) > 1:
        say("tracing refine…")
        graphs.append(trace_heads("refine", RefineGraph(model, 0), channels))
    say("tracing reid…")
    return [*graphs, trace_heads("reid", ReidGraph(model), channels)]


def _check_graph(name: str, graph: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise ExportError(
            f"The {name} graph is no valid ONNX ({first_line(error)}); this is a fault of psarm or, with --simplify, "
            "of onnxslim."
        ) from error


def _check_target(out: Path, overwrite: bool) -> None:
    if not is_taken(out):
        return
    if not (out / MANIFEST_NAME).is_file():
        raise UsageError(f"{out} exists and is not a psarm bundle; give a directory that does not exist yet.")
    if not overwrite:
        raise UsageError(f"There is a bundle at {out} already; replace it with --overwrite or give another directory.")


def _load(source: str | Path | PersonSearchModel) -> tuple[PersonSearchModel, DatasetInfo | None]:
    if isinstance(source, PersonSearchModel):
        if source.training:
            raise ExportError("The model is in train mode; call model.eval() before exporting it.")
        return copy.deepcopy(source).float().cpu(), None
    checkpoint = read_checkpoint(source)
    model = build_model(checkpoint.config)
    load_state(model, checkpoint.state, str(source))
    return model.eval(), _dataset(checkpoint.dataset)


def _dataset(about: dict[str, Any] | None) -> DatasetInfo | None:
    """What a checkpoint tells of its training data; checkpoints of unknown origin tell nothing."""
    if about is None:
        return None
    frames, identities = (
        value if isinstance(value, int) else len(value) for value in (about["train_frames"], about["identities"])
    )  # a training state holds the lists themselves
    return DatasetInfo(str(about["name"]), frames, identities)


def _manifest(
    model: PersonSearchModel,
    dataset: DatasetInfo | None,
    graphs: list[TracedGraph],
    files: dict[str, str],
    directory: Path,
) -> Manifest:
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
        preprocessing=Preprocessing(
            config.min_size, config.max_size, SIZE_DIVISOR, IMAGE_MEAN, IMAGE_STD, "RGB", (0.0, 1.0), "bilinear"
        ),
        thresholds=Thresholds(
            config.score_thresh,
            config.detection_nms_thresh,
            config.final_nms_thresh,
            config.detections_per_image,
            MIN_BOX_SIDE,
        ),
        graphs=specs,
        opset=OPSET,
        precisions={"fp32": files},
        files=describe_files(directory, files.values()),
        dataset=dataset,
        licence=LICENCE,
    )
