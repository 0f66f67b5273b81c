from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from psarm.config import Config, load_config
from psarm.training.state import STATE_FILE, load_state
from psarm.training.trainer import train

TINY = Path(__file__).parents[2] / "configs" / "tiny.yaml"


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(prw: Path, output: Path, **recipe: object) -> Config:
    config = load_config(TINY)
    values = {"output": str(output), "evaluate": False, **recipe}
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, root=str(prw)),
        train=dataclasses.replace(config.train, **values),
    )


def assert_equal(one: object, other: object, where: str = "state") -> None:
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


@pytest.mark.parametrize("workers", [0, 2])
def test_two_and_two_epochs_equal_four(prw, tmp_path, workers):
    straight = tiny(prw, tmp_path / "straight", epochs=4, lr_steps=(1, 3))
    train(straight)
    parts = tiny(prw, tmp_path / "parts", epochs=2, lr_steps=(1, 3))
    parts = dataclasses.replace(parts, data=dataclasses.replace(parts.data, workers=workers))
    train(parts)
    torch.rand(7)  # what happens between the two must not matter
    train(dataclasses.replace(parts, train=dataclasses.replace(parts.train, epochs=4)), resume=True)
    one, other = (load_state(tmp_path / name / STATE_FILE) for name in ("straight", "parts"))
    assert one.epoch == other.epoch == 4
    tables = {name: value for name, value in one.model.items() if ".reid_loss." in name}
    assert {name.rpartition(".")[2] for name in tables} == {"lut", "cq", "header"}
    assert tables["roi_heads.reid_loss.header"] > 0 and tables["roi_heads.reid_loss.lut"].abs().sum() > 0
    for part in ("model", "optimizer", "losses"):
        assert_equal(getattr(one, part), getattr(other, part), part)
