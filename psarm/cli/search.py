"""`psarm search`: one person in pictures and videos, or in a gallery."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psarm.cli.engine_options import EXISTING, Frames, check_bundle_first, engine_options, open_engine
from psarm.cli.gallery_path import GalleryPath
from psarm.cli.gallery_times import parse_age, parse_time
from psarm.cli.output_files import check_jpeg, check_page
from psarm.cli.query_pictures import Box, Choice, Query, box_text, check_choice, parse_boxes, read_queries
from psarm.errors import UsageError

if TYPE_CHECKING:
    from psarm.runtime import Detections, Hit, PersonSearch
    from psarm.runtime.images import FrameSource

OUT = click.Path(dir_okay=False, path_type=Path)
PATHS_ONLY = frozenset(["every", "batch"])
GALLERY_ONLY = frozenset(
    ["cameras", "sources", "begin", "end", "last", "min_score", "frames", "approximate", "audit_log"]
)


@click.command()
@click.argument("bundle", type=EXISTING, required=False, metavar="[BUNDLE]")
@click.argument("paths", type=EXISTING, nargs=-1, metavar="[PATH]...")
@click.option(
    "--query",
    "query_paths",
    type=EXISTING,
    required=True,
    multiple=True,
    help="Picture with the person to search for; several people are listed. In a gallery, several pictures of one "
    "person are searched for together: give --query again.",
)
@click.option(
    "--box",
    "boxes",
    callback=parse_boxes,
    multiple=True,
    metavar="x1,y1,x2,y2",
    help="The person's box in the query, in pixels; with several --query, one for each, in their order.",
)
@click.option(
    "--person",
    "people",
    type=click.IntRange(min=1),
    multiple=True,
    help="Or a person's number, as listed without it.",
)
@click.option(
    "--save-people",
    type=OUT,
    help="Where a query shows several people, or with --person: draw their numbers to this picture.",
)
@click.option("--top-k", type=click.IntRange(min=1), default=10, show_default=True, help="Hits to show.")
@click.option("--cbgm", is_flag=True, help="Let the people around the query help (context bipartite graph matching).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option("--html", type=OUT, help="Write a page with pictures to this file.")
@click.option(
    "--gallery",
    type=GalleryPath(),
    metavar="DIR",
    help="Search in this gallery, a directory or s3://… (see psarm index).",
)
@click.option("--camera", "cameras", multiple=True, metavar="NAME", help="In a gallery: of this camera; repeatable.")
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="NAME",
    help="In a gallery: in this source, by the end of its path; repeatable.",
)
@click.option(
    "--from",
    "begin",
    callback=parse_time,
    metavar="TIME",
    help="In a gallery: seen at this time or later, such as 2026-03-01T14:30; local time unless it names its zone.",
)
@click.option("--to", "end", callback=parse_time, metavar="TIME", help="In a gallery: seen before this time.")
@click.option("--last", callback=parse_age, metavar="AGE", help="In a gallery: seen in the last 30m, 2h, 7d, …")
@click.option("--min-score", type=click.FloatRange(0, 1), help="In a gallery: detected with this score or a higher.")
@click.option("--frames", is_flag=True, help="In a gallery: list people of single frames instead of visits.")
@click.option("--approximate", is_flag=True, help="In a gallery: use the index of psarm gallery index; may miss some.")
@click.option("--audit-log", type=OUT, help="In a gallery: write the line on this query to this file, not to its own.")
@engine_options
@click.pass_context
def command(
    context: click.Context,
    /,
    bundle: Path | None,
    paths: tuple[Path, ...],
    query_paths: tuple[Path, ...],
    boxes: tuple[Box, ...],
    people: tuple[int, ...],
    save_people: Path | None,
    top_k: int,
    cbgm: bool,
    as_json: bool,
    html: Path | None,
    gallery: str | None,
    every: int,
    batch: int,
    **options: Any,
) -> None:
    """Find one person in images with a BUNDLE, or in a gallery.

    A PATH is a picture, a folder (searched with its subfolders) or a video; the query picture itself is left out.
    Without --box the query's only person is taken. Files that cannot be read are named and left out, and the exit
    code is then 1.

    With --gallery what psarm index put there is searched instead, by visits. BUNDLE is the one that the gallery was
    made with unless another is given.
    """
    choice = Choice(boxes, people, save_people, as_json)
    check_choice(query_paths, choice)
    check_page("--html", html)
    check_jpeg("--save-people", save_people)
    if html and save_people and html.resolve() == save_people.resolve():
        raise UsageError("--html and --save-people write a file each; give them different names.")
    engine_settings = {name: options.pop(name) for name in ("backend", "precision", "threads", "conf")}
    if gallery is not None:
        _refuse_given(context, PATHS_ONLY, "PATH")
        if paths:
            raise UsageError(f"{paths[0]} came beside --gallery; search in files or in a gallery.")
        from psarm.cli.gallery_search import GallerySearch, search_in_gallery

        search = GallerySearch(gallery, bundle, query_paths, choice, top_k, cbgm, html, **_times(options))
        search_in_gallery(search, engine_settings)
        return
    bundle = _check_paths(context, bundle, paths, query_paths)
    frames = Frames(paths, every, batch, skip=query_paths[0])
    if not frames.files:
        raise UsageError(f"Apart from the query {query_paths[0]} itself, nothing is left to search; give others.")
    with open_engine(bundle, **engine_settings) as engine:
        _search_frames(engine, frames, query_paths, choice, top_k, cbgm, html)
    frames.raise_if_unreadable()


def _check_paths(
    context: click.Context, bundle: Path | None, paths: tuple[Path, ...], query_paths: tuple[Path, ...]
) -> Path:
    """The bundle; raises `UsageError` for what does not fit a search in files."""
    _refuse_given(context, GALLERY_ONLY, "--gallery")
    if bundle is None or not paths:
        missing = "BUNDLE" if bundle is None else "PATH..."
        raise click.UsageError(f"Missing argument '{missing}' (or --gallery DIR to search in a gallery).", context)
    if len(query_paths) > 1:
        raise UsageError("Several --query pictures of one person are for a --gallery; give one.")
    check_bundle_first(bundle, paths)
    return bundle


def _refuse_given(context: click.Context, names: frozenset[str], needed: str) -> None:
    """Raise `UsageError` for the first option of `names` that was given: it does nothing without what is `needed`."""
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in names and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise UsageError(f"{parameter.opts[0]} works with {needed} only; leave it out.")


def _times(filters: dict[str, Any]) -> dict[str, Any]:
    """--last as --from; raises `UsageError` where they contradict one another."""
    last: timedelta | None = filters.pop("last")
    begin: datetime | None = filters["begin"]
    end: datetime | None = filters["end"]
    if last is not None and begin is not None:
        raise UsageError("--last and --from both say where to begin; give one of them.")
    if last is not None:
        begin = datetime.now().astimezone() - last
    if begin is not None and end is not None and begin >= end:
        raise UsageError(f"The search would begin at {begin.isoformat()} and end at {end.isoformat()}, before it.")
    return {**filters, "begin": begin}


def _search_frames(
    engine: PersonSearch,
    frames: Frames,
    query_paths: tuple[Path, ...],
    choice: Choice,
    top_k: int,
    cbgm: bool,
    html: Path | None,
) -> None:
    """Detect the people of the frames, rank them and show the best."""
    from psarm.console import err
    from psarm.runtime import rank

    (query,) = read_queries(engine, query_paths, choice)
    embedding = engine.embed(query.image, [query.box])[0]
    around = engine.detect_around(query.image, query.box) if cbgm else None
    sources, people = _detect(engine, frames)
    hits = rank(embedding, people, top_k, around)
    facts = _facts(engine, len(sources), sum(map(len, people)), cbgm)
    _print(query, sources, hits, facts, choice.as_json)
    if html:
        _write_page(html, query, sources, hits, facts)
        err.print(f"Wrote {html}.", markup=False)


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


def _facts(engine: PersonSearch, frames: int, people: int, cbgm: bool) -> dict[str, Any]:
    return {
        "bundle": str(engine.bundle.path),
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
        click.echo(json.dumps({"query": query.record, **facts, "hits": found}))
    elif hits:
        out.print(_hits_table(sources, hits))
    else:
        searched = "frame" if facts["frames"] == 1 else f"{facts['frames']} frames"
        out.print(f"Nobody was found in the {searched} searched.")


def _hits_table(sources: list[FrameSource], hits: list[Hit]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column("rank", justify="right")
    table.add_column("similarity", justify="right")
    table.add_column("image", overflow="fold")
    table.add_column("box x1,y1,x2,y2")
    for number, hit in enumerate(hits, start=1):
        table.add_row(str(number), f"{hit.similarity:.3f}", Text(sources[hit.frame].name), box_text(hit.box.tolist()))
    return table


def _write_page(html: Path, query: Query, sources: list[FrameSource], hits: list[Hit], facts: dict[str, Any]) -> None:
    from psarm.files import write_text
    from psarm.runtime.report import Picture, RankedPicture, search_page

    def pictures() -> Iterator[RankedPicture]:
        for hit in hits:  # read again, one at a time: a gallery does not fit in memory
            source = sources[hit.frame]
            yield RankedPicture(Picture(source.name, source.read(), hit.box), hit.similarity, hit.score)

    shown = {**facts, "cbgm": "yes" if facts["cbgm"] else "no"}
    notes = [f"{key}: {value}" for key, value in shown.items()]
    write_text(html, search_page(query.picture, pictures(), notes))
