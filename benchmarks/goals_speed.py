"""Speed and rounding of one preset: the yardstick and the contenders, interleaved in one run."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from psarm.benchmarks.engines import SearchEngine
from psarm.benchmarks.goals_contenders import PARITY, TIMES_AS_FAST, YARDSTICK, Contender
from psarm.benchmarks.goals_parity import algebra_errors, compare, snr
from psarm.benchmarks.model_cost import model_cost
from psarm.benchmarks.paper.conditions import source_digest
from psarm.benchmarks.timing import Timing, time_engines
from psarm.benchmarks.torch_engine import TorchEngine
from psarm.benchmarks.yardstick import Frame, Reference, draw_yardstick_frame, make_yardstick, scaled_config
from psarm.console import err
from psarm.data.json_file import read_json_object
from psarm.errors import PsarmError
from psarm.evaluation.types import Floating, ImageDetections
from psarm.export import export_bundle
from psarm.export.precision.calibration import MIN_FRAMES
from psarm.export.precision.settings import PrecisionSettings
from psarm.files import atomic_path, write_json
from psarm.machine import package_versions
from psarm.model import PersonSearchModel, load_model, save_model
from psarm.runtime import Bundle, read_image

Row = dict[str, Any]


class SpeedFolder:
    """What a preset's measurement needs, made once and kept in a folder: frame, checkpoint and bundle.

    The folder is another one where psarm's source or a package is another: what those made is not measured again.
    """

    def __init__(self, folder: Path, preset: str, size: tuple[int, int], people: int) -> None:
        """`size`: height and width of the frame."""
        self.preset, self.size, self.people = preset, size, people
        self.folder = folder / f"{preset}_{size[1]}x{size[0]}_{people}_{_makers_digest()[:12]}"
        self.frame_file = self.folder / "frame.png"
        self.checkpoint = self.folder / "yardstick.safetensors"
        self.bundle = self.folder / "yardstick.psarm"
        self.int8_file = self.folder / "int8.json"

    def frame(self) -> Frame:
        """The frame that is timed."""
        if not self.frame_file.exists():
            _write_png(self.frame_file, draw_yardstick_frame(*self.size))
        return read_image(self.frame_file)

    def model(self) -> PersonSearchModel:
        """The yardstick."""
        if not self.checkpoint.exists():
            err.print(f"{self.preset}: conditioning random weights…")
            save_model(
                make_yardstick(scaled_config(self.preset, self.size[1]), self.frame(), self.people), self.checkpoint
            )
        return load_model(self.checkpoint)

    def open_bundle(self, precisions: tuple[str, ...]) -> Bundle:
        """The yardstick exported, with the graphs of at least `precisions`; exported anew where it lacks one."""
        if self.bundle.exists():
            bundle = Bundle.open(self.bundle)
            if set(precisions) <= set(bundle.manifest.precisions) and ("int8" in precisions) <= self.int8_file.exists():
                return bundle
        self.model()
        settings = PrecisionSettings(precisions, calibrate=self._calibration() if "int8" in precisions else None)
        exported = export_bundle(
            *(self.checkpoint, self.bundle),
            verify=False,  # rounding is what is measured here
            overwrite=True,
            say=lambda message: err.print(f"{self.preset}: {message}"),
            settings=settings,
            torch_weights=True,
        )
        if exported.quantised is not None:
            write_json(self.int8_file, exported.quantised.to_dict())
        return Bundle.open(self.bundle)

    def int8(self) -> dict[str, Any]:
        """What was done for int8 when the bundle was made, the blocks left in float among it."""
        return read_json_object(self.int8_file, "what was done for int8")

    def _calibration(self) -> Path:
        """A folder of other frames of the same size."""
        folder = self.folder / "calibration"
        for rank in range(1, MIN_FRAMES + 1):
            if not (file := folder / f"{rank}.png").exists():
                _write_png(file, draw_yardstick_frame(*self.size, rank))
        return folder


def _makers_digest() -> str:
    """SHA-256 of psarm's source and the packages' versions."""
    return hashlib.sha256(repr((source_digest(), package_versions())).encode()).hexdigest()


def measure_preset(files: SpeedFolder, contenders: list[Contender], threads: int, rounds: int) -> dict[str, Any]:
    """Rows of the yardstick and every contender, what the graphs' algebra is off in float64, what int8 left in float.

    Raises `BundleError` where the folder's bundle is of other weights than its checkpoint.

    Everybody's answers are compared with the model's in float64 on the very pixels they saw; `resizing` is what comes
    of the runtime's resizing instead of torch's.
    """
    frame, model = files.frame(), files.model()
    cost = model_cost(model.config)
    precisions = ("fp32", *(p for p in ("fp16", "int8") if any(c.precision == p for c in contenders)))
    bundle = files.open_bundle(precisions)
    with ExitStack() as cleanup:
        yardstick = TorchEngine(model, threads)  # first: it sets torch's threads
        cleanup.callback(yardstick.close)
        yardstick.check_exported_as(bundle)
        err.print(f"{files.preset}: the expected answers, in float64…")
        by_torch = _expect(Reference(model), frame)
        reference = Reference(model, bundle.manifest.preprocessing)
        by_runtime = _expect(reference, frame)
        algebra = algebra_errors(reference, frame)
        del reference
        rows: list[Row] = [{"name": YARDSTICK, "backend": "torch", "precision": "fp32", "device": yardstick.device}]
        engines: list[SearchEngine] = [yardstick]
        failures: list[Row] = []
        for contender in contenders:
            row: Row = {"name": contender.name, "backend": contender.backend, "precision": contender.precision}
            try:
                engine = contender.open(bundle, threads)
            except PsarmError as error:
                failures.append({**row, "failure": str(error)})
                continue
            cleanup.callback(engine.close)
            rows.append({**row, "device": engine.device})
            engines.append(engine)
        err.print(f"{files.preset}: timing {len(engines)} engines…")
        results = time_engines(engines, [files.frame_file] * rounds)
        for row, engine, result in zip(rows, engines, results, strict=True):
            row.update(_measured(engine, result, frame, by_torch if engine is yardstick else by_runtime))
    _add_ratios(rows)
    add_parity(rows)
    return {
        "config": {"gmacs": round(cost.macs.total / 1e9, 1), "parameters": cost.parameters},
        "algebra": algebra,
        "resizing": compare(by_runtime.people, by_torch.people, None).to_dict(),
        **({"int8": files.int8()} if "int8" in precisions else {}),
        "rows": rows + failures,
    }


@dataclass(frozen=True)
class _Expected:
    people: ImageDetections
    embeddings: Floating
    """Unit ones [n,D] of their boxes."""


def _expect(reference: Reference, frame: Frame) -> _Expected:
    people = reference.detect(frame)
    return _Expected(people, reference.embed(frame, people.boxes) if len(people.boxes) else people.embeddings)


def _measured(engine: SearchEngine, result: Timing | PsarmError, frame: Frame, expected: _Expected) -> Row:
    if not isinstance(result, Timing):
        return {"failure": str(result)}
    found = engine.detect(frame)
    people = ImageDetections(found.boxes, found.scores, found.embeddings)
    ratio = None
    if len(expected.people.boxes):
        ratio = snr(engine.embed(frame, expected.people.boxes), expected.embeddings)
    return {"timing": result.to_dict(), "parity": compare(people, expected.people, ratio).to_dict()}


def _add_ratios(rows: list[Row]) -> None:
    """Against the yardstick of the same run."""
    first = rows[0].get("timing")
    for row in rows[1:]:
        if first is None or "timing" not in row:
            continue
        row["yardstick_ms"] = first["total_ms"]
        row["times_as_fast"] = first["total_ms"] / row["timing"]["total_ms"]
        row["goal"] = TIMES_AS_FAST.get(row["precision"])
        if row["goal"] is not None:
            row["reached"] = row["times_as_fast"] >= row["goal"]


def add_parity(rows: list[Row]) -> None:
    """Whether fp32 rows are at parity with the PyTorch model, all people included; beside it the yardstick's own error.

    Both are measured against the model as it is written, in float64, so that the yardstick's is float32's own rounding.
    """
    own = rows[0].get("parity")
    for row in rows[1:]:
        if row["precision"] != "fp32" or "parity" not in row:
            continue
        parity = row["parity"]
        row["parity_goal"] = PARITY
        row["parity_reached"] = parity["match_rate"] == 1 and all(
            parity[key] is not None and parity[key] <= limit for key, limit in PARITY.items()
        )
        row["yardstick_parity"] = own and {key: own[key] for key in ("boxes", "scores", "embeddings", "snr_db")}


def _write_png(file: Path, image: Frame) -> None:
    _, encoded = cv2.imencode(".png", image)
    with atomic_path(file) as temporary:
        temporary.write_bytes(encoded.tobytes())
