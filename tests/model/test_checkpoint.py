"""Checkpoints through psarm.load_model: what loads comes back exactly, what cannot is one clear CheckpointError."""

import errno
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from released_files import empty_state
from safetensors.torch import load_file, save_file

import psarm
from psarm import files
from psarm.config import ModelConfig, to_dict
from psarm.errors import CheckpointError, UsageError
from psarm.model import build_model, save_model
from psarm.model.checkpoint import Checkpoint, checkpoint_bytes, model_state, read_checkpoint

CONFIG = ModelConfig(backbone="resnet18", width=0.25, num_identities=3, queue_size=4)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = build_model(CONFIG)
    for name, value in model.named_buffers():
        value.copy_(
            torch.randint(5, 9, value.shape) if name.endswith(("header", "tracked")) else torch.rand(value.shape)
        )
    return model


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    save_model(model, path, dataset={"name": "prw", "train_frames": 5704, "identities": 482})
    return path


def refusal(path):
    """The message with which `path` is refused: one line, naming the file."""
    with pytest.raises(CheckpointError) as caught:
        psarm.load_model(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert message.endswith(".")
    return message


# What loads.


def test_the_epoch_comes_back(model, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(checkpoint_bytes(Checkpoint(model.config, model_state(model), None, epoch=3)))
    assert read_checkpoint(path).epoch == 3
    save_model(model, path)
    assert read_checkpoint(path).epoch is None


def test_round_trip_is_exact(model, saved):
    loaded = psarm.load_model(str(saved))
    assert loaded.config == CONFIG
    assert not loaded.training
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert state[name].dtype == value.dtype
        assert torch.equal(state[name], value), name
    assert read_checkpoint(saved).dataset == {"name": "prw", "train_frames": 5704, "identities": 482}


def test_half_is_half_as_large_and_close(model, saved, tmp_path):
    path = tmp_path / "half.safetensors"
    save_model(model, path, half=True)
    assert path.stat().st_size < 0.52 * saved.stat().st_size
    state = psarm.load_model(path).state_dict()
    for name, value in model.state_dict().items():
        assert state[name].dtype == value.dtype
        if value.is_floating_point():
            torch.testing.assert_close(state[name], value, rtol=1e-3, atol=1e-6)
        else:
            assert torch.equal(state[name], value)


@pytest.mark.parametrize("variant", ["psarm", "seqnet"])
@pytest.mark.parametrize("layout", ["paper", "released"])
def test_every_setting_survives(variant, layout, tmp_path):
    config = ModelConfig(
        variant=variant,
        arm_layout=layout,
        backbone="resnet18",
        width=0.125,
        min_size=99,
        max_size=101,
        anchor_sizes=(16, 48),
        anchor_ratios=(2, 3.5),
        roi_size=7,
        embedding_dim=10,
        arm_reduction=2,
        num_identities=1,
        queue_size=0,
        score_thresh=0.25,
    )
    save_model(build_model(config), tmp_path / "m.safetensors")
    assert psarm.load_model(tmp_path / "m.safetensors").config == config


def test_training_state(model, tmp_path):
    path = tmp_path / "last.pt"
    config = {"model": to_dict(CONFIG), "train": {"lr": 0.1}}
    facts = {"name": "prw"}
    torch.save({"epoch": 3, "model": model.state_dict(), "optimizer": {}, "config": config, "dataset": facts}, path)
    loaded = psarm.load_model(path)
    assert loaded.config == CONFIG
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in loaded.state_dict().items())
    assert read_checkpoint(path).dataset == facts


@pytest.mark.parametrize("variant", ["psarm", "seqnet"])
def test_released_state_dict_alone_and_in_torchs_old_format(variant, tmp_path):
    path = tmp_path / "bare.pth"
    torch.save(empty_state(variant), path, _use_new_zipfile_serialization=False)
    assert read_checkpoint(path).config.variant == variant


def test_a_released_state_dict_beside_a_configuration_of_another_code(tmp_path):
    torch.save({"model": empty_state("psarm"), "config": {"model": {"backbone": "resnet50"}}}, tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth").config.arm_layout == "released"


def test_a_device_that_is_not_there(saved):
    with pytest.raises(UsageError, match="Device 'potato' cannot be used"):
        psarm.load_model(saved, device="potato")


# What is no checkpoint at all.


def test_missing(tmp_path):
    assert "no checkpoint" in refusal(tmp_path / "no.pth")


def test_folder(tmp_path):
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"{}", "not a checkpoint"),
        (b"<!DOCTYPE html><html>404</html>", "not a checkpoint"),
        (b"people: 3\n" * 20, "not a checkpoint"),
        (bytes(1000), "not a checkpoint"),
        (b"\x80", "damaged"),
        (b"\x80\x02]", "damaged"),
        (b"PK\x03\x04" + bytes(500), "damaged"),
    ],
    ids=["empty", "json", "html", "text", "zeros", "one byte of a pickle", "half a pickle", "half a zip"],
)
def test_other_files(content, says, tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    assert says in refusal(path)


@pytest.mark.parametrize(
    "content",
    [[1, 2], torch.zeros(3), {}, {"model": {}}, {"model": {"a": "b"}}, {1: torch.zeros(2)}, {"model": None}],
    ids=["list", "tensor", "nothing", "empty model", "text", "numbered", "none"],
)
def test_torch_files_without_weights(content, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    assert "holds no model weights" in refusal(tmp_path / "x.pth")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.9999])
def test_truncated_pth(zipped, share, tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"model": empty_state("seqnet")}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("share", [0.0000005, 0.000002, 0.001, 0.5, 0.9999])
def test_truncated_safetensors(share, saved, tmp_path):
    content = saved.read_bytes()
    path = tmp_path / "x.safetensors"
    path.write_bytes(content[: int(share * len(content))])
    assert any(words in refusal(path) for words in ("not a checkpoint", "not a readable safetensors"))


# Code in pickles.


class TouchesFile:
    """Unpickling it with the usual loader makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize(
    "write",
    [
        lambda bomb, path: torch.save({"model": empty_state("psarm"), "epoch": bomb}, path),
        lambda bomb, path: torch.save({"model": bomb}, path, _use_new_zipfile_serialization=False),
        lambda bomb, path: path.write_bytes(pickle.dumps(bomb)),
        lambda bomb, path: path.write_bytes(pickle.dumps(bomb, protocol=2)),
    ],
    ids=["beside weights", "old format", "plain pickle", "plain pickle 2"],
)
def test_code_is_refused_and_never_run(write, tmp_path):
    touched = tmp_path / "touched"
    path = tmp_path / "x.pth"
    write(TouchesFile(touched), path)
    assert "could run code" in refusal(path)
    assert not touched.exists()


def test_the_bomb_of_the_test_above_works(tmp_path):
    pickle.loads(pickle.dumps(TouchesFile(tmp_path / "touched")))
    assert (tmp_path / "touched").exists()


# Models of another shape.


def released_refusal(state, path):
    """The message with which a file of this state dict is refused before any model is built."""
    torch.save({"model": state}, path)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


NAMED = {
    "psarm": [
        "backbone.feature1.0.weight",
        "backbone.layer2.0.3.bn2.running_var",
        "roi_heads.box_head.mlP_model.mixers.token_mixer.mlp.fc2.bias",
        "roi_heads.reid_head.layer4.0.1.conv1.weight",
        "roi_heads.reid_loss.lut",
        "roi_heads.embedding_head.rescaler.weight",
    ],
    "seqnet": [
        "rpn.head.conv.0.0.bias",
        "roi_heads.embedding_head.projectors.feat_res4.0.weight",
        "roi_heads.box_predictor.bbox_pred.1.bias",
        "roi_heads.reid_loss.cq",
    ],
}
SINGLE = [(variant, name) for variant, names in NAMED.items() for name in names]


@pytest.mark.parametrize(("variant", "name"), SINGLE)
def test_released_file_with_one_parameter_missing(variant, name, tmp_path):
    state = empty_state(variant)
    del state[name]
    message = released_refusal(state, tmp_path / "x.pth")
    assert "missing" in message
    assert name in message


@pytest.mark.parametrize(("variant", "name"), SINGLE)
@pytest.mark.parametrize("shape", [(), (3,), (3, 5)])
def test_released_file_with_one_wrong_shape(variant, name, shape, tmp_path):
    state = empty_state(variant) | {name: torch.zeros(shape)}
    message = released_refusal(state, tmp_path / "x.pth")
    assert "shape" in message
    assert name in message
    assert str(list(shape)) in message


@pytest.mark.parametrize("variant", ["psarm", "seqnet"])
def test_released_file_with_one_parameter_more(variant, tmp_path):
    state = empty_state(variant) | {"roi_heads.extra.weight": torch.zeros(2)}
    assert "1 unknown (roi_heads.extra.weight)" in released_refusal(state, tmp_path / "x.pth")


def test_another_architecture(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "x.pth")
    message = refusal(tmp_path / "x.pth")
    assert "another architecture" in message
    assert "conv1.weight" in message


def test_our_state_dict_without_its_configuration(model, tmp_path):
    torch.save({"model": model.state_dict(), "epoch": 2}, tmp_path / "x.pt")
    assert "another architecture" in refusal(tmp_path / "x.pt")


# Our own files with the wrong metadata.


def resave(saved, path, about):
    text = about if isinstance(about, str) else json.dumps(about)
    save_file(load_file(saved), path, metadata={"psarm": text})
    return path


def test_safetensors_without_metadata(saved, tmp_path):
    save_file(load_file(saved), tmp_path / "x.safetensors")
    assert "without psarm's metadata" in refusal(tmp_path / "x.safetensors")


def test_newer_format(saved, tmp_path):
    path = resave(saved, tmp_path / "x.safetensors", {"format": 2, "model": {"a setting of tomorrow": 1}})
    message = refusal(path)
    assert "format 2" in message
    assert "upgrade psarm" in message


@pytest.mark.parametrize(
    "about", ["{", [1], {"model": {}}, {"format": 1}], ids=["cut", "list", "no format", "no model"]
)
def test_broken_metadata(about, saved, tmp_path):
    assert "metadata that psarm cannot read" in refusal(resave(saved, tmp_path / "x.safetensors", about))


@pytest.mark.parametrize(
    ("values", "says"), [({"widht": 1}, "widht"), ({"width": -1}, "model.width"), (3, "needed a mapping")]
)
def test_broken_configuration(values, says, saved, tmp_path):
    path = resave(saved, tmp_path / "x.safetensors", {"format": 1, "model": values})
    with pytest.raises(CheckpointError, match=says):
        psarm.load_model(path)


def test_weights_of_another_configuration(saved, tmp_path):
    about = {"format": 1, "model": to_dict(CONFIG) | {"width": 0.5}}
    message = refusal(resave(saved, tmp_path / "x.safetensors", about))
    assert "backbone.conv1.weight is [16, 3, 7, 7], needed [32, 3, 7, 7]" in message
    about = {"format": 1, "model": to_dict(CONFIG) | {"variant": "seqnet"}}
    assert "unknown" in refusal(resave(saved, tmp_path / "x.safetensors", about))


# Writing.


def test_a_full_disk_leaves_the_old_file(model, saved, monkeypatch):
    """An OSError, which the command line turns into a sentence, and nothing half-written."""

    def full(path, content):
        with path.open("wb") as file:
            file.write(bytes(content)[:100])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    before = saved.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as caught:
        save_model(model, saved)
    assert caught.value.errno == errno.ENOSPC
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_saved_files_are_readable_by_others(saved):
    assert saved.stat().st_mode & 0o777 == 0o666 & ~files._umask()
