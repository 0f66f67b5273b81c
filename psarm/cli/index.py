"""`psarm index`: video and cameras into a gallery."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psarm.cli.engine_options import EXISTING, FEW_FRAMES, network_options, open_engine, quiet_decoders
from psarm.cli.gallery_times import parse_age, parse_time
from psarm.errors import GalleryError, UsageError

if TYPE_CHECKING:
    from psarm.runtime.bundle import Bundle
    from psarm.runtime.gallery.gallery import Gallery
    from psarm.runtime.indexing.events import Detect, Event
    from psarm.runtime.indexing.indexer import Indexer
    from psarm.runtime.indexing.reading import SourceReader
    from psarm.runtime.indexing.sampling import Sampling

FPS = 2.0


def parse_times(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[datetime, ...]:
    """As `parse_time`, of an option that may be repeated."""
    return tuple(time for text in value if (time := parse_time(context, parameter, text)) is not None)


@click.command()
@click.argument("bundle", type=EXISTING)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--gallery", "where", required=True, metavar="DIR", help="Made where there is none; or s3://… .")
@click.option(
    "--camera", "cameras", multiple=True, metavar="NAME", help="One for all sources, or one a source in turn."
)
@click.option("--fps", type=click.FloatRange(0, min_open=True), help=f"Frames to take a second  [default: {FPS:g}].")
@click.option("--every", type=click.IntRange(min=1), help="Or every N-th frame; 1: all.")
@click.option("--keyframes", is_flag=True, help="Or a video's keyframes: the quickest to read.")
@click.option(
    "--start",
    "starts",
    multiple=True,
    callback=parse_times,
    metavar="TIME",
    help="When a video began, such as 2026-03-01T14:30; one for all videos, or one a source  "
    "[default: as the file says].",
)
@click.option("--no-thumbnails", is_flag=True, help="A new gallery keeps no pictures of people.")
@click.option("--visits-only", is_flag=True, help="A new gallery keeps visits, and not the people of every frame.")
@click.option("--give-up-after", type=click.FloatRange(min=0), metavar="S", help="Seconds a camera may be away.")
@click.option(
    "--keep",
    callback=parse_age,
    metavar="AGE",
    help="Purge the whole gallery, by whole days, of who was seen longer ago, such as 30d: now and as the days pass.",
)
@click.option("--ray", "address", metavar="ADDRESS", help="Detect on a Ray cluster; local: on this machine's.")
@click.option("--workers", type=click.IntRange(min=1), help="With --ray, how many engines.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@network_options
def command(
    bundle: Path,
    sources: tuple[str, ...],
    where: str,
    cameras: tuple[str, ...],
    fps: float | None,
    every: int | None,
    keyframes: bool,
    starts: tuple[datetime, ...],
    no_thumbnails: bool,
    visits_only: bool,
    give_up_after: float | None,
    keep: timedelta | None,
    address: str | None,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Put the people of videos and cameras into a gallery, with a BUNDLE.

    A SOURCE is a video, a picture, a folder of pictures, a list of them (.txt), an address (rtsp://…, http://…) or a
    camera's number. What the gallery holds already is gone on with, so the same command again continues after Ctrl-C or
    a crash; cameras go on until Ctrl-C. A source that fails does not stop the others, and the exit code is then 1.

    Read docs/responsible-use.md first: a gallery of people is personal data.
    """
    from psarm.extras import require

    require("lancedb", "pyarrow", "av", "trackers", feature="psarm index", extra="gallery")
    from psarm.cli.index_display import IndexProgress, print_reports
    from psarm.runtime.backends import check_options
    from psarm.runtime.bundle import Bundle
    from psarm.runtime.indexing.indexer import Indexer
    from psarm.runtime.indexing.ray_job import check_in_parts
    from psarm.runtime.indexing.retention import Retention
    from psarm.runtime.indexing.sources import find_readers

    if workers and not address:
        raise UsageError("--workers is of a Ray job; give --ray ADDRESS or --ray local with it.")
    quiet_decoders()
    opened = Bundle.open(bundle)
    check_options(opened, options["backend"], options["precision"], here=not address)
    display = IndexProgress(alone=len(sources) == 1)
    retention = Retention(keep, display.purged) if keep is not None else None
    readers = find_readers(sources, cameras, _sampling(fps, every, keyframes), starts, give_up_after, display.note)
    if address:
        check_in_parts(readers)
    interrupted = False
    cluster = (address, options["threads"] or 1) if address else None
    with _open_gallery(where, opened, no_thumbnails, visits_only, cluster) as gallery, gallery:
        detect = _detect_on_ray(bundle, gallery, address, workers, options) if address else _detect(bundle, **options)
        indexer = Indexer(gallery, detect, on_change=display.change, notes=display.notes, retention=retention)
        try:
            with display:
                indexer.run(readers)
        except KeyboardInterrupt:
            interrupted = True
    print_reports(indexer.reports, where, display.purges, as_json)
    _end(indexer, interrupted)


def _end(indexer: Indexer, interrupted: bool) -> None:
    """Say that nothing was to be done; raises `KeyboardInterrupt` and `StreamError` for what ends with an exit code."""
    from psarm.cli.index_display import raise_failures
    from psarm.console import err

    if interrupted:
        raise KeyboardInterrupt("What was found so far is in the gallery; the same command goes on after it.")
    if not indexer.started and all(report.finished for report in indexer.reports):
        err.print("Nothing was left to do: everything is indexed.")
    raise_failures(indexer.reports)


def _sampling(fps: float | None, every: int | None, keyframes: bool) -> Sampling:
    from psarm.runtime.indexing.sampling import Sampling

    if every is None and not keyframes and fps is None:
        fps = FPS
    return Sampling(fps, every, keyframes)


@contextmanager
def _open_gallery(
    where: str, bundle: Bundle, no_thumbnails: bool, visits_only: bool, cluster: tuple[str, int] | None
) -> Iterator[Gallery]:
    """The gallery there, or a new one; raises `GalleryError` for one of another embedding space or kind.

    `cluster`: address of a Ray cluster, and threads of an engine. Everything is to do for a new gallery, so that it is
    made only where the cluster is reached; for one that is there, Ray may not be needed at all.
    """
    from psarm.console import err
    from psarm.runtime.gallery.gallery import Gallery
    from psarm.runtime.indexing.ray_job import connected

    embedding = bundle.manifest.embedding
    try:
        gallery = Gallery.open(where)
    except GalleryError:
        if "://" not in where and Path(where).exists() and (not Path(where).is_dir() or any(Path(where).iterdir())):
            raise
    else:
        gallery.check(embedding.fingerprint)
        _check_kept(gallery, where, no_thumbnails, visits_only)
        yield gallery
        return
    path = str(bundle.path.absolute())
    with connected(*cluster) if cluster else nullcontext():
        gallery = Gallery.create(
            where, embedding.fingerprint, embedding.size, path, thumbnails=not no_thumbnails, people=not visits_only
        )
        err.print(f"Made the gallery {where}.", markup=False)
        yield gallery


def _check_kept(gallery: Gallery, where: str, no_thumbnails: bool, visits_only: bool) -> None:
    """Raise `UsageError` where the gallery keeps more than is asked for."""
    for option, asked, kept, what in (
        ("--no-thumbnails", no_thumbnails, gallery.thumbnails, "thumbnails"),
        ("--visits-only", visits_only, gallery.facts.people, "the people of every frame"),
    ):
        if asked and kept:
            raise UsageError(f"{where} keeps {what} since it was made; leave {option} out, or make another gallery.")


def _detect(bundle: Path, batch: int, **options: Any) -> Detect:
    """Here, with an engine that is opened only where something is to be done."""
    from psarm.runtime.indexing.detecting import detect_with

    @contextmanager
    def detect(readers: Sequence[tuple[SourceReader, int]]) -> Generator[Iterator[Event | None]]:
        planned = [reader.source.planned for reader, _ in readers]
        few = sum(count or 0 for count in planned) <= FEW_FRAMES and None not in planned
        with (
            open_engine(bundle, **options) as engine,
            detect_with(engine, batch, requests=1 if few else None)(readers) as events,
        ):
            yield events

    return detect


def _detect_on_ray(
    bundle: Path, gallery: Gallery, address: str, workers: int | None, options: dict[str, Any]
) -> Detect:
    from psarm.runtime.indexing.ray_job import EngineOptions, RayOptions, detect_on_ray

    threads = options["threads"] or 1  # an engine; workers are what fills the cores
    engine = EngineOptions(bundle.absolute(), options["backend"], options["precision"], threads, options["conf"])
    job = RayOptions(address, workers, batch=options["batch"], thumbnails=gallery.thumbnails)
    return detect_on_ray(engine, job)
