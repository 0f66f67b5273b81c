"""Does training learn? Three experiments that end in a table and a JSON file.

    python -m psarm.benchmarks.learning mixers --json benchmarks/results/learning_mixers.json
    python -m psarm.benchmarks.learning pets --footage DIR --json benchmarks/results/learning_pets.json
    python -m psarm.benchmarks.learning sizes --measure --json benchmarks/results/learning_sizes.json

`mixers` compares SeqNet, SeqNet with MLP-Mixer and PS-ARM under equal budgets on drawn frames; `pets` fine-tunes the
shipped checkpoint on the first part of a real video; `sizes` compares the presets for CPU boxes with a ResNet-50.
Started again, they go on where they stopped. With `--runs` they train nothing and collect the finished runs of a
folder, `VARIANT-SEED`, `pets-SEED` or `SIZE-SEED` each.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

import psarm
from psarm.benchmarks.demo import RELEASE
from psarm.benchmarks.facts import git_commit
from psarm.benchmarks.learning_front import check_plot, plot_front
from psarm.benchmarks.learning_mixers import MixersExperiment, print_mixers
from psarm.benchmarks.learning_pets import PetsExperiment, print_pets
from psarm.benchmarks.learning_sizes import SIZES, SizesExperiment, print_sizes
from psarm.benchmarks.script import run
from psarm.console import out
from psarm.errors import UsageError
from psarm.extras import require
from psarm.files import write_json
from psarm.machine import describe_machine, package_versions

DIRECTORY = click.Path(file_okay=False, path_type=Path)
FOUND = click.Path(exists=True, file_okay=False, path_type=Path)
JSON = click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write everything to this file.")
RUNS = click.option("--runs", type=FOUND, metavar="DIR", help="Train nothing; collect these finished runs.")
SEEDS = click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Seeds 0, 1, …")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train models and report what they learned.

    \b
    mixers: SeqNet, SeqNet with MLP-Mixer and PS-ARM on drawn frames; some 90 minutes on one CPU core.
    pets: the small checkpoint on a real video, which --footage holds; some minutes a seed.
    sizes: the presets for CPU boxes and a ResNet-50 on drawn frames; most of a day on two CPU cores.

    Interrupted, each goes on where it stopped. Models and data go to --out, all figures to --json.
    """
    require("torch", "torchvision", "accelerate", "yaml", feature="This experiment", extra="train")


@main.command()
@click.option("--out", "folder", type=DIRECTORY, default="runs/learning_mixers", show_default=True, metavar="DIR")
@RUNS
@SEEDS
@click.option("--frames", default=MixersExperiment.frames, show_default=True, help="Frames to draw.")
@click.option("--identities", default=MixersExperiment.identities, show_default=True, help="People to draw.")
@click.option("--config", "recipe", default=MixersExperiment.recipe, show_default=True, metavar="PRESET|FILE")
@JSON
def mixers(
    folder: Path,
    runs: Path | None,
    seeds: int,
    frames: int,
    identities: int,
    recipe: str,
    json_path: Path | None,
) -> None:
    """SeqNet, SeqNet with MLP-Mixer and PS-ARM on drawn frames, equal budgets."""
    report = MixersExperiment(folder, runs, recipe, frames, identities, seeds).run()
    print_mixers(report)
    amount = f"--seeds {seeds} --frames {frames} --identities {identities}"
    _write(f"mixers {amount} --config {recipe}", runs, report, json_path)


@main.command()
@click.option("--footage", type=FOUND, required=True, metavar="DIR", help="Holds vtest.avi, gt.txt, person_ids.json.")
@click.option("--out", "folder", type=DIRECTORY, default="runs/learning_pets", show_default=True, metavar="DIR")
@RUNS
@SEEDS
@click.option("--config", "recipe", default=PetsExperiment.recipe, show_default=True, metavar="PRESET|FILE")
@JSON
def pets(footage: Path, folder: Path, runs: Path | None, seeds: int, recipe: str, json_path: Path | None) -> None:
    """The shipped checkpoint on the first 60 % of PETS 2009 S2.L1."""
    if not RELEASE.exists():
        raise UsageError(f"{RELEASE} is missing; the experiment runs from a checkout of psarm, not from a wheel.")
    report = PetsExperiment(footage, folder, RELEASE, runs, recipe, seeds).run()
    print_pets(report)
    _write(f"pets --footage FOOTAGE --seeds {seeds} --config {recipe}", runs, report, json_path)


@main.command()
@click.option("--out", "folder", type=DIRECTORY, default="runs/learning_sizes", show_default=True, metavar="DIR")
@click.option("--size", "chosen", type=click.Choice(SIZES), multiple=True, help="Only this one (repeatable).")
@RUNS
@click.option("--seeds", type=click.IntRange(min=1), default=SizesExperiment.seeds, show_default=True)
@click.option("--frames", default=SizesExperiment.frames, show_default=True, help="Frames to draw.")
@click.option("--identities", default=SizesExperiment.identities, show_default=True, help="People to draw.")
@click.option("--config", "recipe", default=SizesExperiment.recipe, show_default=True, metavar="PRESET|FILE")
@click.option("--measure", is_flag=True, help="Export every size, INT8 too, and run its bundle on two threads.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw mAP over milliseconds (--measure).")
@JSON
def sizes(
    folder: Path,
    chosen: tuple[str, ...],
    runs: Path | None,
    seeds: int,
    frames: int,
    identities: int,
    recipe: str,
    measure: bool,
    plot: Path | None,
    json_path: Path | None,
) -> None:
    """The presets for CPU boxes and a ResNet-50 on drawn frames, equal budgets."""
    if plot is not None and not measure:
        raise UsageError("--plot draws what --measure measures; give both.")
    if plot is not None:
        check_plot(plot)
    wanted = tuple(size for size in SIZES if size in (chosen or SIZES))
    report = SizesExperiment(folder, wanted, runs, recipe, frames, identities, seeds, measure).run()
    print_sizes(report)
    only = "".join(f"--size {size} " for size in wanted) if chosen else ""
    amount = f"{only}--seeds {seeds} --frames {frames} --identities {identities}"
    _write(f"sizes {amount} --config {recipe}{' --measure' if measure else ''}", runs, report, json_path)
    if plot is not None:
        plot_front(report["sizes"], plot)


def _write(arguments: str, runs: Path | None, report: dict[str, Any], path: Path | None) -> None:
    """With what the figures depend on. `commit` is the reporting psarm's; every run has that of its own."""
    if path is None:
        return
    if runs is not None:
        arguments += " --runs DIR"
    facts = {
        "command": f"python -m psarm.benchmarks.learning {arguments}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(Path(psarm.__file__).resolve().parents[1]),
        "machine": asdict(describe_machine()),
        "packages": package_versions(),
    }
    write_json(path, facts | report)
    out.print(f"Written: {path}", soft_wrap=True)


if __name__ == "__main__":
    run(main)
