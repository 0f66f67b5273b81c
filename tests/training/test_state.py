import errno
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import state_of, tiny
from tiny_prw import write_tiny_prw

from psarm import load_model
from psarm.config import Config, to_dict
from psarm.data.prw import read_prw
from psarm.errors import CheckpointError, UsageError
from psarm.training.setup import fit_to_dataset
from psarm.training.state import TrainingState, check_same_run, dataset_facts, differences, load_state, save_state
from psarm.training.trainer import train


def state(config=None, dataset=None):
    facts = dataset_facts(dataset) if dataset else {"name": "x", "train_frames": [], "identities": []}
    return TrainingState(1, {"w": torch.ones(2)}, {}, {}, {"total": 1.0}, to_dict(config or Config()), facts)


def test_comes_back_as_it_was_written(tmp_path):
    save_state(tmp_path / "last.pt", state())
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
    torch.save({"schema": 2}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="not a training state of this version"):
        load_state(tmp_path / "last.pt")


@pytest.mark.parametrize(
    "change",
    [{"more": 1}, {"epoch": "one"}, {"optimizer": None}, {"config": {}}, {"dataset": {"name": "x"}}],
    ids=str,
)
def test_another_content_is_refused(tmp_path, change):
    torch.save({"schema": 1, **vars(state()), **change}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="not a training state of this version"):
        load_state(tmp_path / "last.pt")


def test_a_full_disk_leaves_the_old_state(tmp_path, monkeypatch):
    save_state(tmp_path / "last.pt", state())

    def half(path, content):
        with path.open("wb") as file:
            file.write(bytes(content)[:100])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError) as error:
        save_state(tmp_path / "last.pt", replace(state(), epoch=2))
    assert error.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert state_of(tmp_path).epoch == 1


def test_differences_name_nested_keys():
    old = {"a": 1, "b": {"c": [1], "d": 2}, "gone": 3}
    new = {"a": 1, "b": {"c": [1, 2], "d": 2}}
    assert differences(old, new, "train") == ["train.b.c: [1] → [1, 2]", "train.gone: 3 → None"]


def test_the_same_run_passes_wherever_the_data_lie(prw, tmp_path):
    moved = read_prw(write_tiny_prw(tmp_path / "elsewhere"))
    config = fit_to_dataset(Config(), read_prw(prw))
    check_same_run(state(config, read_prw(prw)), config, moved)


def test_another_run_is_refused_with_every_difference(prw, tmp_path):
    dataset = read_prw(prw)
    config = fit_to_dataset(Config(), dataset)
    saved = state(config, dataset)
    larger = read_prw(write_tiny_prw(tmp_path / "larger", train=6))
    other = replace(config, model=replace(config.model, width=0.5), train=replace(config.train, init="imagenet"))
    with pytest.raises(UsageError) as error:
        check_same_run(saved, other, larger)
    for part in ("model.width: 1.0 → 0.5", "train.init:  → imagenet", "frames of the data set: 4 → 6", "is new"):
        assert part in str(error.value)
    with pytest.raises(UsageError, match="in another order"):
        check_same_run(saved, config, replace(dataset, train=dataset.train[::-1]))
    with pytest.raises(UsageError, match="data set: prw → other"):
        check_same_run(saved, config, replace(dataset, name="other"))
