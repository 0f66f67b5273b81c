"""The commands of docs/bring-your-own.md run, and print what it says they print."""

import json
import re
from pathlib import Path

import pytest
import torch
from clips import write_clip, write_coco
from documents import assert_commands_exist, assert_links_lead_somewhere, console_commands, python_blocks, section
from released_files import empty_state, small_released, training_state
from small_models import SMALL, VARIANTS, exported_once, skip_tracing
from toy_prw import write_toy_prw

from psarm.cli import run

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "bring-your-own.md").read_text(encoding="utf-8")
CHECKPOINT = section(PAGE, "Bring your own checkpoint")
VIDEO = section(PAGE, "Bring your own video")
ELISION = "…"
ONE_EPOCH = ("train.epochs=1", "train.threads=1", "data.workers=0")
QUICK = {
    "bench": ["--threads", "1", "--frames", "1"],
    "data convert": ["--every", "1"],
    "train": [word for override in ONE_EPOCH for word in ("-o", override)],
    "export": ["--no-verify"],
}
"""Options that the test adds to a command."""


def test_commands_and_files_exist():
    assert_commands_exist(PAGE)
    assert_links_lead_somewhere(PAGE, DOCS)


def test_conversion_prints_what_the_page_shows(tmp_path, monkeypatch, capfd):
    """To the letter, on files with the names and sizes of the released ones; nothing printed depends on the values."""
    from psarm.model import conversion

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(conversion, "save_checkpoint", lambda checkpoint, path: None)
    state = empty_state("psarm")
    torch.save({"model": state, **training_state()}, "psarm_prw.pth")
    torch.save({"model": state | {"roi_heads.extra.weight": torch.zeros(1)}}, "finetuned.pth")
    torch.save({"conv1.weight": torch.zeros(1)}, "resnet50.pth")
    conversions = [(words, shown) for words, shown in console_commands(CHECKPOINT) if words[0] == "convert"]
    assert len(conversions) == 3
    for words, shown in conversions:
        code = run(words)
        out, err = capfd.readouterr()
        assert (code, out, err) == ((1, "", shown) if shown.startswith("Error: ") else (0, shown, ""))


@pytest.mark.slow
def test_from_the_file_to_the_benchmark(tmp_path, tmp_path_factory, monkeypatch, capfd):
    """On a small model under the released names, whose graphs were traced before."""
    monkeypatch.chdir(tmp_path)
    write_toy_prw(Path("PRW"), gallery=2, queries=1)
    model = small_released("psarm_prw.pth", monkeypatch)
    skip_tracing(exported_once(tmp_path_factory, "released")[1], monkeypatch)
    commands = [(words, shown) for words, shown in console_commands(CHECKPOINT) if "Error: " not in shown]
    assert [words[0] for words, _ in commands] == ["convert", "export", "bench", "train"]
    small = [f"model.{key}={json.dumps(value)}" for key, value in {**SMALL, **VARIANTS["released"]}.items()]
    quick = {
        "bench": QUICK["bench"],
        "train": [w for o in [*small, *ONE_EPOCH, "train.batch_size=1"] for w in ("-o", o)],
    }
    for words, shown in commands:
        code = run([*words, *quick.get(words[0], [])])
        out, err = capfd.readouterr()
        assert code == 0, err
        if words[0] in ("export", "train"):
            assert {line for line in shown.splitlines() if line != ELISION} <= set(out.splitlines())
    for name in ("psarm_prw.pth", "psarm_prw.safetensors"):
        [code] = python_blocks(CHECKPOINT)
        exec(compile(code.replace("psarm_prw.pth", name), "bring-your-own.md", "exec"), {})
        assert capfd.readouterr().out == f"psarm released {model.config.num_identities}\n"


@pytest.mark.slow
def test_from_the_video_to_the_benchmark(tmp_path, monkeypatch, capfd):
    """On a tiny drawn clip: the commands run, and print the lines that do not depend on what is in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "release").symlink_to(DOCS.parent / "release")
    write_clip(tmp_path)
    write_coco(tmp_path)
    commands = console_commands(VIDEO)
    names = [" ".join(words[:2]) if words[0] == "data" else words[0] for words, _ in commands]
    assert names == ["data convert", "data check", "data convert", "train", "export", "bench"]
    for name, (words, shown) in zip(names, commands, strict=True):
        code = run([*words, *QUICK.get(name, [])])
        out, err = capfd.readouterr()
        assert code == 0, err
        if "clip.avi" in words:
            kept = [line for line in shown.splitlines() if line.startswith(("┃", "Next:"))]
            assert kept and set(kept) <= set(out.splitlines())
        else:
            assert {line for line in shown.splitlines() if line != ELISION} <= set(out.splitlines())


def test_people_file_of_the_page_is_what_the_command_reads(tmp_path):
    from psarm.data.convert.mot_labels import read_people

    [example] = re.findall(r"`people.json`: `(.*?)`", VIDEO)
    (tmp_path / "people.json").write_text(example)
    people = read_people(tmp_path / "people.json")
    assert people == {int(track): person for track, person in json.loads(example)["track_to_person"].items()}
