"""One checkpoint of the suite: what is in the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psarm.benchmarks.paper.settings import NamedCheckpoint
from psarm.config import ModelConfig
from psarm.errors import UsageError
from psarm.files import sha256

if TYPE_CHECKING:
    from psarm.benchmarks.model_cost import Cost


@dataclass(frozen=True)
class Contender:
    """A checkpoint with its name, content and cost."""

    name: str
    path: Path
    sha256: str
    """Of the file."""
    model: ModelConfig
    cost: Cost

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        macs = {**asdict(self.cost.macs), "total": self.cost.macs.total}
        keys = ("variant", "arm_layout", "backbone", "width", "min_size", "max_size")
        return {
            "name": self.name,
            "path": str(self.path),
            "sha256": self.sha256,
            "model": {**{key: getattr(self.model, key) for key in keys}, "roi_size": list(self.model.roi_shape)},
            "parameters": self.cost.parameters,
            "macs": macs,
        }


def read_contenders(checkpoints: Sequence[NamedCheckpoint]) -> list[Contender]:
    """Read every checkpoint, strictly, before anything is measured.

    Raises:
        CheckpointError: one cannot be loaded.
        UsageError: two have the same name.
    """
    from psarm.benchmarks.model_cost import model_cost
    from psarm.model import load_model

    models = [load_model(checkpoint.path).config for checkpoint in checkpoints]
    names = _names(checkpoints, models)
    return [
        Contender(name, checkpoint.path, sha256(checkpoint.path), model, model_cost(model))
        for name, checkpoint, model in zip(names, checkpoints, models, strict=True)
    ]


def _names(checkpoints: Sequence[NamedCheckpoint], models: Sequence[ModelConfig]) -> list[str]:
    short = [given.name or model.variant for given, model in zip(checkpoints, models, strict=True)]
    names = [
        given.name or (name if short.count(name) == 1 else f"{name} {given.path.stem}")
        for given, name in zip(checkpoints, short, strict=True)
    ]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(f"Two checkpoints would both be called {twice[0]}; give them names: --checkpoint NAME=CKPT.")
    return names
