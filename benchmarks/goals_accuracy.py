"""What the lower precisions of a trained model's bundle cost in accuracy, on a data set.

CPU runtimes compute fp16 graphs in float32 and so hide what half costs: their rows are judged by no goal, but the
rounded form of the same graphs is (`psarm.export.precision.half`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from psarm.benchmarks.engines import load_frames
from psarm.benchmarks.goals_contenders import POINTS_LOST, ROUNDED, YARDSTICK, Contender
from psarm.benchmarks.torch_engine import load_engine
from psarm.data.readers import read_dataset
from psarm.data.synth import SynthSettings, generate_dataset
from psarm.data.types import PersonSearchDataset
from psarm.errors import DataError, ImageError, PsarmError
from psarm.evaluation import SearchProtocol, score_detections
from psarm.evaluation.collect import collect_detections
from psarm.export import export_bundle
from psarm.export.precision.answers import BACKEND, runnable
from psarm.export.precision.settings import PrecisionSettings
from psarm.export.tracing import TracedGraph
from psarm.files import sha256
from psarm.runtime import Bundle

WAYS = ("search", "search_cbgm")
"""Groups of metrics that are compared: without and with context matching."""
STREET = SynthSettings(440, 110, test_fraction=0.75, width=640, height=360, people_per_frame=5.0, seed=3)
"""Drawn where no data set is given: 330 test frames with 421 queries, so that one is 0.24 points of top-1."""
Row = dict[str, Any]


def draw_street(work: Path, workers: int) -> Path:
    """Draw `STREET` into the folder `work`, anew where it is there; returns the data set's folder."""
    return generate_dataset(work / "street", STREET, workers=workers, overwrite=True).root


@dataclass(frozen=True)
class AccuracySubject:
    """What accuracy is measured of, and on what."""

    checkpoint: Path
    data_root: Path
    dataset: PersonSearchDataset

    @classmethod
    def read(cls, checkpoint: Path, data_root: Path) -> AccuracySubject:
        """Raises `DataError` for data that cannot be read."""
        return cls(checkpoint, data_root, read_dataset("prw", data_root))

    def to_dict(self) -> dict[str, Any]:
        """What figures of one report have in common, plain values for JSON."""
        return {
            "checkpoint": self.checkpoint.name,
            "sha256": sha256(self.checkpoint),
            "frames": len(self.dataset.gallery),
            "queries": len(self.dataset.queries),
        }


def measure_accuracy(
    subject: AccuracySubject, bundle: Path, contenders: list[Contender], threads: int, say: Any
) -> dict[str, Any]:
    """Metrics of the PyTorch model and of every contender, what each loses to PyTorch, and what was done for int8.

    The bundle is exported to `bundle`, its int8 graphs calibrated on the data set's training frames. Raises `DataError`
    or `ImageError` for data that cannot be read and `CheckpointError` for a checkpoint that cannot.
    """
    dataset, data_root = subject.dataset, subject.data_root
    precisions = ("fp32", *(p for p in ("fp16", "int8") if any(c.precision == p for c in contenders)))
    settings = PrecisionSettings(precisions, calibrate=data_root if "int8" in precisions else None)
    exported = export_bundle(
        subject.checkpoint, bundle, verify=False, overwrite=True, say=say, settings=settings, torch_weights=True
    )
    opened = Bundle.open(bundle)
    yardstick = load_engine(subject.checkpoint, threads)
    try:
        rows = [{"name": YARDSTICK, "precision": "fp32", "metrics": _metrics(yardstick, dataset, YARDSTICK)}]
    finally:
        yardstick.close()
    for contender in contenders:
        rows.append(_row(contender, opened, dataset, threads))
    if "fp16" in precisions:
        rows.append(_rounded_row(opened, dataset, threads))
    add_losses(rows)
    int8 = {} if exported.quantised is None else {"int8": exported.quantised.to_dict()}
    return {**subject.to_dict(), **int8, "rows": rows}


def add_losses(rows: list[Row]) -> None:
    """Points of mAP and top-1 that each row lost to the first, without and with CBGM, and whether the goal holds.

    An fp16 row has a goal only where it was computed `in_half`.
    """
    first = rows[0]["metrics"]
    for row in rows[1:]:
        if "metrics" not in row:
            continue
        row["points_lost"] = {
            way: {key: 100 * (first[way][key] - row["metrics"][way][key]) for key in ("mAP", "top1")} for way in WAYS
        }
        if row["precision"] == "fp16" and not row["in_half"]:
            continue
        if (goal := POINTS_LOST.get(row["precision"])) is not None:
            row["goal"] = dict(zip(("mAP", "top1"), goal, strict=True))
            row["reached"] = all(
                limit is None or lost[key] <= limit
                for lost in row["points_lost"].values()
                for key, limit in row["goal"].items()
            )


def _row(contender: Contender, bundle: Bundle, dataset: PersonSearchDataset, threads: int) -> Row:
    row: Row = {"name": contender.name, "precision": contender.precision}
    try:
        engine = contender.open(bundle, threads)
        row["device"] = engine.device
        if contender.precision == "fp16":
            # Of the CPU's runtimes only OpenVINO computes in half where the CPU can, and says so where it cannot.
            row["in_half"] = contender.backend == "openvino" and "computed in" not in engine.device
        try:
            return {**row, "metrics": _metrics(engine, dataset, contender.name)}
        finally:
            engine.close()
    except (DataError, ImageError):  # the data's fault, not the engine's
        raise
    except PsarmError as error:
        return {**row, "failure": str(error)}


def _rounded_row(bundle: Bundle, dataset: PersonSearchDataset, threads: int) -> Row:
    """fp16 as a device with half arithmetic computes it."""
    graphs = [
        TracedGraph(name, onnx.load(bundle.graph_path("fp32", name)), spec)
        for name, spec in bundle.manifest.graphs.items()
    ]
    with runnable(bundle, "fp16", graphs) as form:
        row = _row(Contender(BACKEND, "fp16"), form, dataset, threads)
    return {**row, "name": ROUNDED, "in_half": True}


def _metrics(engine: Any, dataset: PersonSearchDataset, title: str) -> dict[str, dict[str, float]]:
    found = collect_detections(engine, dataset, load_frames, True, title)
    return score_detections(SearchProtocol.from_dataset(dataset), found)
