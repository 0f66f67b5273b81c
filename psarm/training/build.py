"""The parts a training run is made of, from its configuration: batches, model, what BatchNorm and OIM keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from psarm.config import Config
from psarm.data.loader import TrainingFrames, TrainingLoader, training_loader
from psarm.data.types import PersonSearchDataset
from psarm.errors import PsarmError
from psarm.model.builder import build_model
from psarm.model.person_search import PersonSearchModel
from psarm.training import initial
from psarm.training.setup import effective_batch
from psarm.training.state import TrainingState

T = TypeVar("T")


def make_loader(config: Config, dataset: PersonSearchDataset, accelerator: Accelerator) -> TrainingLoader:
    """This process's batches of the training frames.

    Raises:
        DataError: of an image whose size is needed; with `data.bad_images` "fail". In all processes alike.
    """
    model, recipe = config.model, config.train
    sizes = (model.min_size, model.max_size)
    labels = dataset.train_labels
    frames = TrainingFrames(dataset.train, labels, *sizes, recipe.flip, recipe.seed, config.data.bad_images)
    # A single frame is of one shape anyway.
    grouped = config.data.group_by_shape and effective_batch(config, accelerator.num_processes) > 1
    return training_loader(
        frames,
        recipe.batch_size,
        config.data.workers,
        accumulate=recipe.accumulate,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        aspects=_from_first_process(frames.read_aspects, accelerator) if grouped else None,
    )


def _from_first_process(read: Callable[[], T], accelerator: Accelerator) -> T:
    """What `read` gives in the first process, or the `PsarmError` that it raises there, in all processes.

    A disk may answer two processes differently, and processes that disagree about their steps would wait for ever.
    """
    if accelerator.num_processes == 1:
        return read()
    found: list[T | PsarmError | None] = [None]
    if accelerator.is_main_process:
        try:
            found[0] = read()
        except PsarmError as error:
            found[0] = error
    answer: T | PsarmError = broadcast_object_list(found)[0]
    if isinstance(answer, PsarmError):
        accelerator.wait_for_everyone()  # whoever ends first takes the connection of the others with it
        raise answer
    return answer


def make_model(config: Config, accelerator: Accelerator, saved: TrainingState | None) -> PersonSearchModel:
    """The model on the CPU with its first weights, or the saved ones."""
    recipe = config.train
    model = build_model(config.model)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 15 % faster on CPUs
    model.checkpoint_activations(recipe.checkpoint_activations)
    model.synchronise_batchnorm(recipe.sync_batchnorm)
    if saved is None:
        with accelerator.local_main_process_first():  # one process a machine downloads weights
            initial.initialise(model, recipe.init)
    else:
        initial.freeze_as_saved(model, saved.optimizer)
        model.load_state_dict(saved.model)
    return model


def share_buffers(model: PersonSearchModel, accelerator: Accelerator) -> None:
    """Give every process the first one's buffers: BatchNorm's statistics differ where they are not synchronised."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)
