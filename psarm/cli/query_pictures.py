"""The pictures of a person to search for, and which of the people in them is meant."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psarm.errors import UsageError

if TYPE_CHECKING:
    from psarm.runtime import Detections, PersonSearch
    from psarm.runtime.report import Picture
    from psarm.runtime.video import Frame

Box = tuple[float, float, float, float]

SMALL, FILLED = 600, 0.5
"""Longer side in pixels, below which a picture was cut out if its person takes more than such a share of it."""


@dataclass(frozen=True, eq=False)
class Query:
    """One picture with the person to search for."""

    path: Path
    image: Frame
    box: Box  # xyxy in pixels of the picture

    @property
    def picture(self) -> Picture:
        """For a page."""
        import numpy as np

        from psarm.runtime.report import Picture

        return Picture(str(self.path), self.image, np.asarray(self.box, np.float32))

    @property
    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {"image": str(self.path), "box": list(self.box)}


@dataclass(frozen=True)
class Choice:
    """Who is meant in the query pictures, as the options say."""

    boxes: tuple[Box, ...]
    people: tuple[int, ...]
    drawing: Path | None
    """Where the numbered people of a picture go that shows several, or of which one is chosen by number."""
    as_json: bool


def parse_boxes(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Box, ...]:
    """`x1,y1,x2,y2` → four numbers, for each."""
    return tuple(_parse_box(value) for value in values)


def _parse_box(value: str) -> Box:
    try:
        x1, y1, x2, y2 = (float(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not of the form x1,y1,x2,y2, such as 110,40,190,260.") from error
    return x1, y1, x2, y2


def check_choice(paths: tuple[Path, ...], choice: Choice) -> None:
    """Raise `UsageError` unless there is one --box or one --person a picture, or none at all.

    Also where a query is a video, and where the drawing of the people would take the place of a query, or could not be
    one of all that is asked for.
    """
    from psarm.runtime.video import VIDEO_SUFFIXES

    for path in paths:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            raise UsageError(f"The query {path} is a video; give a picture, such as one frame of it with the person.")
    if choice.boxes and choice.people:
        raise UsageError("--box and --person both choose the person; give one of them.")
    for name, values in (("--box", choice.boxes), ("--person", choice.people)):
        if values and len(values) != len(paths):
            raise UsageError(f"{len(values)} {name} came for {len(paths)} --query; give one for each, in their order.")
    if choice.drawing and choice.boxes:
        raise UsageError("--save-people draws the people that --person chooses from; leave it out with --box.")
    if choice.drawing and choice.people and len(paths) > 1:
        raise UsageError(f"--save-people draws one picture, and {len(paths)} --query came; leave it out.")
    if choice.drawing and choice.drawing.resolve() in {path.resolve() for path in paths}:
        raise UsageError(f"The query {choice.drawing} would be overwritten by --save-people; give another name.")


def read_queries(engine: PersonSearch, paths: tuple[Path, ...], choice: Choice) -> list[Query]:
    """The person in each picture; raises `UsageError` where it is not clear who is meant, `ImageError`."""
    from psarm.cli.engine_options import quiet_decoders
    from psarm.runtime import read_image

    quiet_decoders()
    queries = []
    for index, path in enumerate(paths):
        image = read_image(path)
        if choice.boxes:
            box = choice.boxes[index]
            _check_box(path, image, box)
        else:
            box = _chosen(engine, path, image, choice, choice.people[index] if choice.people else None)
        _advise_on_context(path, image, box)
        queries.append(Query(path, image, box))
    return queries


def _chosen(engine: PersonSearch, path: Path, image: Frame, choice: Choice, person: int | None) -> Box:
    """The box of the only person in a picture, or of the one with the number asked for."""
    from psarm.console import err

    people = engine.detect(image)
    if len(people) == 0:
        raise UsageError(f"No person was found in the query {path}; say where the person is with --box x1,y1,x2,y2.")
    if person is None and len(people) > 1:
        raise _several_people(path, image, people, choice)
    if person is not None and choice.drawing is not None:
        _draw(choice.drawing, image, people)
        err.print(f"Wrote {choice.drawing}.", markup=False)
    if person is not None and person > len(people):
        raise UsageError(f"--person is {person}, but people found in the query {path} are numbered 1 to {len(people)}.")
    x1, y1, x2, y2 = people.boxes[(person or 1) - 1].tolist()
    return x1, y1, x2, y2


def _check_box(path: Path, image: Frame, box: Box) -> None:
    """Raise `UsageError` for a box without a pixel of the picture; tell of one that reaches over its border."""
    from psarm.console import err
    from psarm.runtime.validators import check_person_boxes

    height, width = image.shape[:2]
    ((x1, y1, x2, y2),) = check_person_boxes([box], width, height).tolist()
    if min(x1, y1) < 0 or x2 > width or y2 > height:
        text = box_text([x1, y1, x2, y2])
        err.print(f"Note: the box {text} reaches outside the {width}x{height} picture {path}.", markup=False)


def _advise_on_context(path: Path, image: Frame, box: Box) -> None:
    """Tell of a picture that was cut out: it is enlarged as a whole, to a size that nobody has in a frame."""
    from psarm.console import err

    height, width = image.shape[:2]
    x1, y1, x2, y2 = box
    filled = (min(x2, width) - max(x1, 0)) * (min(y2, height) - max(y1, 0)) / (width * height)
    if max(height, width) < SMALL and filled > FILLED:
        err.print(
            f"Note: the person fills {filled:.0%} of the {width}x{height} picture {path}; give the whole frame that it "
            "was cut out of, with --box or --person, for better hits.",
            markup=False,
        )


def _several_people(path: Path, image: Frame, people: Detections, choice: Choice) -> UsageError:
    """List the people of the query, draw their numbers where asked to, and return the error to raise."""
    from psarm.console import err

    if choice.as_json:
        listed = [
            {"person": number, "box": found.box.tolist(), "score": round(found.score, 6)}
            for number, found in enumerate(people, start=1)
        ]
        click.echo(json.dumps({"query": str(path), "people": listed}))
    else:
        err.print(_people_table(people))
    listed_in = "in the JSON" if choice.as_json else "above"
    if choice.drawing is None:
        hint = "; --save-people PICTURE.jpg draws the numbers"
    else:
        _draw(choice.drawing, image, people)
        listed_in, hint = f"{listed_in}, drawn in {choice.drawing}", ""
    return UsageError(
        f"The query {path} shows {len(people)} people (listed {listed_in}); choose one with --person N or --box{hint}."
    )


def _draw(target: Path, image: Frame, people: Detections) -> None:
    """Write the picture with every person's number."""
    from psarm.files import atomic_path
    from psarm.runtime.drawing import draw_boxes, encode_jpeg

    drawn = draw_boxes(image, people.boxes, [str(number) for number in range(1, len(people) + 1)])
    with atomic_path(target) as temporary:
        temporary.write_bytes(encode_jpeg(drawn))


def _people_table(people: Detections) -> Any:
    from rich.table import Table

    table = Table("person", "box x1,y1,x2,y2", "score")
    for number, found in enumerate(people, start=1):
        table.add_row(str(number), box_text(found.box.tolist()), f"{found.score:.3f}")
    return table


def box_text(box: list[float]) -> str:
    """`110,40,190,260`."""
    return ",".join(f"{value:.0f}" for value in box)
