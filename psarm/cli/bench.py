"""`psarm bench`: accuracy and speed on a data set, or the score of a detections file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from psarm.cli.checkpoint_path import CheckpointPath
from psarm.config import DATASETS
from psarm.errors import DataError, PsarmError, UsageError

if TYPE_CHECKING:
    from psarm.benchmarks import BenchSettings

DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
TARGET = click.Path(dir_okay=False, path_type=Path)
SCORING_PARAMETERS = (
    "dataset",
    "data_root",
    "detections",
    "cbgm",
    "cross_camera",
    "gallery_sizes",
    "json_path",
    "help",
)


@click.command()
@click.argument("bundle", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--dataset", type=click.Choice(DATASETS), default="prw", show_default=True, help="Data set.")
@click.option("--data-root", required=True, type=DIRECTORY, metavar="DIR", help="Folder of the data set.")
@click.option(
    "--checkpoint", type=CheckpointPath(), metavar="CKPT", help="PyTorch model to compare with: the bundle's origin."
)
@click.option("--detections", type=FILE, metavar="FILE.npz", help="Score this detections file; no model is run.")
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="Only this backend (repeatable).")
@click.option("--precision", "precisions", multiple=True, metavar="NAME", help="Only this precision (repeatable).")
@click.option("--cbgm/--no-cbgm", default=None, help="Also measure search with context graph matching.")
@click.option("--cross-camera", is_flag=True, help="Also show search in the frames of other cameras only.")
@click.option(
    "--gallery-size",
    "gallery_sizes",
    multiple=True,
    metavar="SIZE",
    help="Also search in galleries of SIZE: 50, 100, 500, 1000, 2000 or 4000 on CUHK-SYSU, full anywhere (repeatable).",
)
@click.option("--gt-boxes", is_flag=True, help="Also measure search among the ground-truth boxes (default gallery).")
@click.option("--baselines", is_flag=True, help="Add colour-histogram matching and the untrained network.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of every engine  [default: usable cores].")
@click.option("--frames", type=click.IntRange(min=1), help="Gallery frames to time  [default: 30].")
@click.option("--json", "json_path", type=TARGET, metavar="OUT.json", help="Write everything measured as JSON.")
@click.option("--save-detections", type=TARGET, metavar="OUT.npz", help="Write what the bundle's first row found.")
def command(
    bundle: Path | None,
    dataset: str,
    data_root: Path,
    checkpoint: Path | None,
    detections: Path | None,
    backends: tuple[str, ...],
    precisions: tuple[str, ...],
    cbgm: bool | None,
    cross_camera: bool,
    gallery_sizes: tuple[str, ...],
    gt_boxes: bool,
    baselines: bool,
    threads: int | None,
    frames: int | None,
    json_path: Path | None,
    save_detections: Path | None,
) -> None:
    """Accuracy and speed of every backend of BUNDLE beside the PyTorch model (--checkpoint), in one table.

    With --detections and no BUNDLE, the file is scored and nothing is timed.
    """
    if detections is not None:
        _refuse_engine_options(click.get_current_context())
        _score_file(detections, dataset, data_root, gallery_sizes, cbgm, cross_camera, json_path)
        return
    from psarm.benchmarks import BenchSettings
    from psarm.benchmarks.settings import TIMING_FRAMES

    settings = BenchSettings(
        data_root=data_root,
        bundle=bundle,
        checkpoint=checkpoint,
        dataset=dataset,
        gallery_sizes=gallery_sizes,
        backends=backends,
        precisions=precisions,
        cbgm=bool(cbgm),
        cross_camera=cross_camera,
        gt_boxes=gt_boxes,
        baselines=baselines,
        threads=threads,
        frames=frames or TIMING_FRAMES,
        save_detections=save_detections,
    )
    _run(settings, json_path)


def _refuse_engine_options(context: click.Context) -> None:
    """Raise `UsageError` where options of a run stand beside --detections."""
    given = [
        parameter.opts[0] if isinstance(parameter, click.Option) else parameter.human_readable_name
        for parameter in context.command.params
        if parameter.name not in SCORING_PARAMETERS
        and context.get_parameter_source(parameter.name or "") is not ParameterSource.DEFAULT
    ]
    if given:
        raise UsageError(f"--detections scores a file without running a model; leave out {', '.join(given)}.")


def _run(settings: BenchSettings, json_path: Path | None) -> None:
    from psarm.benchmarks import print_report, run_benchmark
    from psarm.console import out
    from psarm.files import write_json

    report = run_benchmark(settings)
    print_report(report, out)
    if json_path is not None:
        write_json(json_path, report.to_dict())
    if not any(row.ok for row in report.rows):
        raise PsarmError("Nothing ran; the lines above say why.")
    failed = [f"{row.name} {row.precision}" for row in report.rows if row.requested and not row.ok]
    if failed:
        raise PsarmError(f"{', '.join(failed)} did not run; the lines above say why.")


def _score_file(
    path: Path,
    dataset: str,
    root: Path,
    gallery_sizes: tuple[str, ...],
    cbgm: bool | None,
    cross_camera: bool,
    json_path: Path | None,
) -> None:
    """Score a detections file. Without --cbgm or --no-cbgm, CBGM is measured when the file has contexts."""
    from psarm.benchmarks.table import print_metrics
    from psarm.console import out
    from psarm.data.readers import read_dataset
    from psarm.evaluation import SearchProtocol, read_detections, score_detections
    from psarm.files import write_json

    content = read_detections(path)
    if cbgm and content.context is None:
        raise DataError(f"{path} has no contexts of the queries (context_counts, …), which --cbgm needs.")
    if cbgm is False:
        content = dataclasses.replace(content, context=None)
    data = read_dataset(dataset, root)
    protocol = SearchProtocol.from_dataset(data)
    if cross_camera:  # shown wherever there are several cameras
        protocol.check_cross_camera()
    metrics = score_detections(protocol, content, gallery_sizes=gallery_sizes)
    print_metrics(metrics, out)
    if data.default_gallery is not None:
        out.print(f"Search: gallery {data.default_gallery} where no other is named")
    if json_path is not None:
        write_json(json_path, metrics)
