"""From a released `.pth` file to a checkpoint of ours, with an account of every name in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from psarm.errors import CheckpointError, UsageError
from psarm.model.checkpoint import Checkpoint, save_checkpoint
from psarm.model.released import COUNTER, HEADER, Released, looks_released, read_released
from psarm.model.weights_file import WeightsFile, read_weights

SUFFIX = ".safetensors"
DATASETS = {(5532, 5000): "CUHK-SYSU", (482, 500): "PRW"}
"""Whose sizes the released OIM tables have: identities, rows of the queue."""

# The first prefix that fits.
_PARTS = {
    "backbone": ("backbone.",),
    "RPN": ("rpn.",),
    "detection head: ARM": ("roi_heads.box_head.arm.",),
    "detection head": ("roi_heads.box_head.", "roi_heads.faster_rcnn_predictor."),
    "re-id head: ARM": ("roi_heads.reid_head.arm.",),
    "re-id head": ("roi_heads.reid_head.", "roi_heads.box_predictor."),
    "norm-aware embedding": ("roi_heads.embedding_head.",),
    "OIM tables": ("roi_heads.reid_loss.",),
}
_TRAINING_STATE = ("optimizer", "lr_scheduler", "epoch")


@dataclass(frozen=True)
class Part:
    """The tensors of one part of the model."""

    name: str
    read: int
    renamed: int
    added: int
    """Not in the file, 0 in the checkpoint."""
    written: int
    numbers: int
    """Elements of the tensors written."""


@dataclass(frozen=True)
class Conversion:
    """What was recognised, and what became of every name."""

    source: Path
    output: Path
    released: Released
    stored_as: tuple[str, ...]
    epoch: int | None
    """Which epoch the file says it was saved after, counted from 0 as in the released code."""
    left_out: dict[str, str]
    """Entries beside `model` that were not converted, and why."""

    @property
    def dataset_sizes(self) -> str | None:
        """The data set whose released tables have these sizes; another's may, too."""
        config = self.released.config
        return DATASETS.get((config.num_identities, config.queue_size))

    @property
    def parts(self) -> list[Part]:
        """Counts of each part of the model that has any tensors."""
        members: dict[str, list[str]] = {name: [] for name in _PARTS}
        for name in self.released.state:
            members[_part_of(name)].append(name)
        return [self._count(part, names) for part, names in members.items() if names]

    @property
    def total(self) -> Part:
        """Counts of the whole model."""
        return self._count("all", list(self.released.state))

    @property
    def added(self) -> dict[str, str]:
        """What the checkpoint has and the file has not, and why."""
        added = self.released.added
        counters = [name for name in added if name.endswith(COUNTER)]
        reasons = {HEADER: "the released code does not store where its queue goes on; it starts again at row 0"}
        if counters:
            reasons[f"{len(counters)} x *{COUNTER}"] = "the file has none; only training would count on"
        return reasons

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        config = self.released.config
        return {
            "source": str(self.source),
            "output": str(self.output),
            "variant": config.variant,
            "arm_layout": config.arm_layout,
            "identities": config.num_identities,
            "queue": config.queue_size,
            "sizes_of": self.dataset_sizes,
            "torchvision": "<0.13" if self.released.old_torchvision else ">=0.13",
            "data_parallel": self.released.parallel,
            "epoch": self.epoch,
            "stored_as": list(self.stored_as),
            "parts": [vars(part) for part in [*self.parts, self.total]],
            "names": {theirs: ours for ours, theirs in self.released.names.items()},
            "added": self.added,
            "left_out": self.left_out,
        }

    def _count(self, part: str, names: list[str]) -> Part:
        theirs = self.released.names
        read = [name for name in names if name in theirs]
        return Part(
            part,
            len(read),
            sum(theirs[name] != name for name in read),
            len(names) - len(read),
            len(names),
            sum(self.released.state[name].numel() for name in names),
        )


def convert_released(source: str | Path, output: str | Path, overwrite: bool = False) -> Conversion:
    """Write the released SeqNet or PS-ARM file `source` as our checkpoint `output`, a .safetensors file.

    Numbers become float32: float16 and bfloat16 exactly, float64 rounded. Raises UsageError where `output` cannot be
    written to and CheckpointError where `source` is anything but a released file; nothing is written then.
    """
    source, output = Path(source), Path(output)
    _check_target(source, output, overwrite)
    file = read_weights(source)
    _check_kind(file, source)
    released = read_released(file.state, str(source))
    # A tensor in a pickle may be a part of a larger one, or the same as another.
    state = {name: value.clone(memory_format=torch.contiguous_format) for name, value in released.state.items()}
    save_checkpoint(Checkpoint(released.config, state, None), output)
    epoch = file.about.get("epoch")
    return Conversion(
        source,
        output,
        released,
        file.stored_as,
        epoch if isinstance(epoch, int) else None,
        {str(name): _why_left_out(name, value) for name, value in file.about.items()},
    )


def _check_target(source: Path, output: Path, overwrite: bool) -> None:
    if output.is_dir():
        raise UsageError(f"{output} is a folder; give the file to write, such as {output / source.stem}{SUFFIX}.")
    if output.suffix != SUFFIX:
        raise UsageError(f"{output} does not end in {SUFFIX}, which is what psarm convert writes; give such a name.")
    if not output.exists():
        return
    if source.exists() and source.samefile(output):
        raise UsageError(f"{output} is the file to convert; give another name for the result.")
    if not overwrite:
        raise UsageError(f"{output} exists already; replace it with --overwrite or give another name.")


def _check_kind(file: WeightsFile, source: Path) -> None:
    ours = "a checkpoint" if "psarm" in file.about else "a training state" if "config" in file.about else None
    if ours is not None and not looks_released(file.state):
        raise CheckpointError(
            f"{source} is {ours} of psarm and needs no conversion; psarm export and psarm.load_model take it as it is."
        )
    if file.kind == "safetensors":
        raise CheckpointError(
            f"{source} is a safetensors file, and the released SeqNet and PS-ARM are .pth files; give one of those."
        )
    if not looks_released(file.state):
        raise CheckpointError(
            f"{source} holds a model of another architecture (first parameter: {next(iter(file.state))}); psarm "
            "convert takes the released SeqNet and PS-ARM files."
        )


def _part_of(name: str) -> str:
    return next(part for part, prefixes in _PARTS.items() if name.startswith(prefixes))


def _why_left_out(name: Any, value: Any) -> str:
    if name in _TRAINING_STATE:
        return "of the training, which cannot be resumed here"
    kind = "a tensor" if isinstance(value, Tensor) else f"of type {type(value).__name__}"
    return f"{kind}, no part of the released model"
