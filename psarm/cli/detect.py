"""`psarm detect`: people in pictures and videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psarm.cli.engine_options import EXISTING, Frames, check_bundle_first, engine_options, open_engine
from psarm.errors import UsageError
from psarm.files import atomic_path, refuse_unwritable

if TYPE_CHECKING:
    from psarm.runtime import Detections
    from psarm.runtime.images import FrameSource
    from psarm.runtime.video import Frame

Row = tuple[str, int, float | None, float]  # image, people, best score, milliseconds of work


@click.command()
@click.argument("bundle", type=EXISTING)
@click.argument("paths", type=EXISTING, nargs=-1, required=True, metavar="PATH...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a frame (JSON Lines) instead of a table.")
@click.option(
    "--save",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write each frame with numbered boxes to this folder.",
)
@engine_options
def command(
    bundle: Path, paths: tuple[Path, ...], as_json: bool, save: Path | None, every: int, batch: int, **options: Any
) -> None:
    """Find every person in images with a BUNDLE.

    A PATH is a picture, a folder (searched with its subfolders) or a video. Files that cannot be read are named and
    left out, and the exit code is then 1.

    ms, or "milliseconds", is the work on a frame. Several frames may be worked on at the same time, each then slower:
    how fast all of them went is said below the table.
    """
    import time

    from psarm.console import err, out, progress

    if save:
        refuse_unwritable(save, "--save", inside=True)
    check_bundle_first(bundle, paths)
    if save:
        _refuse_searched(save, paths)
    frames = Frames(paths, every, batch)
    rows: list[Row] = []
    saver = FrameSaver(save) if save else None
    with open_engine(bundle, **options) as engine, progress() as bar:
        task = bar.add_task("Detecting", total=frames.total, visible=not as_json)
        start = time.perf_counter()
        for source, result in frames.detect(engine):
            people, milliseconds = result.detections, 1000 * sum(result.seconds.values())
            saved = {"saved": str(saver.save(source, result.frame, people))} if saver else {}
            if as_json:
                click.echo(json.dumps({**_record(source, result.frame, people, milliseconds), **saved}))
            else:
                best = float(people.scores[0]) if len(people) else None
                rows.append((source.name, len(people), best, milliseconds))
            bar.advance(task)
        taken = time.perf_counter() - start
    if rows:
        out.print(_table(rows))
    if len(rows) > 1:
        out.print(f"{len(rows)} frames in {taken:.2f} s, reading included: {len(rows) / taken:.1f} frames/s.")
    if saver:
        err.print(f"Wrote {saver.count} {'picture' if saver.count == 1 else 'pictures'} to {save}.", markup=False)
    frames.raise_if_unreadable()


class FrameSaver:
    """Writes frames with boxes to a folder, as `NAME.people.jpg`: never over the pictures that were read.

    Each box is labelled with its score after its number, the one that `psarm search --person` takes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken: set[str] = set()

    @property
    def count(self) -> int:
        """How many pictures were written."""
        return len(self._taken)

    def save(self, source: FrameSource, image: Frame, people: Detections) -> Path:
        """Write one frame atomically and return its path; frames of one name from several folders are numbered."""
        from psarm.runtime.drawing import draw_boxes, encode_jpeg

        stem = source.path.stem if source.number is None else f"{source.path.stem}_{source.number:06d}"
        name, count = f"{stem}.people.jpg", 1
        while name in self._taken:
            count += 1
            name = f"{stem}-{count}.people.jpg"
        self._taken.add(name)
        labels = [f"{number} {score:.2f}" for number, score in enumerate(people.scores, start=1)]
        drawn = draw_boxes(image, people.boxes, labels)
        with atomic_path(self.folder / name) as temporary:
            temporary.write_bytes(encode_jpeg(drawn))
        return self.folder / name


def _refuse_searched(save: Path, paths: tuple[Path, ...]) -> None:
    """Raise `UsageError` where what is written would be searched by the next run."""
    for path in paths:
        if path.is_dir() and save.resolve().is_relative_to(path.resolve()):
            raise UsageError(
                f"--save {save} lies in the searched folder {path}, so the next run would search the pictures written "
                "by this one; give a folder outside it."
            )


def _record(source: FrameSource, image: Frame, people: Detections, milliseconds: float) -> dict[str, Any]:
    return {
        "image": source.name,
        "width": image.shape[1],
        "height": image.shape[0],
        "boxes": people.boxes.tolist(),
        "scores": people.scores.tolist(),
        "milliseconds": round(milliseconds, 3),
    }


def _table(rows: list[Row]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column("image", overflow="fold")
    for title in ("people", "best score", "ms"):
        table.add_column(title, justify="right")
    for name, people, best, milliseconds in rows:
        table.add_row(Text(name), str(people), "–" if best is None else f"{best:.3f}", f"{milliseconds:.0f}")
    return table
