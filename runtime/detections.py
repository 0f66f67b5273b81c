"""What the engine finds in one frame.

n people, D embedding dimensions. Boxes are float32 [n,4] xyxy in frame pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from psarm.errors import UsageError
from psarm.runtime.validators import check_boxes, check_embeddings, check_scores

if TYPE_CHECKING:
    import supervision

Index = slice | NDArray[np.bool_] | NDArray[np.integer[Any]] | list[int] | list[bool]


class Person(NamedTuple):
    """One detected person: one row of `Detections`."""

    box: NDArray[np.float32]  # [4] xyxy
    score: float
    embedding: NDArray[np.float32]  # [D]


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """People of one frame, best score first as the engine returns them.

    Behaves like a list of `Person`: `len`, iteration and `detections[0]` give people, while a slice, a mask or an
    array of indices gives `Detections`. Raises `psarm.errors.UsageError` when the arrays do not fit together.
    """

    boxes: NDArray[np.float32]
    """[n,4] xyxy in frame pixels."""
    scores: NDArray[np.float32]
    """[n] in 0..1, of being a person."""
    embeddings: NDArray[np.float32]
    """[n,D]: of length `scores` from `PersonSearch.detect`, of unit length from `PersonSearch.detect_around`."""

    def __post_init__(self) -> None:
        boxes = check_boxes(self.boxes)
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "scores", check_scores(self.scores, len(boxes)))
        object.__setattr__(self, "embeddings", check_embeddings(self.embeddings, len(boxes)))

    @classmethod
    def empty(cls, embedding_dim: int) -> Detections:
        """Nobody."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, embedding_dim), np.float32))

    def __repr__(self) -> str:
        scores = ", ".join(f"{score:.3f}" for score in self.scores[:5])
        more = ", …" if len(self) > 5 else ""
        return f"Detections(people={len(self)}, scores=[{scores}{more}], embedding_dim={self.embeddings.shape[1]})"

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[Person]:
        for row in range(len(self)):
            yield self[row]

    @overload
    def __getitem__(self, index: int) -> Person: ...
    @overload
    def __getitem__(self, index: Index) -> Detections: ...
    def __getitem__(self, index: int | Index) -> Person | Detections:
        """An integer gives one `Person`; a slice, boolean mask [n] or array of indices gives `Detections`."""
        if isinstance(index, (int, np.integer)):
            return Person(self.boxes[index], float(self.scores[index]), self.embeddings[index])
        rows: Any = index if isinstance(index, slice) else _rows(index)
        return Detections(self.boxes[rows], self.scores[rows], self.embeddings[rows])

    def to_dict(self) -> dict[str, list[Any]]:
        """Plain lists under `boxes`, `scores` and `embeddings`, ready for JSON."""
        return {
            "boxes": self.boxes.tolist(),
            "scores": self.scores.tolist(),
            "embeddings": self.embeddings.tolist(),
        }

    def to_supervision(self) -> supervision.Detections:
        """As `supervision.Detections`: class 0 for everybody, embeddings under `data["embedding"]`.

        Raises `UsageError` when the supervision package is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise UsageError(
                f"to_supervision() needs the supervision package ({error}); install it with: pip install supervision."
            ) from error
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=np.zeros(len(self), dtype=int),
            data={"embedding": self.embeddings},
        )


def _rows(index: Any) -> NDArray[Any]:
    rows = np.asarray(index)
    # An empty list has no dtype of its own, and numpy would make it float.
    return rows.astype(np.int64) if rows.size == 0 and rows.dtype != np.bool_ else rows
