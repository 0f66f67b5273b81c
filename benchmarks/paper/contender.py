"""One checkpoint of the suite: what is in the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psarm.benchmarks.paper.settings import NamedCheckpoint
from psarm.config import ModelConfig
from psarm.errors import CheckpointError, UsageError
from psarm.files import sha256

if TYPE_CHECKING:
    from psarm.benchmarks.engines import SearchEngine
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

    def open(self, threads: int) -> SearchEngine:
        """The model as an engine on the GPU where there is one, else on `threads` CPU threads.

        Raises:
            CheckpointError: the file is not the one that was read at the start.
        """
        from psarm.benchmarks.torch_engine import load_engine

        engine = load_engine(self.path, threads)
        if sha256(self.path) != self.sha256:
            engine.close()
            raise _changed(self.path)
        return engine

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
        CheckpointError: one cannot be loaded, or is replaced meanwhile.
        UsageError: two have the same name.
        OSError: one cannot be read.
    """
    from psarm.benchmarks.model_cost import model_cost

    content = [_read(checkpoint.path) for checkpoint in checkpoints]
    names = _names(checkpoints, [model for _, model in content])
    return [
        Contender(name, checkpoint.path, digest, model, model_cost(model))
        for name, checkpoint, (digest, model) in zip(names, checkpoints, content, strict=True)
    ]


def _read(path: Path) -> tuple[str, ModelConfig]:
    """SHA-256 and model of a file."""
    from psarm.model import load_model

    digest = sha256(path)
    model = load_model(path).config
    if sha256(path) != digest:
        raise _changed(path)
    return digest, model


def _changed(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} was replaced while the suite ran, which would mix figures of two models; run the same command again."
    )


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
