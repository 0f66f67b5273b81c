"""Real and synthetic footage, indexed and searched for people who come back.

    python -m psarm.benchmarks.gallery_reentries BUNDLE --footage DIR --json reentries.json

Every footage is indexed by `psarm index` and, as a second row, from its labelled boxes. A query is a labelled person on
their first visit; right are the gallery's visits that show the person on another visit, by most of their frames. What
the gallery has of the query's own visit is left out. AP is scaled by the share of the other labelled visits (or boxes)
that the gallery has at all. The footage is not part of this project.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.table import Table

import psarm
from psarm.benchmarks.facts import git_commit
from psarm.benchmarks.reentry_footage import Footage, read_one_by_one, read_pets, read_synthetic
from psarm.benchmarks.reentry_gallery import gallery_rows, index_footage, index_labels
from psarm.benchmarks.reentry_matching import match_gallery
from psarm.benchmarks.reentry_search import SearchedGallery, read_queries
from psarm.benchmarks.runs import run_psarm
from psarm.benchmarks.script import run
from psarm.console import err, out
from psarm.errors import UsageError
from psarm.files import write_json
from psarm.machine import default_threads, describe_machine, package_versions
from psarm.runtime import PersonSearch

Sampled = tuple[Footage, float | None]
"""Footage, and frames a second that are indexed; None: all."""
INDEXED, LABELLED = "psarm index", "labelled boxes"


def read_footage(folder: Path | None, synthetic: Path | None, work: Path, fps: float) -> list[Sampled]:
    """Everything that is to be indexed."""
    found: list[Sampled] = []
    if folder is not None:
        pets = read_pets(folder)
        found += [(pets, None), (pets, fps), (read_one_by_one(folder), fps)]
    if synthetic is not None:
        found.append((read_synthetic(synthetic, work / "videos"), None))
    return found


def measure(
    engine: PersonSearch, footage: Footage, fps: float | None, target: float, work: Path, options: Sequence[str]
) -> dict[str, Any]:
    """Index one footage both ways and search in each."""
    from psarm.runtime.gallery.gallery import Gallery

    due = footage.due(fps)
    queries = read_queries(engine, footage, due)
    ways: dict[str, Callable[[Path], None]] = {
        INDEXED: lambda where: index_footage(engine.bundle.path, footage, fps, where, options),
        LABELLED: lambda where: index_labels(engine, footage, fps, where),
    }
    rows = {}
    for number, (name, index) in enumerate(ways.items()):
        where = work / f"{footage.name}-{'all' if fps is None else f'{fps:g}'}-{number}.gallery"
        start = time.perf_counter()
        index(where)
        seconds = time.perf_counter() - start
        with Gallery.open(where) as gallery:
            people = gallery_rows(gallery, footage)
            matches = match_gallery(footage, people, due)
            searched = SearchedGallery(gallery, footage, people, matches).search(queries, target)
        rows[name] = {"seconds": round(seconds, 1), "quality": asdict(matches.quality), **searched}
        _print(f"{footage.name}, {'every frame' if fps is None else f'{fps:g} frames/s'}, {name}", rows[name])
    return {
        "footage": footage.name,
        "fps": fps,
        "videos": len(footage.videos),
        "frames": len(footage.frames),
        "due": len(due),
        "people": footage.people(),
        "rows": rows,
    }


def _print(title: str, row: dict[str, Any]) -> None:
    quality = row["quality"]
    out.print(title, style="bold")
    boxes = f"boxes found {quality['boxes_found']} of {quality['labelled_boxes']} ({quality['rows']} rows)"
    visits = f"visits found {quality['visits_found']} of {quality['labelled_visits']}"
    more = f"{quality['visits_per_found']:.2f} a real one, {quality['visits_of_strangers']} of strangers"
    rest = f"{quality['visits_of_nobody']} of nobody; {quality['identity_switches']} switches"
    out.print(f"  {boxes}; {visits}, {more}, {rest}, purity {quality['purity']:.1%}", soft_wrap=True)
    table = Table("search", "queries", "mAP", "top-1", "found in first 10")
    for name, found in row["searches"].items():
        if found is not None:
            shares = (found[key] for key in ("mAP", "top1", "found_in_first_10"))
            table.add_row(name, str(found["queries"]), *(f"{100 * share:.1f}" for share in shares))
    if table.row_count:
        out.print(table)
    if row["calibration"] is not None:
        out.print(f"  calibrated: {row['calibration']}", soft_wrap=True, markup=False)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--footage", type=click.Path(exists=True, file_okay=False, path_type=Path), help="PETS and one-by-one.")
@click.option(
    "--synthetic",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A data set of psarm data synth, layout PRW  [default: one of 240 frames is drawn].",
)
@click.option("--fps", default=2.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Of real footage.")
@click.option(
    "--target",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="False-match rate that galleries are calibrated to; small galleries cannot be calibrated to small ones.",
)
@click.option("--backend", default="auto", show_default=True)
@click.option("--batch", default=4, show_default=True, type=click.IntRange(1))
@click.option("--threads", type=click.IntRange(1), help="CPU threads  [default: OMP_NUM_THREADS or all cores].")
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), help="Keep galleries and videos here.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here.")
def main(
    bundle: Path,
    footage: Path | None,
    synthetic: Path | None,
    fps: float,
    target: float,
    backend: str,
    batch: int,
    threads: int | None,
    work: Path | None,
    json_path: Path | None,
) -> None:
    """Index footage with BUNDLE and search for the people who come back."""
    if work is not None and work.exists() and any(work.iterdir()):
        raise UsageError(f"--work {work} is not empty; give a directory that is.")
    threads = threads or default_threads()
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if synthetic is None:
            synthetic = folder / "synthetic"
            run_psarm(["data", "synth", str(synthetic), "--frames", "240", "--identities", "24", "--seed", "7"])
        options = ["--backend", backend, "--batch", str(batch), "--threads", str(threads)]
        with PersonSearch(bundle, backend, threads=threads) as engine:
            err.print(f"Running on {engine.summary}.", markup=False)
            sampled = read_footage(footage, synthetic, folder, fps)
            results = [measure(engine, one, rate, target, folder, options) for one, rate in sampled]
            manifest, summary = engine.bundle.manifest, engine.summary
    load.append(os.getloadavg()[0])
    if json_path:
        report = {
            "command": f"python -m psarm.benchmarks.gallery_reentries {bundle.name} --footage DIR --fps {fps:g}",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": git_commit(Path(psarm.__file__).resolve().parents[1]),
            "machine": asdict(describe_machine()),
            "versions": package_versions(),
            "load_average": load,
            "engine": summary,
            "model": asdict(manifest.model),
            "embedding_space": manifest.embedding.fingerprint,
            "trained_on": None if manifest.dataset is None else asdict(manifest.dataset),
            "results": results,
        }
        write_json(json_path, report)


if __name__ == "__main__":
    run(main)
