"""One self-contained HTML page of what a search in a gallery found: query pictures at the left, hits beside them."""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from psarm.runtime import report_template
from psarm.runtime.drawing import GREEN, WHITE
from psarm.runtime.gallery.page_template import CARD, FACT, NOBODY, NOTHING, PLAY, STYLE, VERDICT
from psarm.runtime.report import Picture, count_words, crop_html, frame_html, jpeg_html, query_html

MARGIN_S = 2.0
"""So much of the video is played before and after a visit."""


@dataclass(frozen=True)
class Moment:
    """A part of a video file that can be played."""

    path: Path
    start_s: float
    end_s: float
    place: str
    """For people: `01:05–01:20`."""

    @property
    def link(self) -> str:
        """Address that browsers play from the moment on, and stop after it."""
        return f"{self.path.absolute().as_uri()}#t={self._from:.1f},{self.end_s + MARGIN_S:.1f}"

    @property
    def command(self) -> str:
        """The same for a shell."""
        duration = f"{self.end_s + MARGIN_S - self._from:.1f}"
        return shlex.join(["ffplay", "-autoexit", "-ss", f"{self._from:.1f}", "-t", duration, str(self.path)])

    @property
    def _from(self) -> float:
        return max(0.0, self.start_s - MARGIN_S)


@dataclass(frozen=True, eq=False)
class Card:
    """One hit of the page: a visit, or a person in a frame."""

    similarity: float
    camera: str
    source: str
    when: str
    """For people."""
    detail: str
    """Short facts."""
    box: NDArray[np.float32]  # [4] xyxy in pixels of `frame`
    frame: NDArray[np.uint8] | str
    """[H,W,3] BGR, or why it is not shown."""
    thumbnail: bytes | None = None
    """JPEG of the person; None: cut out of `frame`."""
    moment: Moment | None = None
    unlikely: str = ""
    """Why it is probably not a match; such hits get a label and a border, and keep their colours: those of clothes."""


def gallery_page(
    gallery: str,
    queries: Sequence[Picture],
    cards: Iterable[Card],
    facts: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> str:
    """The page as text: HTML with its style and pictures inside, nothing is loaded from elsewhere.

    Args:
        gallery: its name.
        queries: pictures of the person searched for.
        cards: best first; they are taken one at a time.
        facts: sentences for the head of the page, on what was searched and what the hits mean.
        notes: short ones for its foot.
    """
    shown = [_card(rank, card) for rank, card in enumerate(cards, start=1)]
    name = f"Person search in {html.escape(gallery)}"
    return report_template.PAGE.format(
        style=report_template.STYLE + STYLE,
        title=f"{name}: {html.escape(', '.join(Path(query.name).name for query in queries))}",
        heading=f"{name}: {count_words(len(shown))}",
        facts="".join(FACT.format(text=html.escape(fact)) for fact in facts),
        queries="\n".join(query_html(query, "a query picture") for query in queries),
        cards="\n".join(shown) or NOBODY,
        notes=" · ".join(html.escape(note) for note in notes),
    )


def _card(rank: int, card: Card) -> str:
    similarity = f"{card.similarity:.3f}"
    crop, frame = _views(rank, card, similarity)
    return CARD.format(
        kind=' class="unlikely"' if card.unlikely else "",
        rank=rank,
        similarity=similarity,
        percent=round(100 * min(1.0, max(0.0, card.similarity))),
        verdict=VERDICT.format(text=html.escape(card.unlikely)) if card.unlikely else "",
        when=html.escape(card.when),
        camera=html.escape(card.camera),
        play="" if card.moment is None else _play(card.moment),
        source=html.escape(card.source),
        detail=html.escape(card.detail),
        crop=crop,
        frame=frame,
    )


def _views(rank: int, card: Card, label: str) -> tuple[str, str]:
    """The person and the whole frame."""
    alt = f"person at rank {rank}"
    if isinstance(card.frame, str):
        frame, crop = NOTHING.format(kind="", text=html.escape(card.frame)), ""
    else:
        picture = Picture(card.source, card.frame, card.box)
        frame = frame_html(picture, f"frame at rank {rank}", label, WHITE if card.unlikely else GREEN)
        crop = crop_html(picture, alt) if card.thumbnail is None else ""
    if card.thumbnail is not None:
        crop = jpeg_html(card.thumbnail, alt, "crop")
    return crop or NOTHING.format(kind=" crop", text="no picture"), frame


def _play(moment: Moment) -> str:
    return PLAY.format(
        link=html.escape(moment.link), place=html.escape(moment.place), command=html.escape(moment.command)
    )
