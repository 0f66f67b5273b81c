"""What a resumed training may differ in."""

from dataclasses import fields, replace

import pytest
from tiny_prw import write_tiny_prw
from tiny_runs import made_state as state

from psarm.config import Config, DataConfig, LossWeights, TrainConfig
from psarm.data.prw import read_prw
from psarm.errors import UsageError
from psarm.training.changes import check_changes, differences
from psarm.training.setup import fit_to_dataset


@pytest.fixture(scope="module")
def dataset(prw):
    return read_prw(prw)


@pytest.fixture(scope="module")
def config(dataset):
    return fit_to_dataset(Config(), dataset)


def test_differences_name_nested_keys():
    old = {"a": 1, "b": {"c": [1], "d": 2}, "gone": 3}
    new = {"a": 1, "b": {"c": [1, 2], "d": 2}}
    assert differences(old, new, "train") == ["train.b.c: [1] → [1, 2]", "train.gone: 3 → None"]
    assert differences({"processes": 1}, {"processes": 2}) == ["processes: 1 → 2"]


def test_the_same_run_passes_wherever_the_data_lie_and_however_fast_it_goes(config, dataset, tmp_path):
    moved = read_prw(write_tiny_prw(tmp_path / "elsewhere"))
    data = replace(config.data, root="elsewhere", workers=7)
    train = replace(config.train, output="there", threads=3, evaluate=False)
    assert check_changes(state(config, dataset), replace(config, data=data, train=train), moved, 1, False) == []


FREE = {
    "data.dataset": "visits",
    "data.root": "elsewhere",
    "data.workers": 7,
    "train.checkpoint_activations": True,
    "train.evaluate": False,
    "train.init": "imagenet",
    "train.output": "there",
    "train.threads": 3,
}
"""Keys that change no number of a training, with other values than the defaults."""
REFUSED = {
    "data.bad_images": "skip",
    "data.group_by_shape": False,
    "data.validation": 0.5,
    "train.accumulate": 2,
    "train.amp": "bf16",
    "train.batch_size": 2,
    "train.clip_norm": 5.0,
    "train.deterministic": True,
    "train.ema": 0.9,
    "train.epochs": 13,
    "train.flip": 0.0,
    "train.loss_weights": LossWeights(oim=7.0),
    "train.lr": 0.1,
    "train.lr_batch": 3,
    "train.lr_gamma": 0.5,
    "train.lr_steps": (9,),
    "train.momentum": 0.8,
    "train.seed": 1,
    "train.sync_batchnorm": False,
    "train.validate_every": 2,
    "train.warmup_epochs": 2.0,
    "train.weight_decay": 0.0,
}
"""The others."""


def test_every_setting_has_another_value():
    """So that a new one is thought of here."""
    keys = {f"data.{field.name}" for field in fields(DataConfig)} | {
        f"train.{field.name}" for field in fields(TrainConfig)
    }
    assert FREE.keys() | REFUSED.keys() == keys and not FREE.keys() & REFUSED.keys()


def with_value(config, key, value):
    group, name = key.split(".")
    assert getattr(getattr(config, group), name) != value
    return replace(config, **{group: replace(getattr(config, group), **{name: value})})


@pytest.mark.parametrize("key", FREE)
def test_settings_that_change_no_number_are_free(config, dataset, key):
    assert check_changes(state(config, dataset), with_value(config, key, FREE[key]), dataset, 1, False) == []


@pytest.mark.parametrize("key", REFUSED)
def test_every_setting_that_changes_numbers_is_refused(config, dataset, key):
    changed = with_value(config, key, REFUSED[key])
    shown = "train.loss_weights.oim: 1.0 → 7.0" if key == "train.loss_weights" else f"{key}: "
    with pytest.raises(UsageError) as error:
        check_changes(state(config, dataset), changed, dataset, 1, False)
    assert shown in str(error.value) and "--allow-changes to go on with the new ones" in str(error.value)
    [change] = check_changes(state(config, dataset), changed, dataset, 1, True)
    assert change.startswith(shown)


def test_every_difference_is_shown_at_once(config, dataset):
    other = replace(
        config, model=replace(config.model, arm_dropout=0.1), train=replace(config.train, lr=0.1, epochs=13)
    )
    with pytest.raises(UsageError) as error:
        check_changes(state(config, dataset, processes=2), other, dataset, 1, False)
    changes = "model.arm_dropout: 0.5 → 0.1; train.epochs: 12 → 13; train.lr: 0.003 → 0.1; processes: 2 → 1"
    assert f"the run was started with other settings ({changes}). Use the same ones" in str(error.value)
    assert check_changes(state(config, dataset, processes=2), other, dataset, 1, True) == changes.split("; ")


def test_more_frames_of_the_same_people_can_be_allowed(config, dataset, tmp_path):
    larger = read_prw(write_tiny_prw(tmp_path / "larger", train=6))
    with pytest.raises(UsageError, match=r"other settings \(train frames of the data set: 4 → 6, \S+ is new\)"):
        check_changes(state(config, dataset), config, larger, 1, False)
    with pytest.raises(UsageError, match="in another order"):
        check_changes(state(config, dataset), config, replace(dataset, train=dataset.train[::-1]), 1, False)
    assert len(check_changes(state(config, dataset), config, larger, 1, True)) == 1


def test_another_model_or_data_set_cannot_be_allowed(config, dataset):
    other = replace(
        config, model=replace(config.model, width=0.5, variant="seqnet"), train=replace(config.train, lr=0.1)
    )
    fewer = replace(dataset, train=dataset.train[:2], name="other")
    with pytest.raises(UsageError) as error:
        check_changes(state(config, dataset), other, fewer, 1, True)
    for part in (
        "Cannot resume: the run was started with another model or data set (",
        "data set: prw → other",
        "identities of the data set: 3 → 2, 932 is gone",
        "model.variant: psarm → seqnet; model.width: 1.0 → 0.5",
        "train.lr: 0.003 → 0.1",
        "Use the same ones, another --output, or --overwrite",
    ):
        assert part in str(error.value)
    assert "--allow-changes" not in str(error.value)
