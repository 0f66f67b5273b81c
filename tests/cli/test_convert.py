"""`psarm convert` as a user meets it: through the command line."""

import json
from pathlib import Path

import pytest
import torch
from failing import failing
from released_files import PARALLEL, before_013, empty_state, released_shapes, small_released, training_state

import psarm
from psarm.cli import run
from psarm.model import conversion


@pytest.fixture
def unwritten(monkeypatch):
    """Files of hundreds of megabytes are not written."""
    monkeypatch.setattr(conversion, "save_checkpoint", lambda checkpoint, path: path.write_bytes(b"x"))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A small PS-ARM under the released names."""
    monkeypatch.chdir(tmp_path)
    return small_released(tmp_path / "small.pth", monkeypatch)


def converted(capfd, *arguments):
    """Standard output of a conversion that works and has nothing to say on stderr."""
    assert run(["convert", *map(str, arguments)]) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    return printed.out


def files():
    """Names of what lies in the working directory."""
    return sorted(path.name for path in Path().iterdir())


def row(printed, part):
    """The cells of a part's row, without the name."""
    [line] = [line for line in printed.splitlines() if line.startswith(f"│ {part} ")]
    return [cell.strip() for cell in line.strip("│").split("│")][1:]


@pytest.mark.usefixtures("unwritten")
@pytest.mark.parametrize(
    ("variant", "tables", "sizes"),
    [
        ("psarm", (482, 500), "482 identities, a queue of 500 (the sizes of PRW)"),
        ("seqnet", (5532, 5000), "5532 identities, a queue of 5000 (the sizes of CUHK-SYSU)"),
        ("seqnet", (31, 20), "31 identities, a queue of 20 (neither CUHK-SYSU nor PRW)"),
    ],
)
def test_what_was_recognised(variant, tables, sizes, tmp_path, capfd):
    state = empty_state(variant, tables)
    torch.save({"model": state, **training_state()}, tmp_path / "x.pth")
    printed = converted(capfd, tmp_path / "x.pth", tmp_path / "x.safetensors")
    assert printed.startswith(f"Recognised: {'PS-ARM, released layout' if variant == 'psarm' else 'SeqNet'}\n")
    assert f"OIM tables: {sizes}\n" in printed
    assert "File: float32, RPN named as by torchvision 0.13 or later\n" in printed
    assert "Saved after: epoch 11, counted from 0\n" in printed
    read, _, added, written, numbers = row(printed, "all")
    shapes = released_shapes(variant, *tables)
    assert (int(read), added, int(written)) == (len(shapes), "1", len(shapes) + 1)
    assert int(numbers.replace(",", "")) == 1 + sum(torch.Size(shape).numel() for shape in shapes.values())
    assert "Added as 0: roi_heads.reid_loss.header (" in printed
    assert "Left out: optimizer, lr_scheduler, epoch (" in printed
    assert ("ARM" in printed.split("backbone")[1]) == (variant == "psarm")


@pytest.mark.usefixtures("unwritten")
def test_an_older_file_from_several_gpus_in_half_precision(tmp_path, capfd):
    state = before_013(empty_state("seqnet", dtype=torch.float16))
    bare = {f"{PARALLEL}{name}": v for name, v in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(bare, tmp_path / "x.pth")
    printed = converted(capfd, tmp_path / "x.pth", tmp_path / "x.safetensors")
    assert (
        "File: float16, written as float32, RPN named as by torchvision before 0.13, "
        "DataParallel's 'module.' before every name\n"
    ) in printed
    assert "Saved after" not in printed and "Left out" not in printed
    assert f"Added as 0: {len(state) - len(bare)} x *.num_batches_tracked (" in printed
    assert row(printed, "RPN") == ["6", "6", "0", "6", row(printed, "RPN")[-1]]


def test_the_result_loads_and_exists_only_once(small, capfd):
    printed = converted(capfd, "small.pth", "ours.safetensors")
    assert printed.splitlines()[-2:] == [
        "Checkpoint: ours.safetensors",
        "Next: psarm export ours.safetensors --out ours.psarm",
    ]
    assert psarm.load_model("ours.safetensors").config == small.config
    assert failing(capfd, "convert", "small.pth", "ours.safetensors", code=2) == (
        "Error: ours.safetensors exists already; replace it with --overwrite or give another name."
    )
    before = Path("ours.safetensors").stat().st_ino
    converted(capfd, "small.pth", "ours.safetensors", "--overwrite")
    assert Path("ours.safetensors").stat().st_ino != before
    assert files() == ["ours.safetensors", "small.pth"]


def test_json_has_every_name(small, capfd):
    result = json.loads(converted(capfd, "small.pth", "ours.safetensors", "--json"))
    state = torch.load("small.pth", weights_only=True)["model"]
    assert sorted(result["names"]) == sorted(state)
    assert {*result["names"].values(), *result["added"]} == set(small.state_dict())
    assert result["parts"][-1] == {
        "name": "all",
        "read": len(state),
        "renamed": sum(ours != theirs for theirs, ours in result["names"].items()),
        "added": 1,
        "written": len(state) + 1,
        "numbers": sum(value.numel() for value in small.state_dict().values()),
    }
    about = {key: result[key] for key in ("variant", "arm_layout", "sizes_of", "torchvision", "epoch", "stored_as")}
    assert about == {
        "variant": "psarm",
        "arm_layout": "released",
        "sizes_of": None,
        "torchvision": ">=0.13",
        "epoch": 11,
        "stored_as": ["float32"],
    }
    assert (result["source"], result["output"]) == ("small.pth", "ours.safetensors")


# What cannot be converted.


def test_names_that_do_not_fit(small, capfd):
    content = torch.load("small.pth", weights_only=True)
    content["model"]["roi_heads.extra"] = content["model"].pop("rpn.head.cls_logits.bias")
    torch.save(content, "small.pth")
    assert failing(capfd, "convert", "small.pth", "ours.safetensors") == (
        "Error: small.pth is not the released PS-ARM: parameters 1 missing (rpn.head.cls_logits.bias), 1 unknown "
        "(roi_heads.extra); give the released file unchanged."
    )
    assert files() == ["small.pth"]


def test_files_that_need_none(small, capfd):
    converted(capfd, "small.pth", "ours.safetensors")
    sentence = failing(capfd, "convert", "ours.safetensors", "again.safetensors")
    assert "ours.safetensors is a checkpoint of psarm and needs no conversion; psarm export" in sentence
    Path("a.psarm").mkdir()
    Path("a.psarm", "manifest.json").write_text("{}")
    sentence = failing(capfd, "convert", "a.psarm", "again.safetensors", code=2)
    assert sentence.startswith("Error: a.psarm is a bundle (it has a manifest.json)")


def test_paths(small, capfd):
    assert "'nowhere.pth' does not exist" in failing(capfd, "convert", "nowhere.pth", "a.safetensors", code=2)
    assert "is a directory" in failing(capfd, "convert", ".", "a.safetensors", code=2)
    assert ". is a folder; give the file to write, such as small.safetensors." in failing(
        capfd, "convert", "small.pth", ".", code=2
    )
    assert "Missing argument 'OUTPUT'" in failing(capfd, "convert", "small.pth", code=2)
    assert "a.pth does not end in .safetensors" in failing(capfd, "convert", "small.pth", "a.pth", code=2)


def test_a_folder_that_cannot_be_written_to(small, capfd):
    Path("taken").touch()
    assert "taken" in failing(capfd, "convert", "small.pth", "taken/ours.safetensors")
