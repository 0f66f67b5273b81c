"""Learning from one short video: PETS2009 S2.L1 by visits, first 60 % of the frames for training, re-entries searched.

The footage is not part of this project; `PetsExperiment.footage` is a folder with it.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from psarm.benchmarks.baselines import HISTOGRAM
from psarm.benchmarks.crop_search import Embed, embed_crops, search_crops
from psarm.benchmarks.histogram import histogram_embeddings
from psarm.benchmarks.learning_mixers import budget
from psarm.benchmarks.report import PYTORCH
from psarm.benchmarks.runs import (
    FIGURES,
    Training,
    figures,
    mean_and_deviation,
    percent,
    require_finished,
    run_psarm,
    run_report,
    train_missing,
)
from psarm.config import load_config
from psarm.console import err, out
from psarm.data.visits import QUERIES, VisitsRecords, read_records
from psarm.errors import DataError, PsarmError
from psarm.presets import find_config

FILES = {"--video": "vtest.avi", "--labels": "gt.txt", "--people": "person_ids.json"}
"""What the footage folder holds, by the option of `psarm data convert`."""
EVERY = 5
CROPS_EVERY = 20
REFERENCES = {
    "protocol": "crops of every 20th frame, matches of the same track left out",
    "measured_by": "quoted from the notes that come with the footage, not measured here",
    "random ResNet-50": {"top1": 0.19, "mAP": 0.14},
    "HSV histogram": {"top1": 0.63, "mAP": 0.45},
    "OSNet x0.25 (MSMT17)": {"top1": 0.84, "mAP": 0.68},
}
SHIPPED = "shipped checkpoint"
SHIPPED_LARGE = "shipped checkpoint at the recipe's image size"
TRAINED = "trained"


@dataclass(frozen=True)
class PetsExperiment:
    """Where the footage is and where the rest goes; with `runs`, the finished runs of that folder are taken instead."""

    footage: Path
    folder: Path
    release: Path
    runs: Path | None = None
    recipe: str = "learning_pets"
    seeds: int = 3

    def check(self) -> None:
        """Raise `DataError` unless the footage folder holds what is needed."""
        missing = [name for name in FILES.values() if not (self.footage / name).is_file()]
        if missing:
            raise DataError(f"{self.footage} has no {', '.join(missing)}; give the folder of PETS2009 S2.L1's footage.")

    def convert_words(self, every: int, target: Path) -> list[str]:
        """The command that makes a data set of the footage, without `psarm`."""
        files = [word for option, name in FILES.items() for word in (option, str(self.footage / name))]
        return ["data", "convert", str(target), "--from", "mot", *files, "--every", str(every)]

    def trainings(self) -> list[Training]:
        """One a seed."""
        runs = self.runs or self.folder / "runs"
        words = ("--config", self.recipe, "-o", f"train.init={self.release}", "--data-root", str(self.data))
        return [
            Training(TRAINED, seed, runs / f"pets-{seed}", (*words, "-o", f"train.seed={seed}"))
            for seed in range(self.seeds)
        ]

    @property
    def data(self) -> Path:
        """The data set that is trained on and searched in."""
        return self.folder / "data"

    def run(self) -> dict[str, Any]:
        """Convert, train, measure and report; raises `PsarmError` where a step fails."""
        self.check()
        trainings = self.trainings()
        if self.runs is not None:
            require_finished(trainings)
        crops = self.folder / "crops"
        for every, target in ((EVERY, self.data), (CROPS_EVERY, crops)):
            if not (target / QUERIES).exists():
                err.print(run_psarm([*self.convert_words(every, target), "--overwrite"]), end="")
        if self.runs is None:
            train_missing(trainings)
        return self._report(trainings, read_records(crops))

    def _report(self, trainings: Sequence[Training], crops: VisitsRecords) -> dict[str, Any]:
        config = load_config(find_config(self.recipe))
        larger = self.folder / "shipped-at-recipe-size.safetensors"
        resized(self.release, larger, config.model.min_size, config.model.max_size)
        checkpoints = {SHIPPED: self.release, SHIPPED_LARGE: larger}
        checkpoints |= {f"{TRAINED}, seed {run.seed}": run.folder / "model.safetensors" for run in trainings}
        searched = {name: self._bench(path) for name, path in checkpoints.items()}
        reports = [run_report(run) for run in trainings]
        trained = [searched[f"{TRAINED}, seed {run.seed}"] for run in trainings]
        report = {
            "data": {
                "command": shlex.join(["psarm", *self.convert_words(EVERY, self.data)]),
                "train_frames": len(read_records(self.data).split("train")),
                "gallery_frames": len(read_records(self.data).split("gallery")),
                "queries": len(read_records(self.data).queries),
            },
            "budget": budget(config),
            "summary": {TRAINED: _summary([rows[PYTORCH] for rows in trained])}
            | {f"{HISTOGRAM}s of the boxes it found": _summary([rows[HISTOGRAM] for rows in trained])},
            "search": searched,
            "crops": self._crops(crops, {name: path for name, path in checkpoints.items() if name != SHIPPED}),
            "references": REFERENCES,
            "runs": reports,
        }
        return without_paths(report, {str(self.footage): "FOOTAGE", f"{self.release.parents[1]}/": ""})

    def _bench(self, checkpoint: Path) -> dict[str, Any]:
        """Metrics of a checkpoint and of histograms of the boxes it finds."""
        path = self.folder / "bench.json"
        words = ["bench", "--checkpoint", str(checkpoint), "--dataset", "visits", "--data-root", str(self.data)]
        run_psarm([*words, "--baselines", "--gt-boxes", "--threads", "1", "--frames", "1", "--json", str(path)])
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        failed = [row for row in rows if row["failure"]]
        if failed:
            raise PsarmError(f"{failed[0]['name']} was not measured: {failed[0]['failure']}")
        return {row["name"]: row["metrics"] for row in rows if row["name"] in (PYTORCH, HISTOGRAM)}

    def _crops(self, records: VisitsRecords, checkpoints: Mapping[str, Path]) -> dict[str, Any]:
        """Re-identification of given boxes, by the protocol of `REFERENCES` and with the later frames as the gallery.

        Only the latter means something for a trained model: it has seen the earlier frames.
        """
        from psarm.benchmarks.torch_engine import TorchEngine
        from psarm.model import load_model

        embedders: dict[str, Embed] = {HISTOGRAM: histogram_embeddings}
        embedders |= {name: TorchEngine(load_model(path), threads=1).embed for name, path in checkpoints.items()}
        found = {}
        for name, embed in embedders.items():
            crops = embed_crops(records, embed)
            found[name] = {"all_frames": search_crops(crops), "later_frames": search_crops(crops, later_only=True)}
        return found


def resized(source: Path, target: Path, min_size: int, max_size: int) -> None:
    """Write a checkpoint again for images of another size; the weights stay."""
    from psarm.model.builder import build_model
    from psarm.model.checkpoint import load_state, read_checkpoint, save_model

    checkpoint = read_checkpoint(source)
    model = build_model(dataclasses.replace(checkpoint.config, min_size=min_size, max_size=max_size))
    load_state(model, checkpoint.state, str(source))
    save_model(model, target, checkpoint.dataset)


def without_paths(value: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """`value` with places of this machine replaced in every text, so that the commands mean something elsewhere."""
    text = json.dumps(value)
    for path, name in names.items():
        text = text.replace(json.dumps(path)[1:-1], name)
    replaced: dict[str, Any] = json.loads(text)
    return replaced


def _summary(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {figure: mean_and_deviation([figures(each)[figure] for each in metrics]) for figure in FIGURES}


def print_pets(report: Mapping[str, Any]) -> None:
    """Search in whole frames, then crops."""
    table = Table("search in whole frames, percent", *FIGURES)
    for name in (SHIPPED, SHIPPED_LARGE):
        row = figures(report["search"][name][PYTORCH])
        table.add_row(name, *(f"{100 * row[figure]:.1f}" for figure in FIGURES))
    for name, spreads in report["summary"].items():
        table.add_row(name, *(percent(spreads[figure]) for figure in FIGURES))
    out.print(table)
    crops = Table("given boxes, percent", "top-1, all frames", "mAP", "top-1, later frames", "mAP")
    for name, row in report["crops"].items():
        cells = [row[part][figure] for part in ("all_frames", "later_frames") for figure in ("top1", "mAP")]
        crops.add_row(name, *(f"{100 * cell:.1f}" for cell in cells))
    out.print(crops)
    out.print("A trained model has seen the earlier frames; later frames are the fair ones for it.", soft_wrap=True)
