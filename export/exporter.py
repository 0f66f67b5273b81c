"""A checkpoint becomes a bundle: trace its graphs, write them in every precision, verify, measure, put it in place."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from psarm.errors import ExportError, UsageError
from psarm.export.bundle_files import BundleFiles
from psarm.export.comparison import LIMITS, Comparison
from psarm.export.graphs import DetectGraph, RefineGraph, ReidGraph
from psarm.export.manifest_of import manifest_of, preprocessing_of, thresholds_of
from psarm.export.precision.calibration import MIN_FRAMES, Calibration, read_calibration
from psarm.export.precision.half import half_graph, rounded_graph
from psarm.export.precision.int8 import Quantised, quantise
from psarm.export.precision.measure import MeasuringData, PrecisionReport, find_loss, measure_precisions
from psarm.export.precision.settings import FP32_ONLY, PrecisionSettings
from psarm.export.tensorrt_form import trace_tensorrt
from psarm.export.tracing import TracedGraph, trace_detect, trace_heads
from psarm.export.verify import verify_bundle
from psarm.export.verify_half import verify_half
from psarm.export.verify_tensorrt import verify_tensorrt
from psarm.files import atomic_directory, is_taken, refuse_unwritable
from psarm.model.builder import build_model
from psarm.model.checkpoint import load_state, read_checkpoint
from psarm.model.person_search import PersonSearchModel
from psarm.runtime.manifest import MANIFEST_NAME, DatasetInfo, Preprocessing, Thresholds, write_manifest


@dataclass(frozen=True)
class ExportReport:
    """What was exported."""

    bundle: Path | None
    """None where it was not kept for what was measured."""
    sizes: dict[str, int]
    """Bytes of each graph's file, by its name without suffix: `detect`, `detect.fp16`, …"""
    nodes: dict[str, int]
    """Nodes of each graph."""
    comparisons: list[Comparison]
    """Errors of the fp32 graphs against the PyTorch model; empty where the export was not verified."""
    precisions: list[PrecisionReport]
    """What every precision costs, fp32 first; empty where there is fp32 only and no data set to measure it on, or the
    export was not verified."""
    quantised: Quantised | None
    """What was done for int8; its graphs are in the bundle."""
    compared_on: str | None
    """Frames of the comparison with fp32, for people: `16 test frames of DIR, none of which int8 was calibrated on`;
    None where there was none."""
    dataset: str | None
    """Name of the data set that the model was trained on, where the checkpoint knows it."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "bundle": None if self.bundle is None else str(self.bundle),
            "bytes": self.sizes,
            "nodes": self.nodes,
            "limits": LIMITS,
            "dataset": self.dataset,
            "verification": [comparison.to_dict() for comparison in self.comparisons],
            "compared_on": self.compared_on,
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
    and `ExportError` where a graph does not compute what it should, or, with a report of what was measured, where a
    precision keeps less of fp32's mAP than `settings` ask for; nothing is left at `out` then.
    """
    out = Path(out)
    _check_target(out, overwrite)
    if not verify:
        settings.refuse_without_verification()
    model, dataset = _load(source)
    rule = preprocessing_of(model.config)
    calibration = _calibration(settings, rule)
    data = MeasuringData.read(settings, calibration)
    graphs = _trace_all(model, say)
    with atomic_directory(out) as directory:
        files = BundleFiles(directory, simplify)
        files.write("fp32", {graph.name: graph.model for graph in graphs})
        if torch_weights:
            say("copying the weights…")
            files.write_weights(model, dataset)
        write_manifest(directory, manifest_of(model, dataset, graphs, files))
        comparisons = verify_bundle(model, directory, say) if verify else []
        quantised = _write_reduced(files, graphs, settings, calibration, thresholds_of(model.config), say)
        if verify and "fp16" in settings.precisions:
            say("running the fp16 graphs…")
            verify_half(files.load("fp32"), files.load("fp16"))
        if settings.tensorrt:
            _write_tensorrt(files, model, settings, verify, say)
            comparisons += verify_tensorrt(directory, [graph.name for graph in graphs], say) if verify else []
        write_manifest(directory, manifest_of(model, dataset, graphs, files))
        measured = verify and (bool(settings.reduced) or settings.data_root is not None)
        precisions = measure_precisions(directory, graphs, settings, data, say) if measured else []
        compared_on = data.source if measured and settings.reduced else None
        name = dataset.name if dataset else None
        report = ExportReport(out, files.sizes, files.nodes, comparisons, precisions, quantised, compared_on, name)
        _require_map(report, settings)
    return report


def _require_map(report: ExportReport, settings: PrecisionSettings) -> None:
    """Raise `ExportError` where a precision keeps less of fp32's mAP than asked for."""
    if settings.min_map_ratio is None or (loss := find_loss(report.precisions, settings.min_map_ratio)) is None:
        return
    raise ExportError(loss, replace(report, bundle=None))


def _write_reduced(
    files: BundleFiles,
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
    files: BundleFiles,
    model: PersonSearchModel,
    settings: PrecisionSettings,
    verify: bool,
    say: Callable[[str], None],
) -> None:
    """The form for TensorRT in fp32 and fp16; features stay in half between the fp16 engines."""
    say("tracing the form for TensorRT…")
    graphs = trace_tensorrt(model)
    files.write_tensorrt("fp32", {graph.name: graph.model for graph in graphs})
    if "fp16" not in settings.precisions:
        return
    files.write_tensorrt("fp16", {graph.name: half_graph(graph, half_features=True) for graph in graphs})
    if verify:
        say("running the fp16 graphs for TensorRT…")
        exact = files.load("fp32", tensorrt=True)
        verify_half(exact, files.load("fp16", tensorrt=True), "tensorrt/")
        # ONNX Runtime's CPU computes those in float32: whether half's range is enough, only these tell
        verify_half(exact, {graph.name: rounded_graph(graph) for graph in graphs}, "tensorrt/")


def _calibration(settings: PrecisionSettings, rule: Preprocessing) -> Calibration | None:
    """Pictures to calibrate int8 on, or, without int8, to compare precisions on."""
    if settings.calibrate is None:
        return None
    least = MIN_FRAMES if "int8" in settings.precisions else 1
    compare = 0 if settings.data_root is not None else settings.frames_to_compare
    return read_calibration(settings.calibrate, rule, least=least, compare=compare)


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


def _check_target(out: Path, overwrite: bool) -> None:
    refuse_unwritable(out)
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
