"""What has to be true before a training starts: output folder, data set, device."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from accelerate import Accelerator

from psarm.config import Config, DataConfig
from psarm.data import readers
from psarm.data.types import PersonSearchDataset
from psarm.errors import ConfigError, DataError, UsageError
from psarm.training.state import STATE_FILE


def check_output(output: Path, resume: bool, overwrite: bool) -> None:
    """Raise `UsageError` where starting or resuming in `output` cannot be meant."""
    if resume and overwrite:
        raise UsageError("--resume goes on with a training and --overwrite discards it; give one of them.")
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file; give a folder as --output.")
    exists = (output / STATE_FILE).exists()
    if resume and not exists:
        raise UsageError(f"There is no training to resume in {output} (no {STATE_FILE}); start without --resume.")
    if exists and not resume and not overwrite:
        raise UsageError(
            f"{output} already holds a training; give --resume to go on with it, --overwrite to start again, "
            "or another --output."
        )


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


def fit_to_dataset(config: Config, dataset: PersonSearchDataset) -> Config:
    """`config` with as many identities as the data set's training split; raises where it is too small to train on."""
    if not dataset.train_labels:
        raise DataError(f"{dataset.root} has no training frame with an identified person; training needs some.")
    if config.train.batch_size > len(dataset.train):
        raise ConfigError(
            f"train.batch_size is {config.train.batch_size}; needed at most the {len(dataset.train)} training frames."
        )
    model = dataclasses.replace(config.model, num_identities=len(dataset.train_labels))
    return dataclasses.replace(config, model=model)


def make_accelerator(amp: str) -> Accelerator:
    """Device and precision; raises `ConfigError` where the device cannot train in that precision.

    Raises `UsageError` when started as one of several processes: OIM's tables would see the people of one only.
    """
    cpu = not torch.accelerator.is_available()
    if amp == "fp16" and cpu:
        raise ConfigError("train.amp is fp16, which needs a GPU; on a CPU use no or bf16.")
    # Left to itself, Accelerate would take processes of torchrun on CPUs for separate runs.
    accelerator = Accelerator(cpu=cpu, mixed_precision=amp)
    if accelerator.num_processes > 1:
        raise UsageError(
            f"psarm train was started as {accelerator.num_processes} processes; this version trains in one, because "
            "OIM's tables are not shared between processes yet: start it without torchrun."
        )
    return accelerator
