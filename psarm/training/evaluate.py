"""Run a torch model over the test split of a data set, and score what it finds.

Images go through the model one by one, at full size, as the published figures were measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from psarm.data.scenes import read_scenes
from psarm.data.types import PersonSearchDataset
from psarm.data.workers import dead_workers_explained
from psarm.evaluation.collect import Share, collect_share, put_together
from psarm.evaluation.protocol import SearchProtocol
from psarm.evaluation.scoring import Metrics, score_detections
from psarm.evaluation.types import Floating, ImageDetections
from psarm.model.person_search import PersonSearchModel


def evaluate(
    model: PersonSearchModel,
    dataset: PersonSearchDataset,
    cbgm: bool = False,
    workers: int = 0,
    process: int = 0,
    processes: int = 1,
) -> Metrics | None:
    """Detection and search metrics (default gallery) of a model on the test split; it is left in eval mode.

    Several processes, all of which call this, share the images; the result equals that of one.

    Args:
        model: on the device to run on.
        dataset: its gallery frames and queries are read.
        cbgm: also search with context matching, k1 and k2 as the data set has them.
        workers: processes that decode images, beside each of `processes`.
        process: which process this is.
        processes: how many there are; where more than one, those of torch's default process group.

    Returns:
        The metrics; None in all processes but the first.

    Raises:
        DataError: there is nothing to measure, an image cannot be read, or a process that reads images died. Of several
            processes only the one that met the fault raises.
    """

    def load(paths: Sequence[Path]) -> Iterator[Tensor]:
        return read_scenes(paths, workers)

    protocol = SearchProtocol.from_dataset(dataset)
    title = "evaluating" if process == 0 else None
    with dead_workers_explained():
        share = collect_share(ModelEngine(model.eval()), dataset, load, cbgm, title, process, processes)
    if processes == 1:
        return score_detections(protocol, put_together(dataset, [share]))
    shares: list[Share] | None = [share] * processes if process == 0 else None  # to be overwritten, in order of ranks
    dist.gather_object(share, shares)
    return score_detections(protocol, put_together(dataset, shares)) if shares is not None else None


class ModelEngine:
    """A `psarm.evaluation.collect.Engine` over a model in eval mode; images are uint8 [3,h,w] RGB."""

    def __init__(self, model: PersonSearchModel) -> None:
        self.model = model
        self.device = next(model.parameters()).device

    def detect(self, image: Tensor, /) -> ImageDetections:
        """Everybody, best first; embeddings weighted by the score."""
        return _to_numpy(self.model.detect([self._prepared(image)])[0])

    def embed(self, image: Tensor, boxes: NDArray[Any], /) -> Floating:
        """Unit embeddings [n,D] of boxes [n,4] xyxy."""
        [embeddings] = self.model.embed([self._prepared(image)], [self._boxes(boxes)])
        found: Floating = embeddings.cpu().numpy()
        return found

    def detect_around(self, image: Tensor, box: NDArray[Any], /) -> ImageDetections:
        """As `detect`, the given box [4] first with score 1; embeddings not weighted."""
        return _to_numpy(self.model.detect_around([self._prepared(image)], self._boxes(box[None]))[0])

    def _prepared(self, image: Tensor) -> Tensor:
        return image.to(self.device).float().div(255)

    def _boxes(self, boxes: NDArray[Any]) -> Tensor:
        return torch.from_numpy(boxes.astype(np.float32)).to(self.device)


def _to_numpy(people: dict[str, Tensor]) -> ImageDetections:
    return ImageDetections(*(people[key].cpu().numpy() for key in ("boxes", "scores", "embeddings")))
