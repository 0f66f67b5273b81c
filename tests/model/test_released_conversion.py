"""convert_released: every name accounted for, every number kept, and anything else refused by name."""

import hashlib
import pickle

import pytest
import torch
import torchvision
from released_files import (
    CUHK_SYSU,
    PARALLEL,
    PRW,
    before_013,
    empty_state,
    released_shapes,
    small_released,
    training_state,
)
from small_models import exported_once
from test_checkpoint import TouchesFile

import psarm
from psarm.errors import CheckpointError, UsageError
from psarm.model.checkpoint import read_checkpoint
from psarm.model.conversion import convert_released
from psarm.model.released import read_released

VARIANT = pytest.mark.parametrize("variant", ["seqnet", "psarm"])


def numbered(variant, tables=PRW):
    """As `empty_state`, each tensor another number, so that no two can be exchanged unseen."""
    state = empty_state(variant, tables)
    return {
        name: torch.tensor(float(i)).expand(value.shape) if value.is_floating_point() else torch.tensor(i)
        for i, (name, value) in enumerate(state.items())
    }


# Names.


@VARIANT
@pytest.mark.parametrize("tables", [CUHK_SYSU, PRW, (7, 3)])
@pytest.mark.parametrize("old", [False, True], ids=["torchvision 0.13", "older"])
def test_every_name_arrives_once(variant, tables, old):
    state = numbered(variant, tables)
    state = before_013(state) if old else state
    released = read_released(state, "x.pth")
    assert sorted(released.names.values()) == sorted(state)
    assert set(released.names) == set(released.state) - {"roi_heads.reid_loss.header"}
    for ours, theirs in released.names.items():
        assert torch.equal(released.state[ours], state[theirs]), ours
    assert released.old_torchvision is old and not released.parallel
    config = released.config
    assert (config.variant, config.num_identities, config.queue_size) == (variant, *tables)
    assert config.arm_layout == ("released" if variant == "psarm" else "paper")


@VARIANT
def test_names_end_alike(variant):
    """Ours and theirs are of the same layer and the same kind: what comes last never changes."""
    released = read_released(empty_state(variant), "x.pth")
    for ours, theirs in released.names.items():
        assert ours.split(".")[0] == theirs.split(".")[0]
        assert ours.rsplit(".", 1)[1] == theirs.rsplit(".", 1)[1]


@VARIANT
def test_data_parallel(variant):
    state = {PARALLEL + name: value for name, value in numbered(variant).items()}
    released = read_released(state, "x.pth")
    assert released.parallel
    assert sorted(released.names.values()) == sorted(state)
    assert all(torch.equal(released.state[ours], state[theirs]) for ours, theirs in released.names.items())


def test_a_prefix_before_some_names_only():
    state = numbered("seqnet")
    state[f"{PARALLEL}backbone.bn1.bias"] = state.pop("backbone.bn1.bias")
    with pytest.raises(CheckpointError) as caught:
        read_released(state, "x.pth")
    assert "1 missing (backbone.bn1.bias), 1 unknown (module.backbone.bn1.bias)" in str(caught.value)


def test_without_counters_of_batches():
    """Files from before BatchNorm counted them; of a file that has them none may be missing."""
    state = numbered("psarm")
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    bare = {name: value for name, value in state.items() if name not in counters}
    released = read_released(bare, "x.pth")
    assert sorted(released.names.values()) == sorted(bare)
    assert len(released.added) == len(counters) + 1 and not any(released.state[name].any() for name in released.added)
    assert {released.state[name].dtype for name in released.added} == {torch.int64}
    with pytest.raises(CheckpointError, match=f"parameters 1 missing \\({counters[3]}\\);"):
        read_released({name: value for name, value in state.items() if name != counters[3]}, "x.pth")


# What is wrong is named, as the file names it.


def test_both_names_of_the_rpn():
    state = numbered("seqnet")
    state["rpn.head.conv.weight"] = state["rpn.head.conv.0.0.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing \(rpn.head.conv.bias\), 2 unknown \(rpn.head.conv.0.0.weigh"):
        read_released(state, "x.pth")


def test_our_names_in_a_released_file_are_unknown():
    state = numbered("psarm")
    state["backbone.conv1.weight"] = state.pop("backbone.feature1.0.weight")
    with pytest.raises(CheckpointError, match=r"missing \(backbone.feature1.0.weight\), 1 unknown \(backbone.conv1.we"):
        read_released(state, "x.pth")


def test_all_differences_are_counted_and_the_first_ten_named():
    state = numbered("psarm")
    gone = [name for name in state if "reid_head.mlP_model" in name and not name.endswith("num_batches_tracked")]
    for name in gone:
        del state[name]
    state["rpn.head.cls_logits.bias"] = torch.zeros(16)
    state["roi_heads.box_head.qconv1.bias"] = torch.zeros(256, dtype=torch.int64)
    state |= {f"extra.{i}": torch.zeros(1) for i in range(3)}
    with pytest.raises(CheckpointError) as caught:
        read_released(state, "x.pth")
    message = str(caught.value)
    assert f"{len(gone)} missing (first: " in message
    assert sum(f"{name}," in message or f"{name})" in message for name in gone) == 10
    assert "3 unknown (extra.0, extra.1, extra.2)" in message
    assert "1 of another shape (rpn.head.cls_logits.bias is [16], needed [15])" in message
    assert "1 of another type (roi_heads.box_head.qconv1.bias is int64, needed float32)" in message
    assert message.startswith("x.pth is not the released PS-ARM: ") and message.endswith(".") and "\n" not in message


def test_seqnet_named_as_psarm_and_the_reverse():
    """One of PS-ARM's own names makes a file PS-ARM's, and then all are needed."""
    mixer = {name: value for name, value in numbered("psarm").items() if ".mlP_model." in name}
    with pytest.raises(CheckpointError, match=r"not the released PS-ARM: parameters .* missing .* unknown"):
        read_released(numbered("seqnet") | mixer, "x.pth")
    bare = {name: value for name, value in numbered("psarm").items() if ".mlP_model." not in name}
    with pytest.raises(CheckpointError, match=r"not the released SeqNet: parameters .* missing .* unknown"):
        read_released(bare, "x.pth")


def test_the_single_head_of_nae():
    state = {name: value for name, value in numbered("seqnet").items() if ".reid_head." not in name}
    with pytest.raises(CheckpointError, match=r"^x.pth has a norm-aware embedding but no re-id head .*NAE's single"):
        read_released(state, "x.pth")


# Files.


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A small model under the released names, its file and where it may be converted to."""
    source = tmp_path / "released.pth"
    return small_released(source, monkeypatch), source, tmp_path / "ours.safetensors"


def test_the_file_written_is_the_model(small, tmp_path):
    model, source, output = small
    conversion = convert_released(source, output)
    for path in (source, output):
        loaded = psarm.load_model(path)
        assert loaded.config == model.config and not loaded.training
        assert loaded.state_dict().keys() == model.state_dict().keys()
        for name, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value), name
    total = conversion.total
    assert (total.read, total.added, total.written) == (len(conversion.released.names), 1, len(model.state_dict()))
    assert sum(part.written for part in conversion.parts) == total.written
    assert total.numbers == sum(value.numel() for value in model.state_dict().values())
    assert conversion.epoch == 11 and list(conversion.left_out) == ["optimizer", "lr_scheduler", "epoch"]
    assert list(conversion.added) == ["roi_heads.reid_loss.header"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours.safetensors", "released.pth"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(small, dtype):
    _, source, output = small
    content = torch.load(source, weights_only=True)
    stored = {name: v.to(dtype) if v.is_floating_point() else v.int() for name, v in content["model"].items()}
    torch.save(stored, source)
    conversion = convert_released(source, output)
    assert conversion.stored_as == (str(dtype).removeprefix("torch."),)
    assert conversion.epoch is None and conversion.left_out == {}
    state = read_checkpoint(output).state
    for ours, theirs in conversion.released.names.items():
        value = stored[theirs]
        assert state[ours].dtype == (torch.float32 if value.is_floating_point() else torch.int64)
        assert torch.equal(state[ours], value.to(state[ours].dtype)), ours


def test_tensors_that_share_memory(small):
    """torch.save keeps what shares memory together, safetensors refuses it."""
    model, source, output = small
    content = torch.load(source, weights_only=True)
    state = content["model"]
    flat = torch.cat([state["roi_heads.reid_loss.lut"], state["roi_heads.reid_loss.cq"]])
    state["roi_heads.reid_loss.lut"], state["roi_heads.reid_loss.cq"] = flat.split([len(flat) - 5, 5])
    twin = state["roi_heads.box_head.qconv1.weight"] = state["roi_heads.reid_head.qconv1.weight"]
    torch.save(content, source)
    convert_released(source, output)
    loaded = psarm.load_model(output).state_dict()
    assert torch.equal(loaded["roi_heads.box_head.arm.reduce.weight"], twin)
    assert torch.equal(loaded["roi_heads.reid_loss.cq"], model.state_dict()["roi_heads.reid_loss.cq"])


def test_what_else_is_in_the_file_is_told(small):
    _, source, output = small
    content = torch.load(source, weights_only=True)
    torch.save({**content, "best_map": 52.6, "ema": torch.zeros(2), "epoch": None}, source)
    conversion = convert_released(source, output)
    assert conversion.epoch is None
    assert conversion.left_out["best_map"] == "of type float, no part of the released model"
    assert conversion.left_out["ema"] == "a tensor, no part of the released model"
    assert list(conversion.left_out) == ["optimizer", "lr_scheduler", "epoch", "best_map", "ema"]


def test_graphs_and_fingerprint_are_those_of_the_model(small, tmp_path, tmp_path_factory):
    """The bundle of the converted file is, to the byte, that of the model whose weights are in the released file."""
    from psarm.export import export_bundle
    from psarm.runtime.bundle import Bundle

    _, source, output = small
    convert_released(source, output)
    report = export_bundle(output, tmp_path / "converted.psarm", verify=False)
    _, original = exported_once(tmp_path_factory, "released")
    assert Bundle.open(report.bundle).manifest.embedding == Bundle.open(original).manifest.embedding
    for graph in ("detect.onnx", "reid.onnx"):
        one, other = (hashlib.sha256((folder / graph).read_bytes()) for folder in (report.bundle, original))
        assert one.digest() == other.digest(), graph


@VARIANT
def test_real_sizes(variant, tmp_path):
    """Counts at the real sizes, from the list of names that was published with the files."""
    path, output = tmp_path / "x.pth", tmp_path / "x.safetensors"
    torch.save({"model": before_013(numbered(variant, CUHK_SYSU)), **training_state()}, path)
    conversion = convert_released(path, output)
    shapes = released_shapes(variant)
    assert conversion.dataset_sizes == "CUHK-SYSU"
    assert conversion.total.read == len(shapes)
    assert conversion.total.numbers == 1 + sum(torch.Size(shape).numel() for shape in shapes.values())
    assert conversion.to_dict()["torchvision"] == "<0.13"
    ours, theirs = read_checkpoint(output), read_checkpoint(path)
    assert ours.config == theirs.config and ours.dataset is theirs.dataset is None
    assert ours.state.keys() == theirs.state.keys()
    assert all(torch.equal(value, theirs.state[name]) for name, value in ours.state.items())
    output.unlink()  # pytest would keep its hundreds of megabytes


# What is refused; nothing is written then.


def refused(source, output, error=CheckpointError, **options):
    """The message, a sentence that names the file."""
    before = output.read_bytes() if output.is_file() else None
    with pytest.raises(error) as caught:
        convert_released(source, output, **options)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message
    assert (output.read_bytes() if output.is_file() else None) == before
    return message


def test_checkpoints_of_ours(small, tmp_path):
    model, source, output = small
    convert_released(source, output)
    again = refused(output, tmp_path / "again.safetensors")
    assert again.startswith(f"{output} is a checkpoint of psarm and needs no conversion")
    torch.save({"model": model.state_dict(), "config": {"model": {}}, "epoch": 1}, tmp_path / "last.pt")
    assert "is a training state of psarm and needs no conversion" in refused(
        tmp_path / "last.pt", tmp_path / "again.safetensors"
    )


def test_targets(small, tmp_path):
    _, source, output = small
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    assert f"is a folder; give the file to write, such as {folder}/released.safetensors." in refused(
        source, folder, UsageError
    )
    assert "does not end in .safetensors" in refused(source, tmp_path / "ours.pth", UsageError)
    output.write_text("mine")
    assert "replace it with --overwrite" in refused(source, output, UsageError)
    convert_released(source, output, overwrite=True)
    assert read_checkpoint(output).config.variant == "psarm"
    misnamed = source.rename(tmp_path / "released.safetensors")
    assert "is the file to convert" in refused(misnamed, misnamed, UsageError, overwrite=True)
    convert_released(misnamed, tmp_path / "deep" / "down" / "ours.safetensors")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"model": torchvision.models.resnet18().state_dict()}, "another architecture (first parameter: conv1.weight)"),
        (torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None), "refuses it"),
        ({"state_dict": {"backbone.conv1.weight": torch.zeros(1)}, "meta": {}}, "holds no model weights"),
        ({"model": {}}, "holds no model weights"),
        ([1, 2], "holds no model weights"),
        ({"model": {"roi_heads.embedding_head.projectors.feat_res5.0.weight": torch.zeros(1)}}, "NAE's single head"),
    ],
    ids=["resnet", "pickled module", "another wrapper", "nothing", "list", "nae"],
)
def test_other_torch_files(content, says, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    assert says in refused(tmp_path / "x.pth", tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b"<html>404</html>", "is not a checkpoint"), (b"PK\x03\x04" + bytes(99), "is damaged")],
    ids=["empty", "web page", "half a zip"],
)
def test_other_files(content, says, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    assert says in refused(tmp_path / "x.pth", tmp_path / "x.safetensors")


def test_code_is_not_run(tmp_path):
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"model": TouchesFile(tmp_path / "touched")}))
    assert "could run code" in refused(tmp_path / "x.pth", tmp_path / "x.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


def test_a_released_state_dict_in_a_safetensors_file(tmp_path):
    from safetensors.torch import save_file

    save_file({name: torch.zeros(1) for name in released_shapes("seqnet")}, tmp_path / "x.safetensors")
    assert "is a safetensors file, and the released" in refused(tmp_path / "x.safetensors", tmp_path / "y.safetensors")
