"""`psarm data convert`: somebody's own labelled video or pictures → a data set to train and measure on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
from click.core import ParameterSource

from psarm.errors import UsageError

if TYPE_CHECKING:
    from psarm.data.convert import CocoLabels, ConvertSummary, MotClip

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
# The options that only one of the formats has.
MOT_ONLY = ("video", "people", "camera", "start", "shared_ids")
COCO_ONLY = ("images", "id_attribute", "visit_attribute", "camera_attribute", "category")

T = TypeVar("T")
D = TypeVar("D")


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--from", "labels_format", required=True, type=click.Choice(["mot", "coco"]), help="Format of the labels."
)
@click.option("--labels", multiple=True, type=FILE, metavar="FILE", help="MOT's gt.txt of each video, or COCO's json.")
@click.option(
    "--video",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="CLIP",
    help="MOT: a video, or a sequence folder with img1/, gt/gt.txt and seqinfo.ini. With several, repeat it, and "
    "--labels and the like in the same order.",
)
@click.option(
    "--people",
    multiple=True,
    type=FILE,
    metavar="FILE.json",
    help='MOT: which tracks of each video are whom, {"track_to_person": {"7": 2, …}}; -1: nobody knows. '
    "A person's number is the same person in every video.",
)
@click.option("--camera", multiple=True, type=int, metavar="N", help="MOT: camera of each video  [default: 1, 2, …].")
@click.option(
    "--start", multiple=True, type=float, metavar="SECONDS", help="MOT: when each video begins  [default: all at 0]."
)
@click.option("--shared-ids", is_flag=True, help="MOT: a track number is the same person in every video.")
@click.option("--images", type=DIRECTORY, metavar="DIR", help="COCO: the folder that file names are in.")
@click.option("--id-attribute", metavar="NAME", help="COCO: attribute of annotations with a person's number.")
@click.option("--visit-attribute", metavar="NAME", help="COCO: attribute that changes with every visit, as a track id.")
@click.option("--camera-attribute", metavar="NAME", help="COCO: attribute of images with the camera's number.")
@click.option("--category", metavar="NAME", help="COCO: category of people  [default: person, people or pedestrian].")
@click.option(
    "--visit-gap",
    type=int,
    metavar="N",
    help="A visit ends where the person is absent for more than N pictures  [default: 30; MOT: with its track].",
)
@click.option("--every", type=int, default=1, show_default=True, metavar="N", help="Keep every Nth picture.")
@click.option(
    "--train-fraction", type=float, default=0.6, show_default=True, help="First part of every clip, for training."
)
@click.option("--link", is_flag=True, help="Link picture files instead of copying them.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it holds a converted data set.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def convert(
    out: Path,
    labels_format: str,
    labels: tuple[Path, ...],
    video: tuple[Path, ...],
    people: tuple[Path, ...],
    camera: tuple[int, ...],
    start: tuple[float, ...],
    shared_ids: bool,
    images: Path | None,
    id_attribute: str | None,
    visit_attribute: str | None,
    camera_attribute: str | None,
    category: str | None,
    visit_gap: int | None,
    every: int,
    train_fraction: float,
    link: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Turn labelled video or pictures into a data set split by visit.

    It is written to OUT. A person's first visit is the query, later visits are the gallery. The first part of every
    clip is for training. Boxes are taken as they stand, in pixels from the picture's left and top edge, which is 0:
    from MOT's, nothing is subtracted. Use the result with `-o data.dataset=visits --data-root OUT`.

    \b
    psarm data convert OUT --from mot --video clip.avi --labels gt.txt --people people.json --every 5
    psarm data convert OUT --from coco --labels labels.json --images DIR --id-attribute person_id
    """
    from psarm.cli.engine_options import quiet_decoders
    from psarm.data.convert import ConvertSettings, convert_coco, convert_mot

    _refuse(COCO_ONLY if labels_format == "mot" else MOT_ONLY, labels_format)
    settings = ConvertSettings(every, train_fraction, visit_gap, link)
    quiet_decoders()
    if labels_format == "mot":
        clips = _clips(video, labels, people, camera, start)
        summary = convert_mot(out, clips, settings, shared_ids=shared_ids, overwrite=overwrite)
    else:
        data = _coco(labels, images, id_attribute, visit_attribute, camera_attribute, category)
        summary = convert_coco(out, data, settings, overwrite=overwrite)
    if as_json:
        click.echo(json.dumps(summary.to_dict(), indent=2))
    else:
        _print(summary)


def _refuse(names: Sequence[str], labels_format: str) -> None:
    """Raise `UsageError` where options of the other format were given."""
    context = click.get_current_context()
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in names and context.get_parameter_source(parameter.name) is not ParameterSource.DEFAULT
    ]
    if given:
        raise UsageError(f"--from {labels_format} does not take {', '.join(given)}; leave it out.")


def _clips(
    video: Sequence[Path],
    labels: Sequence[Path],
    people: Sequence[Path],
    camera: Sequence[int],
    start: Sequence[float],
) -> list[MotClip]:
    from psarm.data.convert import MotClip

    if not video:
        raise UsageError("--from mot needs --video, a clip or a MOT sequence folder.")
    count = len(video)
    unset = [None] * count
    each = zip(
        video,
        _one_each("--camera", camera, range(1, count + 1)),
        _one_each("--labels", labels, unset),
        _one_each("--people", people, unset),
        _one_each("--start", start, unset),
        strict=True,
    )
    return [MotClip(*values) for values in each]


def _one_each(option: str, given: Sequence[T], default: Sequence[D]) -> Sequence[T | D]:
    """What was given, if it is as many as there are videos, or the default if it is nothing."""
    if given and len(given) != len(default):
        raise UsageError(
            f"--video was given {len(default)} times and {option} {len(given)} times; "
            "give one for each, in the same order."
        )
    return given or default


def _coco(
    labels: Sequence[Path],
    images: Path | None,
    id_attribute: str | None,
    visit_attribute: str | None,
    camera_attribute: str | None,
    category: str | None,
) -> CocoLabels:
    from psarm.data.convert import CocoLabels

    if len(labels) != 1:
        raise UsageError(f"--from coco needs one --labels FILE.json; {len(labels)} were given.")
    if images is None:
        raise UsageError("--from coco needs --images, the folder of the pictures.")
    if id_attribute is None:
        raise UsageError(
            "--from coco needs --id-attribute, the attribute that says who a person is, such as person_id."
        )
    return CocoLabels(labels[0], images, id_attribute, visit_attribute, camera_attribute, category)


def _print(summary: ConvertSummary) -> None:
    from rich.table import Table

    from psarm.console import out

    table = Table(title=f"Data set in {summary.root}")
    for title in ("camera", "frames", "train", "gallery", "boxes", "people", "visits", "queries"):
        table.add_column(title, justify="right")
    for camera, counts in [*summary.cameras.items(), ("all", summary.total)]:
        if camera == "all":
            table.add_section()
        frames = (counts.frames, counts.train_frames, counts.gallery_frames)
        table.add_row(str(camera), *map(str, (*frames, counts.boxes, counts.people, counts.visits, counts.queries)))
    out.print(table)
    out.print(f"{summary.returning} of {summary.total.people} people come back for another visit.")
    if summary.total.unlabelled:
        out.print(f"{summary.total.unlabelled} boxes have no identity.")
    for reason, count in summary.dropped.items():
        out.print(f"Left out: {count} labels with {reason}.")
    if summary.shared:
        out.print(f"{summary.shared} of them are in more than one video; a person's number is the same in all.")
    out.print("Next: psarm train --config PRESET -o data.dataset=visits --data-root", summary.root, soft_wrap=True)
