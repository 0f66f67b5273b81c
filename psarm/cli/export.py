"""`psarm export`: from a checkpoint to a bundle."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psarm.cli.checkpoint_path import CheckpointPath
from psarm.cli.engines import BuildOptions, build_options
from psarm.config import DATASETS
from psarm.errors import ExportError, UsageError

if TYPE_CHECKING:
    from psarm.export.precision.settings import PrecisionSettings

SETTINGS = ("precisions", "calibrate", "data_root", "dataset", "min_map_ratio", "compare_frames")
DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("checkpoint", type=CheckpointPath())
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory of the bundle to make.")
@click.option(
    "--precision",
    "precisions",
    default="fp32",
    show_default=True,
    metavar="LIST",
    help="Comma list of fp32 (always written), fp16 and int8 (with --calibrate).",
)
@click.option(
    "--calibrate",
    type=DIRECTORY,
    metavar="DATA",
    help="Data set or folder of pictures to learn int8's ranges from, and to compare precisions on others of it.",
)
@click.option("--data-root", type=DIRECTORY, metavar="DIR", help="Data set to measure every precision on, fp32 too.")
@click.option("--dataset", type=click.Choice(DATASETS), help="Format of --data-root  [default: prw].")
@click.option(
    "--compare-frames",
    type=click.IntRange(min=1),
    metavar="N",
    help="Frames on which other precisions are compared with fp32; at most 4 where they are made up  [default: 16].",
)
@click.option(
    "--min-map-ratio",
    type=float,
    metavar="SHARE",
    help="Fail where a precision keeps less than this share of fp32's mAP, 0.99 say (with --data-root).",
)
@click.option(
    "--trt", is_flag=True, help="Also write the form for TensorRT, and build its engines where that works here."
)
@build_options
@click.option("--torch-weights", is_flag=True, help="Put the checkpoint in too, for the torch backend.")
@click.option("--verify/--no-verify", default=True, show_default=True, help="Compare the graphs with the model.")
@click.option("--simplify", is_flag=True, help="Run onnxslim over the graphs before they are verified.")
@click.option("--overwrite", is_flag=True, help="Replace the bundle that is at --out.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(checkpoint: Path, out: Path, trt: bool, as_json: bool, **options: Any) -> None:
    """Turn a CHECKPOINT into a bundle: ONNX graphs and a manifest.

    CHECKPOINT is a model.safetensors or last.pt of psarm train, or a released SeqNet or PS-ARM .pth file. The export
    fails, and leaves nothing at --out, where boxes differ from the PyTorch model's by more than 0.01 pixels, or scores
    or embeddings by more than 0.0001.

    What another precision costs beside fp32 is measured and shown: on --compare-frames frames (of --data-root or
    --calibrate, else made up), and with --data-root as mAP and top-1 of the whole data set, fp32's own too, which takes
    hours on a large one. That runs on ONNX Runtime; fp16 is computed there with half's rounding after every operator,
    as a GPU would at worst. int8 is also run on OpenVINO where that is installed. With --min-map-ratio, an export that
    fails still shows all that was measured.

    With --trt, engines are built once the bundle is in place, as psarm engines does, whose options are those from
    --flavour to --rebuild. Where this machine cannot build them, that is said and the bundle is good; with --flavour or
    --cc it is an error, raised before anything is exported.
    """
    from psarm.cli.export_engines import build_where_possible, check_building
    from psarm.cli.export_tables import show_export
    from psarm.console import err
    from psarm.extras import require

    require(
        "torch", "torchvision", "safetensors", "onnx", "onnxscript", "onnxslim", feature="psarm export", extra="export"
    )
    building = BuildOptions(**{field.name: options.pop(field.name) for field in fields(BuildOptions)})
    if building != BuildOptions() and not trt:
        raise UsageError("Options from --flavour to --rebuild say how engines are built; they go with --trt.")
    if trt:
        check_building(building)
    settings = _settings(trt, **{name: options.pop(name) for name in SETTINGS})
    if not options["verify"]:
        settings.refuse_without_verification()
    from psarm.export import export_bundle  # here: torch takes seconds, and what was typed is checked by now

    failure = None
    try:
        report = export_bundle(checkpoint, out, say=err.print, settings=settings, **options)
    except ExportError as error:
        if error.report is None:
            raise
        report, failure = error.report, error
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
    else:
        show_export(report)
    if failure is not None:
        raise failure
    if trt:
        build_where_possible(out, building, show_table=not as_json)


def _settings(tensorrt: bool, precisions: str, dataset: str | None, **options: Any) -> PrecisionSettings:
    """The options of `SETTINGS`, checked."""
    from psarm.export.precision.settings import PrecisionSettings, parse_precisions

    if dataset is not None and options["data_root"] is None:
        raise UsageError("--dataset is the format of --data-root, which is not given; give both or none.")
    names = [name.strip() for name in precisions.split(",") if name.strip()]
    return PrecisionSettings(parse_precisions(names), dataset=dataset or DATASETS[0], tensorrt=tensorrt, **options)
