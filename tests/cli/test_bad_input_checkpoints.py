"""Checkpoints that cannot be used, given to every command that takes one; libraries that fail while exporting."""

import json
import os
import pickle
from pathlib import Path

import onnx
import onnxruntime
import onnxslim
import pytest
import torch
from failing import failing
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_prw import write_tiny_prw
from toy_bundle import make_toy_bundle
from toy_prw import write_toy_prw

CONFIG = Path(__file__).parents[2] / "configs" / "tiny.yaml"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What the commands need beside a checkpoint."""
    base = tmp_path_factory.mktemp("folders")
    return {
        "bundle": make_toy_bundle(base / "toy.psarm"),
        "toy": write_toy_prw(base / "toy_prw"),
        "tiny": write_tiny_prw(base / "tiny_prw"),
    }


@pytest.fixture
def command(folders, tmp_path):
    """The arguments of a command that reads a checkpoint; what it writes would be tmp_path/out."""
    out = tmp_path / "out"

    def arguments(name, checkpoint):
        train = ["train", "--config", CONFIG, "--data-root", folders["tiny"], "--output", out]
        bench = ["bench", folders["bundle"], "--data-root", folders["toy"], "--json", out]
        return {
            "export": ["export", checkpoint, "--out", out],
            "bench": [*bench, "--checkpoint", checkpoint],
            "train": [*train, "-o", f"train.init={checkpoint}"],
        }[name]

    return arguments


class TouchesFile:
    """Unpickling it as plain pickle does would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


COMMANDS = pytest.mark.parametrize("name", ["export", "bench", "train"])


@COMMANDS
def test_code_in_a_pickle_is_refused_and_not_run(command, tmp_path, capfd, name):
    path, touched = tmp_path / "x.pth", tmp_path / "touched"
    path.write_bytes(pickle.dumps({"model": TouchesFile(touched)}))
    assert f"{path} holds more than tensors and plain values; psarm refuses it" in failing(capfd, *command(name, path))
    assert sorted(tmp_path.iterdir()) == [path]


@COMMANDS
def test_another_architecture(command, tmp_path, capfd, name):
    path = tmp_path / "x.pth"
    torch.save({"model": {"fc.weight": torch.zeros(2, 2)}}, path)
    # To train.init it may be a backbone's file.
    says = "does not fit the backbone resnet18" if name == "train" else "holds a model of another architecture"
    assert f"{path} {says}" in failing(capfd, *command(name, path))
    assert sorted(tmp_path.iterdir()) == [path]


def test_initial_weights_of_another_size(command, checkpoint, tmp_path, capfd):
    changes = ("-o", "model.width=0.5", "-o", "model.roi_size=14", "-o", "model.anchor_ratios=[0.5, 1.0, 2.0]")
    sentence = failing(capfd, *command("train", checkpoint), *changes)
    assert f"{checkpoint} does not fit psarm with resnet18: parameters" in sentence and "of another shape" in sentence
    assert list(tmp_path.iterdir()) == []


@COMMANDS
def test_a_newer_format(command, checkpoint, tmp_path, capfd, name):
    path = tmp_path / "newer.safetensors"
    with safe_open(checkpoint, framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    save_file(state, path, metadata={"psarm": json.dumps({"format": 2, "model": {"tomorrow": 1}})})
    sentence = failing(capfd, *command(name, path))
    assert sentence == f"Error: {path} has checkpoint format 2, this psarm reads 1; upgrade psarm."
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_folder(command, tmp_path, capfd):
    folder = tmp_path / "runs"
    folder.mkdir()
    for name in ("export", "bench"):
        assert "is a directory" in failing(capfd, *command(name, folder), code=2)
    assert f"{folder} is a folder; give the checkpoint file itself" in failing(capfd, *command("train", folder))


@pytest.mark.parametrize(("name", "code"), [("export", 2), ("bench", 2), ("train", 1)])
def test_a_bundle_for_a_checkpoint(command, tmp_path, capfd, name, code):
    folder = tmp_path / "small.psarm"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    assert failing(capfd, *command(name, folder), code=code) == (
        f"Error: {folder} is a bundle (it has a manifest.json); give the checkpoint it was made from, such as "
        "model.safetensors."
    )


def test_a_training_state_with_other_keys(command, tmp_path, capfd):
    (tmp_path / "out").mkdir()
    torch.save({"schema": 1, "epoch": 1, "weights": {}}, tmp_path / "out" / "last.pt")
    sentence = failing(capfd, *command("train", "never-read.pth"), "--resume")
    assert "last.pt is a training state of another version of psarm (schema 1, this one has 2)" in sentence


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("owner", "function", "option", "says"),
    [
        (onnxslim, "slim", "--simplify", "onnxslim failed (boom); export without --simplify."),
        (onnx.checker, "check_model", "--no-verify", "The detect graph is no valid ONNX (boom); this is a fault of"),
        (onnxruntime, "InferenceSession", "--verify", "cannot load the exported detect graph (boom); this is a fault"),
    ],
    ids=["onnxslim", "onnx.checker", "onnxruntime"],
)
def test_a_library_that_fails(command, checkpoint, tmp_path, capfd, monkeypatch, owner, function, option, says):
    def fail(*arguments, **options):
        raise ValueError("boom.\nA second line")

    monkeypatch.setattr(owner, function, fail)
    assert says in failing(capfd, *command("export", checkpoint), option)
    assert list(tmp_path.iterdir()) == []
