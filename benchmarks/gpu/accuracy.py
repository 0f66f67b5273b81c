"""What 16 bits cost: the shipped checkpoint in float32 and in 16 bits on a drawn data set, in the same form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from psarm.benchmarks.engines import load_frames
from psarm.benchmarks.goals_parity import match
from psarm.benchmarks.gpu.engines import open_engine, torch_bundle
from psarm.benchmarks.gpu.journal import Row
from psarm.data.prw import read_prw
from psarm.data.synth import SynthSettings, generate_dataset
from psarm.data.types import PersonSearchDataset
from psarm.evaluation import SearchProtocol, score_detections
from psarm.evaluation.collect import collect_detections
from psarm.model import load_model
from psarm.runtime import PersonSearch

SETTINGS = SynthSettings(frames=240, identities=60, width=640, height=360, seed=3)
TINY_SETTINGS = SynthSettings(frames=12, identities=6, width=128, height=72, seed=3)


class AccuracySet:
    """The drawn data set and the trained model's bundle."""

    def __init__(self, folder: Path, checkpoint: Path, tiny: bool, workers: int) -> None:
        """Draw the data set; `workers`: processes that do."""
        settings = TINY_SETTINGS if tiny else SETTINGS
        generate_dataset(folder / "street", settings, workers=workers)
        self.dataset: PersonSearchDataset = read_prw(folder / "street")
        (folder / "trained").mkdir()
        self.bundle = torch_bundle(load_model(checkpoint), folder / "trained")
        self._people: dict[str, list[Any]] = {}

    def row(self, precision: str, mode: str) -> Row:
        """Metrics, and how many of float32's people this one finds too; float32 comes first."""
        with open_engine(self.bundle, precision, mode) as engine:
            found = collect_detections(engine, self.dataset, load_frames, False, f"accuracy, {precision}")
            people = self._detect(engine)
        metrics = score_detections(SearchProtocol.from_dataset(self.dataset), found)
        row: Row = {"precision": precision, "mode": mode, "frames": len(people), "metrics": metrics}
        self._people[precision] = people
        if precision != "fp32":
            row["matched"] = self._matched(people)
        return row

    def _detect(self, engine: PersonSearch) -> list[Any]:
        return [engine.detect(frame) for frame in load_frames([frame.path for frame in self.dataset.gallery])]

    def _matched(self, people: list[Any]) -> dict[str, float]:
        """Share of all people of both runs who are in both, and how the matched ones differ at most."""
        both = everybody = 0
        boxes, cosines = [0.0], [1.0]
        for found, expected in zip(people, self._people["fp32"], strict=True):
            ours, theirs = match(found.boxes, expected.boxes)
            both += len(ours)
            everybody += len(found) + len(expected) - len(ours)
            boxes.extend(np.abs(found.boxes[ours] - expected.boxes[theirs]).max(axis=1).tolist())
            unit = [_unit(one.embeddings[rows]) for one, rows in ((found, ours), (expected, theirs))]
            cosines.extend((unit[0] * unit[1]).sum(axis=1).tolist())
        return {"share": both / max(1, everybody), "largest_box_error": max(boxes), "least_cosine": min(cosines)}


def _unit(vectors: Any) -> Any:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
