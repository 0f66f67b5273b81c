"""`psarm models`, the table in docs/models.md, and `psarm train` with a preset's name."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from psarm import console
from psarm.benchmarks.model_table import DOCUMENT, main, markdown, model_rows, with_table
from psarm.cli import run
from psarm.cli.models import _print_table
from psarm.presets import load_presets


@pytest.fixture(scope="module")
def rows():
    return model_rows()


def test_json_lists_every_preset(capsys):
    assert run(["models", "--json"]) == 0
    models = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert list(models) == [preset.name for preset in load_presets()]
    psarm = models["psarm_prw"]
    assert psarm["title"] == "PS-ARM (Baseline + ARM)" and psarm["paper"] == "Tables 1 and 2"
    assert (psarm["variant"], psarm["backbone"], psarm["dataset"]) == ("psarm", "resnet50", "prw")
    assert psarm["published"] == {"mAP": 52.6, "top1": 88.1, "recall": 97.1, "AP": 93.9}
    assert psarm["measured"] == {}
    macs = psarm["macs"]
    assert round(macs["total"] / 1e9, 1) == 468.6
    assert macs["total"] == sum(macs[stage] for stage in ("backbone", "rpn", "first_head", "reid_heads"))
    assert models["psarm_convnext_prw"]["paper"] is None and models["psarm_convnext_prw"]["published"] == {}
    assert models["cascaded_psarm_prw"]["parameters"] > psarm["parameters"] > models["seqnet_prw"]["parameters"]
    for name, model in models.items():
        twin = models.get(name.replace("_cuhk", "_prw"), model)
        assert (model["parameters"], model["macs"]) == (twin["parameters"], twin["macs"])


def shown(rows, monkeypatch, **settings):
    text = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=text, **settings))
    _print_table(rows)
    return text.getvalue().splitlines()


def test_a_pipe_gets_a_line_a_preset(rows, monkeypatch):
    lines = shown(rows, monkeypatch, width=80)
    for row in rows:
        [line] = [line for line in lines if line.split()[:1] == [row.preset.name]]
        assert re.split(r"  +", line.strip()) == row.cells()


@pytest.mark.parametrize("width", [80, 120, 300])
def test_a_terminal_gets_whole_cells(rows, monkeypatch, width):
    lines = shown(rows, monkeypatch, width=width, force_terminal=True, color_system=None)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width and "…" not in text
    for row in rows:
        name, _, parameters, macs, search, detection, ours = row.cells()
        here = [re.split(r"  +", line.strip()) for line in lines if line.split()[:1] == [name]]
        assert len(here) == (1 if width == 300 else 2)
        assert {parameters, macs, search, detection, ours} <= {cell for line in here for cell in line}


def test_the_document_has_the_table(rows):
    text = DOCUMENT.read_text(encoding="utf-8")
    assert markdown(rows) in text, "run: python -m psarm.benchmarks.model_table"
    assert with_table(text, rows) == text


def test_the_document_names_only_what_there_is(rows):
    text = DOCUMENT.read_text(encoding="utf-8")
    names = {row.preset.name for row in rows}
    assert set(re.findall(r"--config (\w+)", text)) <= names
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (DOCUMENT.parent / target).exists(), target
    variants = {row.preset.config.model.variant for row in rows}
    assert set(re.findall(r"^\| `(seqnet_\w+|psarm)` \|", text, re.MULTILINE)) - names <= variants


def test_the_table_is_put_in_place_of_the_old_one(rows, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("psarm.benchmarks.model_table.model_rows", lambda: rows)
    text = DOCUMENT.read_text(encoding="utf-8")
    document = tmp_path / "models.md"
    document.write_text(text.replace(rows[3].cells()[0], "gone"), encoding="utf-8")
    main([str(document)], standalone_mode=False)
    assert markdown(rows) in document.read_text(encoding="utf-8")
    document.write_text("# Models\n", encoding="utf-8")
    with pytest.raises(Exception, match="has no place for the table; it needs the lines"):
        main([str(document)], standalone_mode=False)
    assert document.read_text(encoding="utf-8") == "# Models\n"


def test_figures_of_ours_are_shown_once_there_are_some(rows):
    from dataclasses import replace

    from psarm.presets import Figures

    row = rows[0]
    about = replace(row.preset.about, measured=Figures(mAP=50.0, top1=80.25))
    row = replace(row, preset=replace(row.preset, about=about))
    assert row.cells()[-1] == "50.0 / 80.2" and row.to_dict()["measured"] == {"mAP": 50.0, "top1": 80.25}


def test_train_takes_a_preset_by_name(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["train", "--config", "cascaded_psarm_prw", "--data-root", "nowhere"]) == 2
    assert "data.root nowhere does not exist" in capsys.readouterr().err
    assert run(["train", "--config", "cascaded_psarm", "--data-root", "nowhere"]) == 2
    assert "no configuration file and no preset cascaded_psarm; did you mean cascaded_psarm_prw" in (
        capsys.readouterr().err
    )
    assert not list(Path(tmp_path).iterdir())
