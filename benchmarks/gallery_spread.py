"""How embeddings of people spread: between people, between visits of a person, within a visit.

    python -m psarm.benchmarks.gallery_spread BUNDLE --json benchmarks/results/gallery_spread.json

Measured on drawn people, or with `--data` on a data set of `psarm data convert`; boxes are given, not detected.
`psarm.benchmarks.gallery_rows` makes galleries of any size that spread like this.

n boxes, D embedding dimensions, K principal axes.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

import psarm
from psarm.benchmarks.crop_search import Crops, embed_crops
from psarm.benchmarks.facts import git_commit
from psarm.benchmarks.script import run
from psarm.console import out, track
from psarm.data.visits import read_records
from psarm.errors import DataError
from psarm.files import write_json
from psarm.machine import describe_machine, package_versions
from psarm.runtime import PersonSearch

Floats = NDArray[np.float64]
AXES = 24
"""K; on drawn people they hold 99.9 % of the variance."""


@dataclass(frozen=True)
class Spread:
    """Of unit embeddings: length of their mean, and variances along the K principal axes around it."""

    mean: float
    people: tuple[float, ...]  # [K], of a person around the mean of all
    visits: tuple[float, ...]  # [K], of a visit around its person
    rows: tuple[float, ...]  # [K], of a row around its visit

    def similarities(self) -> dict[str, float]:
        """Expected dot product of two rows, by what they have in common."""
        others = self.mean**2
        person = others + sum(self.people)
        return {"visit": person + sum(self.visits), "person": person, "nothing": others}


def spread_of(crops: Crops, axes: int = AXES) -> Spread:
    """Variances of people, of visits in people and of rows in visits; raises `DataError` where one has no example."""
    means, people, counts = _grouped(crops.embeddings, crops.visits, crops.people)
    centres, _, visits = _grouped(means, people, people)
    if len(centres) < 2 or len(means) == len(centres) or len(crops.visits) == len(means):
        raise DataError("Spread needs two people, one who came twice, and a visit of two boxes; give more pictures.")
    mean = centres.mean(axis=0)
    within = crops.embeddings - means[np.unique(crops.visits, return_inverse=True)[1]]
    row = within.T @ within / (len(within) - len(means))
    between = means - centres[np.unique(people, return_inverse=True)[1]]
    # Means of a few rows are off themselves: that part is taken out again, here and for people.
    visit = between.T @ between / (len(between) - len(centres)) - row * np.mean(1 / counts)
    person = np.cov(centres.T) - visit * np.mean(1 / visits) - row * np.mean(1 / counts) * np.mean(1 / visits)
    axis = np.linalg.eigh(person + visit + row)[1][:, ::-1][:, :axes]  # [D,K]
    levels = (tuple(_along(matrix, axis)) for matrix in (person, visit, row))
    return Spread(round(float(np.linalg.norm(mean)), 4), *levels)


def _grouped(
    values: Floats | NDArray[np.float32], groups: NDArray[np.int64], of: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Mean [g,D] of each group, what `of` says of it, its size."""
    _, first, place, counts = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, place, values)
    return sums / counts[:, None], of[first], counts


def _along(covariance: Floats, axis: Floats) -> Iterable[float]:
    variances = np.einsum("dk,de,ek->k", axis, covariance, axis)
    return (round(float(max(0.0, value)), 7) for value in variances)


def drawn_crops(engine: PersonSearch, frames: int, identities: int, seed: int) -> Crops:
    """Boxes of drawn people with an identity; a visit is a walk through a camera's picture."""
    from psarm.data.synth.cast import build_cast
    from psarm.data.synth.plan import FRAME_STEP, plan_frames
    from psarm.data.synth.scene import draw_frame
    from psarm.data.synth.settings import SynthSettings

    settings = SynthSettings(frames=frames, identities=identities, width=640, height=360, seed=seed)
    cast = build_cast(settings)
    embeddings: list[NDArray[np.float32]] = []
    people: list[int] = []
    visits: list[int] = []
    walks: dict[tuple[int, int, int], tuple[int, int]] = {}
    for plan in track(plan_frames(settings, cast), "Drawing and embedding"):
        drawn = draw_frame(plan, cast, settings)
        rows = drawn.rows[drawn.rows[:, 0] >= 0]
        if not len(rows):
            continue
        corners = np.concatenate([rows[:, 1:3], rows[:, 1:3] + rows[:, 3:]], axis=1)
        embeddings.append(engine.embed(drawn.image, corners.astype(np.float32)))
        for identity in rows[:, 0].astype(int):
            key = (identity, plan.camera, plan.sequence)
            number, visit = walks.get(key, (-(10**6), 0))
            # Hidden for one picture, a person is still on the same walk.
            walks[key] = (plan.number, visit if plan.number - number <= 2 * FRAME_STEP else len(visits))
            people.append(identity)
            visits.append(walks[key][1])
    everyone = np.array(people, np.int64)
    return Crops(np.concatenate(embeddings), everyone, np.array(visits, np.int64), np.ones(len(everyone), np.bool_))


def measured_similarities(crops: Crops) -> dict[str, dict[str, float]]:
    """Mean and deviation of the dot products of two rows, by what they have in common."""
    upper = np.triu_indices(len(crops.people), 1)
    values = (crops.embeddings @ crops.embeddings.T)[upper]
    visit = (crops.visits[:, None] == crops.visits)[upper]
    person = (crops.people[:, None] == crops.people)[upper]
    pairs = {"visit": visit, "person": person & ~visit, "nothing": ~person}
    return {
        name: {"mean": round(float(values[one].mean()), 4), "deviation": round(float(values[one].std()), 4)}
        for name, one in pairs.items()
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="A data set of `psarm data convert`.")
@click.option("--frames", default=360, show_default=True, type=click.IntRange(12), help="Drawn.")
@click.option("--identities", default=72, show_default=True, type=click.IntRange(4), help="Drawn.")
@click.option("--seed", default=7, show_default=True, help="Of the drawing.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here.")
def main(bundle: Path, data: Path | None, frames: int, identities: int, seed: int, json_path: Path | None) -> None:
    """Measure how BUNDLE's embeddings of people spread."""
    with PersonSearch(bundle) as engine:
        fingerprint = engine.bundle.manifest.embedding.fingerprint
        if data is None:
            crops = drawn_crops(engine, frames, identities, seed)
        else:
            crops = embed_crops(read_records(data), engine.embed)
    spread, found = spread_of(crops), measured_similarities(crops)
    for name, value in spread.similarities().items():
        out.print(
            f"in common {name:8} {found[name]['mean']:.3f} ± {found[name]['deviation']:.3f}, modelled {value:.3f}"
        )
    if json_path is not None:
        report: dict[str, Any] = {
            "command": shlex.join(["python", "-m", "psarm.benchmarks.gallery_spread", *sys.argv[1:]]),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": git_commit(Path(psarm.__file__).resolve().parents[1]),
            "machine": asdict(describe_machine()),
            "versions": package_versions(),
            "bundle": bundle.name,
            "pictures": f"drawn, {frames} with seed {seed}" if data is None else data.name,
            "embedding_space": fingerprint,
            "boxes": len(crops.people),
            "people": len(np.unique(crops.people)),
            "visits": len(np.unique(crops.visits)),
            "similarities": found,
            "spread": asdict(spread),
        }
        write_json(json_path, report)


if __name__ == "__main__":
    run(main)
