"""What differs between a saved training and the one asked to go on with it, and what of that is refused."""

from __future__ import annotations

from typing import Any

from psarm.config import Config, to_dict
from psarm.data.types import PersonSearchDataset
from psarm.errors import UsageError
from psarm.training.state import TrainingState, dataset_facts

# Where things lie, how fast they go, in how much memory, what was before and what is done afterwards change no number
# of the training; threads only its rounding.
_FREE = {
    "data": ("root", "workers", "dataset"),  # which data set it is, is compared by its content
    "train": ("output", "threads", "evaluate", "init", "checkpoint_activations"),
}
# Keys of the model that change neither what a weight means nor the shape of one.
_CHANGEABLE = {
    "arm_dropout",
    "min_size",
    "max_size",
    "pre_nms_top_n_train",
    "pre_nms_top_n_test",
    "post_nms_top_n_train",
    "post_nms_top_n_test",
    "rpn_nms_thresh",
    "rpn_batch_size",
    "roi_batch_size",
    "score_thresh",
    "detection_nms_thresh",
    "final_nms_thresh",
    "detections_per_image",
    "oim_momentum",
    "oim_scalar",
}


def check_changes(
    saved: TrainingState, config: Config, dataset: PersonSearchDataset, processes: int, allowed: bool
) -> list[str]:
    """The differences between `saved` and `config` on `dataset` in `processes` processes that change its numbers.

    Raises `UsageError` naming all of them: where there are any, or with `allowed`, where the saved weights and tables
    are no use to what is asked for now, or more epochs are finished than that.
    """
    if config.train.epochs < saved.epoch:
        raise UsageError(
            f"Cannot resume: {saved.epoch} epochs are finished, and train.epochs is {config.train.epochs}; give at "
            "least as many, another --output, or --overwrite to start again."
        )
    now = to_dict(config)
    fixed, changes = _of_the_dataset(saved.dataset, dataset_facts(dataset))
    for name, (before, after) in _by_key(saved.config["model"], now["model"]).items():
        (changes if name in _CHANGEABLE else fixed).extend(differences({name: before}, {name: after}, "model"))
    for group, free in _FREE.items():
        old, new = (_without(values[group], free) for values in (saved.config, now))
        changes += differences(old, new, group)
    changes += differences({"processes": saved.processes}, {"processes": processes})
    if fixed:
        raise UsageError(
            f"Cannot resume: the run was started with another model or data set ({'; '.join([*fixed, *changes])}). "
            "Use the same ones, another --output, or --overwrite to start again."
        )
    if changes and not allowed:
        raise UsageError(
            f"Cannot resume: the run was started with other settings ({'; '.join(changes)}). Use the same ones, "
            "--allow-changes to go on with the new ones, another --output, or --overwrite to start again."
        )
    return changes


def differences(old: dict[str, Any], new: dict[str, Any], group: str = "") -> list[str]:
    """`group.key: old → new` for every leaf that differs."""
    found = []
    for key, (before, after) in _by_key(old, new).items():
        name = f"{group}.{key}" if group else key
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, name)
        elif before != after:
            found.append(f"{name}: {before} → {after}")
    return found


def _by_key(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys())}


def _without(values: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def _of_the_dataset(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What makes OIM's tables hold other people, and what does not."""
    fixed = [] if old["name"] == new["name"] else [f"data set: {old['name']} → {new['name']}"]
    return fixed + _of_a_list(old, new, "identities"), _of_a_list(old, new, "train_frames")


def _of_a_list(old: dict[str, Any], new: dict[str, Any], key: str) -> list[str]:
    before, after = old[key], new[key]
    if before == after:
        return []
    return [f"{key.replace('_', ' ')} of the data set: {len(before)} → {len(after)}, {_distinct(before, after)}"]


def _distinct(old: list[Any], new: list[Any]) -> str:
    for value in old:
        if value not in set(new):
            return f"{value} is gone"
    for value in new:
        if value not in set(old):
            return f"{value} is new"
    return "in another order"
