"""One self-contained HTML page: the query at the left, the ranked hits beside it (as in the paper's Fig. 6 and 7)."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psarm.runtime.drawing import GREEN, ORANGE, crop, draw_boxes, encode_jpeg, shrink
from psarm.runtime.report_template import CARD, NOBODY, PAGE, QUERY, STYLE

FRAME_SIDE, CROP_SIDE = 960, 320  # longest sides in the page, pixels


@dataclass(frozen=True, eq=False)
class Picture:
    """One frame of the page with a person's box."""

    name: str
    image: NDArray[np.uint8]  # [H,W,3] BGR
    box: NDArray[np.float32]  # [4] xyxy


@dataclass(frozen=True, eq=False)
class RankedPicture:
    """One hit of the page."""

    picture: Picture
    similarity: float
    score: float  # of the detection head


def search_page(query: Picture, hits: Iterable[RankedPicture], notes: Sequence[str] = ()) -> str:
    """The page as text: HTML with its style and pictures inside, nothing is loaded from elsewhere.

    Hits come best first; `notes` are short facts for the foot of the page (bundle, backend, frames searched).
    """
    cards = [_card(rank, hit) for rank, hit in enumerate(hits, start=1)]
    return PAGE.format(
        style=STYLE,
        title=f"Person search: {html.escape(query.name)}",
        heading=f"Person search: {count_words(len(cards))}",
        facts="",
        queries=query_html(query, "the query picture"),
        cards="\n".join(cards) or NOBODY,
        notes=" · ".join(html.escape(note) for note in notes),
    )


def count_words(hits: int) -> str:
    """`1 hit`, `2 hits`."""
    return f"{hits} {'hit' if hits == 1 else 'hits'}"


def query_html(picture: Picture, alt: str) -> str:
    """The person searched for, and the picture they are in."""
    return QUERY.format(
        crop=crop_html(picture, "the person searched for"),
        frame=frame_html(picture, alt, "query", ORANGE),
        name=html.escape(picture.name),
    )


def _card(rank: int, hit: RankedPicture) -> str:
    similarity = f"{hit.similarity:.3f}"
    return CARD.format(
        rank=rank,
        similarity=similarity,
        percent=round(100 * min(1.0, max(0.0, hit.similarity))),
        name=html.escape(hit.picture.name),
        box=",".join(f"{value:.0f}" for value in hit.picture.box.tolist()),
        score=f"{hit.score:.3f}",
        crop=crop_html(hit.picture, f"person at rank {rank}"),
        frame=frame_html(hit.picture, f"frame at rank {rank}", similarity, GREEN),
    )


def frame_html(picture: Picture, alt: str, label: str, colour: tuple[int, int, int]) -> str:
    """An `<img>` of the whole frame with the person's box and a short label at it."""
    image, factor = shrink(picture.image, FRAME_SIDE)
    return jpeg_html(encode_jpeg(draw_boxes(image, picture.box[None] * factor, [label], colour)), alt, "frame")


def crop_html(picture: Picture, alt: str) -> str:
    """An `<img>` of the person."""
    image, _ = shrink(crop(picture.image, picture.box), CROP_SIDE)
    return jpeg_html(encode_jpeg(image), alt, "crop")


def jpeg_html(data: bytes, alt: str, kind: str) -> str:
    """An `<img>` of class `kind` that holds a JPEG."""
    encoded = base64.b64encode(data).decode("ascii")
    return f'<img class="{kind}" alt="{html.escape(alt)}" src="data:image/jpeg;base64,{encoded}">'
