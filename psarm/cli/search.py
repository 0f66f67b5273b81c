"""`psarm search`: one person in pictures and videos."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psarm.cli.engine_options import EXISTING, Frames, check_bundle_first, engine_options, open_engine, quiet_decoders
from psarm.errors import UsageError

if TYPE_CHECKING:
    from psarm.runtime import Detections, Hit, PersonSearch
    from psarm.runtime.images import FrameSource
    from psarm.runtime.video import Frame

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Query:
    """The person to search for."""

    path: Path
    image: Frame
    box: Box  # xyxy in pixels of the picture


def parse_box(context: click.Context, parameter: click.Parameter, value: str | None) -> Box | None:
    """`x1,y1,x2,y2` → four numbers."""
    if value is None:
        return None
    try:
        x1, y1, x2, y2 = (float(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not of the form x1,y1,x2,y2, such as 110,40,190,260.") from error
    return x1, y1, x2, y2


@click.command()
@click.argument("bundle", type=EXISTING)
@click.argument("paths", type=EXISTING, nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--query",
    "query_path",
    type=EXISTING,
    required=True,
    help="Picture with the person to search for; several people are listed.",
)
@click.option("--box", callback=parse_box, metavar="x1,y1,x2,y2", help="The person's box in the query, in pixels.")
@click.option("--person", type=click.IntRange(min=1), help="Or a person's number, as listed without it.")
@click.option("--top-k", type=click.IntRange(min=1), default=10, show_default=True, help="Hits to show.")
@click.option("--cbgm", is_flag=True, help="Let the people around the query help (context bipartite graph matching).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with pictures to this file."
)
@engine_options
def command(
    bundle: Path,
    paths: tuple[Path, ...],
    query_path: Path,
    box: Box | None,
    person: int | None,
    top_k: int,
    cbgm: bool,
    as_json: bool,
    html: Path | None,
    every: int,
    batch: int,
    **options: Any,
) -> None:
    """Find one person in images with a BUNDLE.

    A PATH is a picture, a folder (searched with its subfolders) or a video; the query picture itself is left out.
    Without --box the query's only person is taken. Files that cannot be read are named and left out, and the exit
    code is then 1.
    """
    from psarm.console import err
    from psarm.runtime import rank

    if box and person:
        raise UsageError("--box and --person both choose the person; give one of them.")
    check_bundle_first(bundle, paths)
    frames = Frames(paths, every, batch, skip=query_path)
    if not frames.files:
        raise UsageError(f"Apart from the query {query_path} itself, nothing is left to search; give other pictures.")
    with open_engine(bundle, **options) as engine:
        query = _read_query(engine, query_path, box, person, as_json)
        embedding = engine.embed(query.image, [query.box])[0]
        context = engine.detect_around(query.image, query.box) if cbgm else None
        sources, people = _detect(engine, frames)
        hits = rank(embedding, people, top_k, context)
        facts = _facts(bundle, engine, len(sources), sum(map(len, people)), cbgm)
    _print(query, sources, hits, facts, as_json)
    if html:
        _write_page(html, query, sources, hits, facts)
        err.print(f"Wrote {html}.", markup=False)
    frames.raise_if_unreadable()


def _read_query(engine: PersonSearch, path: Path, box: Box | None, person: int | None, as_json: bool) -> Query:
    from psarm.runtime import read_image

    quiet_decoders()
    image = read_image(path)
    if box:
        _check_box(path, image, box)
        return Query(path, image, box)
    people = engine.detect(image)
    if len(people) == 0:
        raise UsageError(f"No person was found in the query {path}; say where the person is with --box x1,y1,x2,y2.")
    if person is None and len(people) > 1:
        raise _several_people(engine, path, people, as_json)
    if person is not None and person > len(people):
        raise UsageError(f"--person is {person}, but people found in the query {path} are numbered 1 to {len(people)}.")
    x1, y1, x2, y2 = people.boxes[(person or 1) - 1].tolist()
    return Query(path, image, (x1, y1, x2, y2))


def _check_box(path: Path, image: Frame, box: Box) -> None:
    """Raise `UsageError` for a box without a pixel of the picture; tell of one that reaches over its border."""
    from psarm.console import err
    from psarm.runtime.validators import check_person_boxes

    height, width = image.shape[:2]
    ((x1, y1, x2, y2),) = check_person_boxes([box], width, height).tolist()
    if min(x1, y1) < 0 or x2 > width or y2 > height:
        text = _box_text([x1, y1, x2, y2])
        err.print(f"Note: the box {text} reaches outside the {width}x{height} picture {path}.", markup=False)


def _several_people(engine: PersonSearch, path: Path, people: Detections, as_json: bool) -> UsageError:
    """List the people of the query and return the error to raise."""
    from psarm.console import err

    if as_json:
        listed = [
            {"person": number, "box": found.box.tolist(), "score": round(found.score, 6)}
            for number, found in enumerate(people, start=1)
        ]
        click.echo(json.dumps({"people": listed}))
    else:
        err.print(_people_table(people))
    draw = shlex.join(["psarm", "detect", str(engine.bundle.path), str(path), "--save"])
    return UsageError(
        f"The query {path} shows {len(people)} people (listed {'in the JSON' if as_json else 'above'}); "
        f"choose one with --person N or --box; {draw} DIR draws the numbers."
    )


def _detect(engine: PersonSearch, frames: Frames) -> tuple[list[FrameSource], list[Detections]]:
    from psarm.console import progress

    sources: list[FrameSource] = []
    people: list[Detections] = []
    with progress() as bar:
        task = bar.add_task("Searching", total=frames.total)
        for source, result in frames.detect(engine):
            people.append(result.detections)
            sources.append(source)
            bar.advance(task)
    return sources, people


def _facts(bundle: Path, engine: PersonSearch, frames: int, people: int, cbgm: bool) -> dict[str, Any]:
    return {
        "bundle": str(bundle),
        "backend": engine.backend,
        "device": engine.device,
        "precision": engine.precision,
        "cbgm": cbgm,
        "frames": frames,
        "people": people,
    }


def _print(query: Query, sources: list[FrameSource], hits: list[Hit], facts: dict[str, Any], as_json: bool) -> None:
    from psarm.console import out

    if as_json:
        found = [
            {
                "rank": number,
                "image": sources[hit.frame].name,
                "similarity": round(hit.similarity, 6),
                "score": round(hit.score, 6),
                "box": hit.box.tolist(),
            }
            for number, hit in enumerate(hits, start=1)
        ]
        click.echo(json.dumps({"query": {"image": str(query.path), "box": list(query.box)}, **facts, "hits": found}))
    elif hits:
        out.print(_hits_table(sources, hits))
    else:
        out.print(f"Nobody was found in the {facts['frames']} frames searched.")


def _hits_table(sources: list[FrameSource], hits: list[Hit]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column("rank", justify="right")
    table.add_column("similarity", justify="right")
    table.add_column("image", overflow="fold")
    table.add_column("box x1,y1,x2,y2")
    for number, hit in enumerate(hits, start=1):
        table.add_row(str(number), f"{hit.similarity:.3f}", Text(sources[hit.frame].name), _box_text(hit.box.tolist()))
    return table


def _people_table(people: Detections) -> Any:
    from rich.table import Table

    table = Table("person", "box x1,y1,x2,y2", "score")
    for number, found in enumerate(people, start=1):
        table.add_row(str(number), _box_text(found.box.tolist()), f"{found.score:.3f}")
    return table


def _box_text(box: list[float]) -> str:
    return ",".join(f"{value:.0f}" for value in box)


def _write_page(html: Path, query: Query, sources: list[FrameSource], hits: list[Hit], facts: dict[str, Any]) -> None:
    import numpy as np

    from psarm.files import write_text
    from psarm.runtime.report import Picture, RankedPicture, search_page

    def pictures() -> Iterator[RankedPicture]:
        for hit in hits:  # read again, one at a time: a gallery does not fit in memory
            source = sources[hit.frame]
            yield RankedPicture(Picture(source.name, source.read(), hit.box), hit.similarity, hit.score)

    picture = Picture(str(query.path), query.image, np.asarray(query.box, np.float32))
    shown = {**facts, "cbgm": "yes" if facts["cbgm"] else "no"}
    notes = [f"{key}: {value}" for key, value in shown.items()]
    write_text(html, search_page(picture, pictures(), notes))
