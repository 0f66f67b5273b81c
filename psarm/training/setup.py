"""What has to be true before a training starts: output folder, data set, device."""

from __future__ import annotations

import dataclasses
import os
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from psarm.config import Config, DataConfig
from psarm.data import readers
from psarm.data.types import PersonSearchDataset
from psarm.data.validation import hold_out
from psarm.errors import ConfigError, DataError, UsageError
from psarm.evaluation.protocol import SearchProtocol
from psarm.files import refuse_unwritable
from psarm.training.saving import STATE_FILE, held_files

LONGEST_WAIT = timedelta(hours=6)
"""Of one process for the others; torch's own limit is 10 minutes on GPUs."""


def check_output(output: Path, resume: bool, overwrite: bool) -> None:
    """Raise `UsageError` where starting or resuming in `output` cannot be meant."""
    if resume and overwrite:
        raise UsageError("--resume goes on with a training and --overwrite discards it; give one of them.")
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file; give a folder as --output.")
    refuse_unwritable(output, "--output", inside=True)
    held = held_files(output)
    if STATE_FILE in held:
        if not resume and not overwrite:
            raise UsageError(
                f"{output} already holds a training; give --resume to go on with it, --overwrite to start again, "
                "or another --output."
            )
    elif held and not overwrite:
        raise UsageError(
            f"{output} holds {' and '.join(held)} but no {STATE_FILE} to resume from; give --overwrite to start again, "
            "or another --output."
        )
    elif resume:
        raise UsageError(f"There is no training to resume in {output} (no {STATE_FILE}); start without --resume.")


def read_parts(config: Config) -> tuple[PersonSearchDataset, PersonSearchDataset, PersonSearchDataset | None]:
    """The data set as it is, the part of it to train on, and what is held out for validation."""
    dataset = read_dataset(config.data)
    if config.train.evaluate:
        SearchProtocol.from_dataset(dataset)  # a test split that cannot be scored is better known now than at the end
    if config.data.validation == 0:
        return dataset, dataset, None
    return dataset, *hold_out(dataset, config.data.validation, config.train.seed)


def read_dataset(config: DataConfig) -> PersonSearchDataset:
    """The data set of a configuration; raises `ConfigError` without a root and `DataError` where it cannot be read."""
    if not config.root:
        raise ConfigError(f"data.root is empty; {_where_data_comes_from(config)}")
    if not Path(config.root).exists():
        raise ConfigError(f"data.root {config.root} does not exist; {_where_data_comes_from(config)}")
    return readers.read_dataset(config.dataset, config.root)


def _where_data_comes_from(config: DataConfig) -> str:
    synth = f"`psarm data synth DIR --format {config.dataset}` makes one"
    made = "`psarm data convert` makes one of videos or pictures" if config.dataset == "visits" else synth
    return f"give the folder of the data set with --data-root; {made}."


def fit_to_dataset(config: Config, dataset: PersonSearchDataset, processes: int = 1) -> Config:
    """`config` with as many identities as `dataset.train` has; raises where that is too small to train on."""
    if not dataset.train_labels:
        raise DataError(f"{dataset.root} has no training frame with an identified person; training needs some.")
    recipe = config.train
    if effective_batch(config, processes) > len(dataset.train):
        factors = [f"train.accumulate {recipe.accumulate}"] * (recipe.accumulate > 1)
        factors += [f"{processes} processes"] * (processes > 1)
        times = f", times {' and '.join(factors)}" if factors else ""
        raise ConfigError(
            f"train.batch_size is {recipe.batch_size}{times}; needed at most the {len(dataset.train)} training frames."
        )
    model = dataclasses.replace(config.model, num_identities=len(dataset.train_labels))
    return dataclasses.replace(config, model=model)


def effective_batch(config: Config, processes: int) -> int:
    """Images of one optimizer step."""
    return config.train.batch_size * config.train.accumulate * processes


def make_accelerator(amp: str) -> Accelerator:
    """Device, precision and the other processes that torchrun started.

    Raises `ConfigError` where the device cannot train in that precision, `UsageError` where there are fewer GPUs than
    processes on this machine.
    """
    cpu = not torch.accelerator.is_available()
    if amp == "fp16" and cpu:
        raise ConfigError("train.amp is fp16, which needs a GPU; on a CPU use no or bf16.")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if not cpu and here > torch.accelerator.device_count():
        raise UsageError(
            f"torchrun started {here} processes on a machine with {torch.accelerator.device_count()} GPUs; "
            "give --nproc_per_node as many as there are GPUs."
        )
    # Buffers (OIM's tables, BatchNorm's statistics) follow from the samples of all processes: nothing to send around.
    parallel = DistributedDataParallelKwargs(broadcast_buffers=False)
    # The others wait while the first one downloads weights or scores a large test split; torchrun ends them if it dies.
    patience = InitProcessGroupKwargs(timeout=LONGEST_WAIT)
    # Left to itself, Accelerate would take processes of torchrun on CPUs for separate runs.
    return Accelerator(cpu=cpu, mixed_precision=amp, kwargs_handlers=[parallel, patience])


def use_deterministic_algorithms() -> None:
    """Have torch take only algorithms that give the same bits in every run, in this process from now on."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when CUDA starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
