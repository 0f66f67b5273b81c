"""`psarm data check`: statistics, a contact sheet and every broken file of a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from psarm.config import DATASETS

if TYPE_CHECKING:
    from psarm.data.check import CheckReport
    from psarm.data.statistics import Statistics

# Errors are all printed; of warnings this many, the rest is in --json.
SHOWN_WARNINGS = 20


@click.command()
@click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--contact-sheet", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write frames with boxes."
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--dataset", type=click.Choice(DATASETS), help="Format.  [default: told from the files]")
def check(root: Path, contact_sheet: Path | None, as_json: bool, dataset: str | None) -> None:
    """Describe the data set in ROOT and name every broken file. Exit code 1 if there is one."""
    from psarm.cli.engine_options import quiet_decoders
    from psarm.console import err
    from psarm.data.contact_sheet import check_format, write_contact_sheet
    from psarm.data.layouts import LAYOUTS, recognise

    if contact_sheet is not None:
        check_format(contact_sheet)
    quiet_decoders()
    report = LAYOUTS[dataset or recognise(root)].check(root)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
    else:
        _print_statistics(report.statistics)
        _print_galleries(report)
        _print_findings(report)
    if contact_sheet is not None:
        count = write_contact_sheet(contact_sheet, report.train + report.gallery)
        err.print(f"Contact sheet of {count} frames: {contact_sheet}", markup=False)
    if report.errors:
        raise click.exceptions.Exit(1)


def _print_statistics(statistics: Statistics) -> None:
    from rich.table import Table

    from psarm.console import out
    from psarm.data.statistics import QUANTILES

    table = Table(title="Frames and people")
    for title in ("split", "camera", "frames", "boxes", "without identity", "identities"):
        table.add_column(title, justify="left" if title == "split" else "right")
    for split, counts in statistics.splits.items():
        cameras = statistics.cameras[split]
        for camera, part in [*(cameras.items() if len(cameras) > 1 else ()), ("all", counts)]:
            numbers = (part.frames, part.boxes, part.unlabelled, part.identities)
            table.add_row(split, str(camera), *(str(number) for number in numbers))
        table.add_section()
    out.print(table)
    queries = statistics.queries
    sizes = Table(title="Quantiles")
    sizes.add_column("")
    for quantile in QUANTILES:
        sizes.add_column(f"{quantile:.0%}", justify="right")
    rows = {
        "box width (px)": statistics.box_widths,
        "box height (px)": statistics.box_heights,
        "people in a frame": statistics.people_per_frame,
        "frames to find a query in": queries.gallery_frames,
    }
    if len(statistics.cameras["test"]) > 1:
        rows["… of other cameras"] = queries.other_cameras
    for name, values in rows.items():
        sizes.add_row(name, *(f"{value:g}" for value in values))
    out.print(sizes)
    shapes = ", ".join(f"{count} of {size}" for size, count in statistics.image_sizes.items()) or "none"
    out.print(f"Images: {shapes}.")
    out.print(
        f"Queries: {queries.queries} of {queries.identities} identities; "
        f"{queries.without_match} whose person is in no frame of their gallery."
    )


def _print_galleries(report: CheckReport) -> None:
    for name, (least, most) in report.gallery_sizes().items():
        frames = str(most) if least == most else f"{least} to {most}"
        click.echo(f"Gallery {name}: {frames} frames for a query.")


def _print_findings(report: CheckReport) -> None:
    for finding in report.errors:
        click.echo(f"error    {finding.file}: {finding.message}")
    for finding in report.warnings[:SHOWN_WARNINGS]:
        click.echo(f"warning  {finding.file}: {finding.message}")
    hidden = len(report.warnings) - SHOWN_WARNINGS
    if hidden > 0:
        click.echo(f"… and {hidden} more warnings; --json lists them all.")
    click.echo(f"{len(report.errors)} errors, {len(report.warnings)} warnings.")
