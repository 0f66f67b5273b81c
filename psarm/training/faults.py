"""What stops a training, in one sentence: memory, processes that read images, and other processes of the training.

With several processes a fault mostly meets one of them. That one says it, as a `ProcessFault`; the others lose their
connection to it and are ended by torchrun.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from psarm.config import Config, ModelConfig
from psarm.data.workers import dead_workers_explained
from psarm.errors import PsarmError, TrainingError, UsageError

_CPU_MEMORY = re.compile(r"can't allocate memory|not enough memory: you tried to allocate")
_NOT_DETERMINISTIC = re.compile(r"^(\S+) does not have a deterministic implementation")
_LOST = re.compile(
    r"Connection (closed|reset) by (remote )?peer|Broken pipe|Timed out waiting"
    r"|gloo/transport/tcp/(pair|unbound_buffer)|ncclRemoteError|remote process exited|NCCL communicator was aborted"
)
_LAST_ERROR = re.compile(r"^Last error:\n(.+)", re.MULTILINE)  # what NCCL says, below what torch says of it


class Diverged(TrainingError):
    """A loss or gradient is not finite; all processes know."""


class ProcessFault(TrainingError):
    """One of several processes failed, the others do not know why; the message names it."""


@contextmanager
def explained(
    out_of_memory: str, process: int, processes: int, common: type[PsarmError] = UsageError
) -> Iterator[None]:
    """Turn what torch says of the faults of a training, in process `process` of `processes`, into one sentence.

    Args:
        out_of_memory: the sentence for when memory runs out.
        process: this one's number, from 0.
        processes: how many there are.
        common: errors to leave as they are, because all processes meet them alike, or the first one of a machine meets
            them while the others of it wait (as for a download): the command line lets that process say them.

    Raises:
        TrainingError: memory ran out, or another process of the training ended.
        DataError: a process that reads images died.
        ProcessFault: in place of an error that one of several processes meets; or NCCL failed here.
    """
    try:
        with dead_workers_explained():
            yield
    except (Diverged, common):
        raise
    except (PsarmError, OSError) as error:
        if processes == 1 or (process == 0 and isinstance(error, OSError)):  # which is told by what the system says
            raise
        raise ProcessFault(f"Process {process} of {processes}: {error}") from error
    except (RuntimeError, MemoryError) as error:
        if _is_lost_connection(error):
            raise TrainingError(
                f"Another process of this training ended ({_in_short(error)}). What it said tells why; if it said "
                "nothing it was killed, most often for want of memory. The last finished epoch is kept: --resume goes "
                "on from it."
            ) from error
        if isinstance(error, torch.distributed.DistBackendError):
            raise ProcessFault(f"Process {process} of {processes}: {_in_short(error)}.") from error
        if (found := _NOT_DETERMINISTIC.search(str(error))) is not None:
            raise TrainingError(
                f"train.deterministic is true, and torch has no algorithm for {found[1]} on this device that always "
                "gives the same bits; set it to false, or train on a CPU."
            ) from error
        if not _is_out_of_memory(error):
            raise
        if processes > 1:
            raise ProcessFault(f"Process {process} of {processes}: {out_of_memory}") from error
        raise TrainingError(out_of_memory) from error


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or bool(_CPU_MEMORY.search(str(error)))


def _is_lost_connection(error: RuntimeError | MemoryError) -> bool:
    connection = (torch.distributed.DistNetworkError, torch.distributed.DistStoreError)
    return isinstance(error, connection) or bool(_LOST.search(str(error)))


def _in_short(error: RuntimeError | MemoryError) -> str:
    """The first line of torch's message, and the one in which NCCL gives its reason."""
    lines = [(str(error).splitlines() or [type(error).__name__])[0]]
    lines += _LAST_ERROR.findall(str(error))
    return "; ".join(line.strip(" .") for line in lines)


def training_out_of_memory(config: Config) -> str:
    """The sentence for a training: what took the memory and what takes less."""
    model, recipe = config.model, config.train
    ways = []
    if recipe.batch_size > 1:
        batch = "train.batch_size with train.accumulate as much larger (the effective batch stays the same)"
        ways.append(f"a smaller {batch}")
    if not recipe.checkpoint_activations:
        ways.append("train.checkpoint_activations=true")
    if recipe.amp == "no":
        ways.append("train.amp=bf16")
    ways.append("a smaller model.min_size and model.max_size")
    return f"Memory ran out with train.batch_size {recipe.batch_size} and {_sizes(model)}; take {', or '.join(ways)}."


def evaluation_out_of_memory(model: ModelConfig) -> str:
    """The sentence for an evaluation."""
    return (
        f"Memory ran out in the evaluation, which takes images one by one ({_sizes(model)}); psarm train --eval-only "
        "evaluates the finished checkpoint on a machine with more."
    )


def _sizes(model: ModelConfig) -> str:
    return f"images of up to {model.min_size}x{model.max_size} pixels (model.min_size, model.max_size)"
