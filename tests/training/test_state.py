import errno
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import made_state as state
from tiny_runs import state_of, tiny

from psarm import load_model
from psarm.errors import CheckpointError
from psarm.training.state import SCHEMA, best_validation, load_state, remove_unfinished, save_state
from psarm.training.trainer import train


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


def test_the_best_validation_is_the_first_of_the_highest():
    history = [{"epoch": epoch, "search": {"mAP": value}} for epoch, value in enumerate((0.2, 0.5, 0.5, 0.1))]
    assert best_validation(history)["epoch"] == 1
    assert best_validation([]) is None


def test_what_a_killed_training_was_writing_is_removed(tmp_path):
    for name in (".last.pt.x1.tmp", ".best.safetensors.x2.tmp", "last.pt", ".mine.tmp", "notes.tmp"):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.tmp", "last.pt", "notes.tmp"]
