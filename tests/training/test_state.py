import pickle
from dataclasses import replace

import pytest
import torch
from tiny_runs import made_state as state
from tiny_runs import tiny

from psarm import load_model
from psarm.errors import CheckpointError
from psarm.training.state import SCHEMA, best_validation, load_state, state_bytes
from psarm.training.trainer import train


def test_comes_back_as_it_was_written(tmp_path):
    (tmp_path / "last.pt").write_bytes(state_bytes(state()))
    back = load_state(tmp_path / "last.pt")
    assert torch.equal(back.model["w"], torch.ones(2))
    assert replace(back, model={}) == replace(state(), model={})


def test_a_trained_state_loads_without_code_and_as_a_model(prw, tmp_path):
    train(tiny(prw, tmp_path, epochs=1))
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    assert content["epoch"] == 1
    one, other = load_model(tmp_path / "last.pt"), load_model(tmp_path / "model.safetensors")
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]) and torch.equal(value, content["model"][name])
    assert one.config == other.config and one.config.num_identities == 3


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", pickle.dumps(print), b"text"], ids=range(4))
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last\.pt is not a training state"):
        load_state(tmp_path / "last.pt")


def test_another_schema_is_refused(tmp_path):
    torch.save({"schema": 1, "epoch": 3}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=r"another version of psarm \(schema 1, this one has 2\); finish"):
        load_state(tmp_path / "last.pt")


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"epoch": "one"},
        {"processes": None},
        {"optimizer": None},
        {"validation": {}},
        {"config": {}},
        {"dataset": {"name": "x"}},
    ],
    ids=str,
)
def test_another_content_is_refused(tmp_path, change):
    torch.save({"schema": SCHEMA, **vars(state()), **change}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="not a training state of this version"):
        load_state(tmp_path / "last.pt")


def test_the_best_validation():
    def best(*figures):
        history = [
            {"epoch": epoch, "search": {"mAP": mean}, "detection": {"ap": ap}}
            for epoch, (mean, ap) in enumerate(figures, start=1)
        ]
        return best_validation(history)["epoch"]

    assert best((0.2, 0.9), (0.5, 0.1), (0.1, 0.9)) == 2
    assert best((0.5, 0.1), (0.5, 0.3), (0.5, 0.2)) == 2
    assert best((0.5, 0.3), (0.5, 0.3), (0.4, 0.3)) == 2
    assert best_validation([]) is None
