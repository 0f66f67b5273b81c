"""A checkpoint becomes a bundle: trace its graphs, write them in every precision, verify, measure, put it in place."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx

from psarm import __version__
from psarm.config import ModelConfig
from psarm.errors import ExportError, UsageError
from psarm.export.comparison import LIMITS, Comparison
from psarm.export.graphs import DetectGraph, RefineGraph, ReidGraph
from psarm.export.precision.calibration import Calibration, read_calibration
from psarm.export.precision.half import half_graph
from psarm.export.precision.int8 import Quantised, quantise
from psarm.export.precision.measure import MeasuringData, PrecisionReport, measure_precisions
from psarm.export.precision.settings import FP32_ONLY, PrecisionSettings
from psarm.export.tensorrt_form import trace_tensorrt
from psarm.export.tracing import OPSET, SIZE_DIVISOR, TracedGraph, first_line, simplified, trace_detect, trace_heads
from psarm.export.verify import verify_bundle
from psarm.export.verify_tensorrt import verify_tensorrt
from psarm.files import atomic_directory, is_taken
from psarm.model.builder import IMAGE_MEAN, IMAGE_STD, build_model
from psarm.model.checkpoint import load_state, read_checkpoint, save_model
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


WEIGHTS_NAME = "model.safetensors"
"""The checkpoint in a bundle, for the torch backend."""


@dataclass(frozen=True)
class ExportReport:
    """What was exported."""

    bundle: Path
    sizes: dict[str, int]
    """Bytes of each graph's file, by its name without suffix: `detect`, `detect.fp16`, …"""
    nodes: dict[str, int]
    """Nodes of each graph."""
    comparisons: list[Comparison]
    """Errors of the fp32 graphs against the PyTorch model; empty where the export was not verified."""
    precisions: list[PrecisionReport]
    """What every precision costs, fp32 first; empty where there is fp32 only, or the export was not verified."""
    quantised: Quantised | None
    """What was done for int8; its graphs are in the bundle."""
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
            "precisions": [report.to_dict() for report in self.precisions],
            "int8": None if self.quantised is None else self.quantised.to_dict(),
        }


def export_bundle(
    source: str | Path | PersonSearchModel,
    out: str | Path,
    verify: bool = True,
    simplify: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda message: None,
    settings: PrecisionSettings = FP32_ONLY,
    torch_weights: bool = False,
) -> ExportReport:
    """Export a checkpoint file (or a model in eval mode) to the bundle directory `out`.

    `verify` compares the fp32 graphs with the PyTorch model and the other precisions with fp32; `simplify` runs
    onnxslim; `overwrite` replaces a bundle that is there already; `say` gets a line before each step; `settings` says
    which precisions; `torch_weights` puts the checkpoint in too. Raises `UsageError` where `out` is taken,
    `CheckpointError` for a checkpoint that cannot be loaded, `DataError` or `ImageError` for data that cannot be read
    and `ExportError` where a graph does not compute what it should; nothing is left at `out` then.
    """
    out = Path(out)
    _check_target(out, overwrite)
    if settings.min_map_ratio is not None and not verify:
        raise UsageError(
            "--min-map-ratio measures the precisions, which --no-verify leaves out; leave out one of them."
        )
    model, dataset = _load(source)
    rule = _preprocessing(model.config)
    calibration = None if settings.calibrate is None else read_calibration(settings.calibrate, rule)
    data = MeasuringData.read(settings, calibration)
    graphs = _trace_all(model, say)
    with atomic_directory(out) as directory:
        files = _BundleFiles(directory, simplify)
        files.write("fp32", {graph.name: graph.model for graph in graphs})
        if torch_weights:
            say("copying the weights…")
            files.write_weights(model, dataset)
        write_manifest(directory, _manifest(model, dataset, graphs, files))
        comparisons = verify_bundle(model, directory, say) if verify else []
        quantised = _write_reduced(files, graphs, settings, calibration, _thresholds(model.config), say)
        if settings.tensorrt:
            _write_tensorrt(files, model, settings, say)
            comparisons += verify_tensorrt(directory, [graph.name for graph in graphs], say) if verify else []
        write_manifest(directory, _manifest(model, dataset, graphs, files))
        measured = verify and bool(settings.reduced)
        precisions = measure_precisions(directory, graphs, settings, data, say) if measured else []
    name = dataset.name if dataset else None
    return ExportReport(out, files.sizes, files.nodes, comparisons, precisions, quantised, name)


class _BundleFiles:
    """The files of the bundle in the making."""

    def __init__(self, directory: Path, simplify: bool) -> None:
        self.directory = directory
        self.simplify = simplify
        self.precisions: dict[str, dict[str, str]] = {}
        self.tensorrt: dict[str, dict[str, str]] = {}
        self.weights: str | None = None
        """As in the manifest, these three."""
        self.sizes: dict[str, int] = {}
        self.nodes: dict[str, int] = {}

    def write(self, precision: str, models: dict[str, onnx.ModelProto]) -> None:
        """The graphs in one precision; raises `ExportError` for one that is no valid ONNX."""
        suffix = "" if precision == "fp32" else f".{precision}"
        # onnxslim folds the pairs that int8 consists of
        slim = self.simplify and precision != "int8"
        self.precisions[precision] = {
            name: self._save(f"{name}{suffix}", simplified(model) if slim else model) for name, model in models.items()
        }

    def write_tensorrt(self, precision: str, models: dict[str, onnx.ModelProto]) -> None:
        """The same in the form for TensorRT."""
        (self.directory / "tensorrt").mkdir(exist_ok=True)
        self.tensorrt[precision] = {
            name: self._save(f"tensorrt/{name}.{precision}", model) for name, model in models.items()
        }

    def write_weights(self, model: PersonSearchModel, dataset: DatasetInfo | None) -> None:
        """The checkpoint."""
        self.weights = WEIGHTS_NAME
        save_model(model, self.directory / WEIGHTS_NAME, None if dataset is None else asdict(dataset))

    @property
    def names(self) -> list[str]:
        """All files, as the manifest lists them."""
        graphs = [
            file for form in (self.precisions, self.tensorrt) for files in form.values() for file in files.values()
        ]
        return graphs if self.weights is None else [*graphs, self.weights]

    def _save(self, name: str, model: onnx.ModelProto) -> str:
        _check_graph(name, model)
        file = f"{name}.onnx"
        onnx.save(model, self.directory / file)
        self.sizes[name] = (self.directory / file).stat().st_size
        self.nodes[name] = len(model.graph.node)
        return file


def _write_reduced(
    files: _BundleFiles,
    graphs: list[TracedGraph],
    settings: PrecisionSettings,
    calibration: Calibration | None,
    thresholds: Thresholds,
    say: Callable[[str], None],
) -> Quantised | None:
    """All precisions but fp32; what was done for int8."""
    if "fp16" in settings.precisions:
        say("converting to fp16…")
        files.write("fp16", {graph.name: half_graph(graph) for graph in graphs})
    if "int8" not in settings.precisions or calibration is None:
        return None
    quantised = quantise({graph.name: graph.model for graph in graphs}, calibration, thresholds, say)
    files.write("int8", quantised.models)
    return quantised


def _write_tensorrt(
    files: _BundleFiles, model: PersonSearchModel, settings: PrecisionSettings, say: Callable[[str], None]
) -> None:
    """The form for TensorRT in fp32 and fp16; features stay in half between the fp16 engines."""
    say("tracing the form for TensorRT…")
    graphs = trace_tensorrt(model)
    files.write_tensorrt("fp32", {graph.name: graph.model for graph in graphs})
    if "fp16" in settings.precisions:
        files.write_tensorrt("fp16", {graph.name: half_graph(graph, half_features=True) for graph in graphs})


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


def _preprocessing(config: ModelConfig) -> Preprocessing:
    sizes = (config.min_size, config.max_size, SIZE_DIVISOR)
    return Preprocessing(*sizes, IMAGE_MEAN, IMAGE_STD, "RGB", (0.0, 1.0), "bilinear")


def _thresholds(config: ModelConfig) -> Thresholds:
    return Thresholds(
        config.score_thresh,
        config.detection_nms_thresh,
        config.final_nms_thresh,
        config.detections_per_image,
        MIN_BOX_SIDE,
    )


def _manifest(
    model: PersonSearchModel,
    dataset: DatasetInfo | None,
    graphs: list[TracedGraph],
    files: _BundleFiles,
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
        preprocessing=_preprocessing(config),
        thresholds=_thresholds(config),
        graphs=specs,
        opset=OPSET,
        precisions=files.precisions,
        files=describe_files(files.directory, files.names),
        dataset=dataset,
        licence=LICENCE,
        tensorrt=files.tensorrt,
        weights=files.weights,
    )
