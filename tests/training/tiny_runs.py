"""Tiny training runs for the tests."""

import dataclasses
from pathlib import Path

import torch

from psarm.config import Config, load_config, to_dict
from psarm.training.saving import STATE_FILE
from psarm.training.state import TrainingState, dataset_facts, load_state

TINY = Path(__file__).parents[2] / "configs" / "tiny.yaml"


def tiny(prw: Path, output: Path, **recipe: object) -> Config:
    """configs/tiny.yaml on the data set at `prw`, without evaluation unless asked for."""
    config = load_config(TINY)
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, root=str(prw)),
        train=dataclasses.replace(config.train, **{"output": str(output), "evaluate": False, **recipe}),
    )


def state_of(output: Path) -> TrainingState:
    """What a run left for `--resume`."""
    return load_state(output / STATE_FILE)


def made_state(config=None, dataset=None, processes=1) -> TrainingState:
    """A state of no training, to be written and compared."""
    return TrainingState(
        epoch=1,
        model={"w": torch.ones(2)},
        average={},
        optimizer={},
        scaler={},
        losses={"total": 1.0},
        validation=[],
        processes=processes,
        config=to_dict(config or Config()),
        dataset=dataset_facts(dataset) if dataset else {"name": "x", "train_frames": [], "identities": []},
    )


def assert_equal(one, other, where="state"):
    """Bit for bit, through dicts and lists."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{where}[{index}]")
    else:
        assert one == other, where
