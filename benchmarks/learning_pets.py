"""Learning from one short video: PETS2009 S2.L1 by visits, first 60 % of the frames for training, re-entries searched.

The footage is not part of this project; `PetsExperiment.footage` is a folder with it.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing
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
    make_data,
    mean_and_deviation,
    percent,
    require_measured,
    run_psarm,
    run_report,
    train_missing,
)
from psarm.config import load_config
from psarm.console import out
from psarm.data.visits import QUERIES, VisitsRecords, read_records
from psarm.errors import DataError, PsarmError
from psarm.files import sha256
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
CHECKPOINT = "model.safetensors"
"""What `psarm train` leaves without validation."""
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

    def convert_words(self, every: int, target: Path, footage: Path) -> list[str]:
        """The command that makes a data set of the footage, without `psarm`."""
        files = [word for option, name in FILES.items() for word in (option, str(footage / name))]
        return ["data", "convert", str(target), "--from", "mot", *files, "--every", str(every)]

    def convert_command(self, every: int, target: Path) -> str:
        """The same as it is noted, wherever the footage is."""
        return shlex.join(["psarm", *self.convert_words(every, target, Path("FOOTAGE"))])

    def inputs(self, every: int) -> dict[str, Any]:
        """What a data set is made of, wherever it and the footage lie."""
        checksums = {name: sha256(self.footage / name) for name in FILES.values()}
        return {"command": self.convert_command(every, Path("DATA")), "sha256": checksums}

    def trainings(self) -> list[Training]:
        """One a seed."""
        runs = self.runs or self.folder / "runs"
        init, inputs = f"train.init={self.release}", self.inputs(EVERY)
        shown = {init: f"train.init={self.release.relative_to(self.release.parents[1])}"}
        return [
            Training(
                name=TRAINED,
                seed=seed,
                folder=runs / f"pets-{seed}",
                recipe=self.recipe,
                overrides=(init, f"train.seed={seed}"),
                data=self.data,
                inputs=inputs,
                shown=shown,
            )
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
            require_measured(trainings)
        crops = self.folder / "crops"
        for every, target in ((EVERY, self.data), (CROPS_EVERY, crops)):
            make_data(target, QUERIES, self.convert_words(every, target, self.footage), self.inputs(every))
        if self.runs is None:
            train_missing(trainings)
        return self._report(trainings, read_records(crops))

    def _report(self, trainings: Sequence[Training], crops: VisitsRecords) -> dict[str, Any]:
        larger = self.folder / "shipped-at-recipe-size.safetensors"
        resized(self.release, larger, trainings[0].folder / CHECKPOINT)
        checkpoints = {SHIPPED: self.release, SHIPPED_LARGE: larger}
        checkpoints |= {f"{TRAINED}, seed {run.seed}": run.folder / CHECKPOINT for run in trainings}
        searched = {name: self._bench(path) for name, path in checkpoints.items()}
        reports = [run_report(run) for run in trainings]
        trained = [searched[f"{TRAINED}, seed {run.seed}"] for run in trainings]
        known = all(run.recorded for run in trainings)  # and so known to be of this recipe
        return {
            "data": self._data_facts(),
            "budget": budget(load_config(find_config(self.recipe))) if known else None,
            "summary": {TRAINED: _summary([rows[PYTORCH] for rows in trained])}
            | {f"{HISTOGRAM}s of the boxes it found": _summary([rows[HISTOGRAM] for rows in trained])},
            "search": searched,
            "crops": self._crops(crops, {name: path for name, path in checkpoints.items() if name != SHIPPED}),
            "references": REFERENCES,
            "runs": reports,
        }

    def _data_facts(self) -> dict[str, Any]:
        records = read_records(self.data)
        return {
            "command": self.convert_command(EVERY, self.data),
            "train_frames": len(records.split("train")),
            "gallery_frames": len(records.split("gallery")),
            "queries": len(records.queries),
        }

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

        found = {HISTOGRAM: _search_in_both(records, histogram_embeddings)}
        for name, path in checkpoints.items():
            with closing(TorchEngine(load_model(path), threads=1)) as engine:
                found[name] = _search_in_both(records, engine.embed)
        return found


def _search_in_both(records: VisitsRecords, embed: Embed) -> dict[str, Any]:
    crops = embed_crops(records, embed)
    return {"all_frames": search_crops(crops), "later_frames": search_crops(crops, later_only=True)}


def resized(source: Path, target: Path, like: Path) -> None:
    """Write a checkpoint again for images of the size that the checkpoint `like` takes; the weights stay."""
    from psarm.model.builder import build_model
    from psarm.model.checkpoint import load_state, read_checkpoint, save_model

    checkpoint, size = read_checkpoint(source), read_checkpoint(like).config
    model = build_model(dataclasses.replace(checkpoint.config, min_size=size.min_size, max_size=size.max_size))
    load_state(model, checkpoint.state, str(source))
    save_model(model, target, checkpoint.dataset)


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
        crops.add_row(name, *("–" if cell is None else f"{100 * cell:.1f}" for cell in cells))
    out.print(crops)
    out.print("A trained model has seen the earlier frames; later frames are the fair ones for it.", soft_wrap=True)
