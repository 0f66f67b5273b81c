"""docs/configuration.md is what the dataclasses say, and says something about every key."""

import dataclasses
import shlex
from itertools import pairwise
from pathlib import Path

from click.testing import CliRunner
from documents import assert_links_lead_somewhere

from psarm.benchmarks.configuration_page import attribute_docstrings, main, page
from psarm.config import DataConfig, LossWeights, ModelConfig, TrainConfig, load_config
from psarm.presets import About, Figures

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_committed_page_is_up_to_date():
    committed = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert committed == page(), "run `make docs` and commit docs/configuration.md"
    assert_links_lead_somewhere(committed, DOCS)


def test_every_key_has_a_meaning_and_its_default():
    text = page()
    for cls in (ModelConfig, DataConfig, TrainConfig, About, Figures):
        meanings = attribute_docstrings(cls)
        assert set(meanings) == {field.name for field in dataclasses.fields(cls)} - {"loss_weights"}
        for name, meaning in meanings.items():
            if name not in ("published", "measured"):
                [row] = {line for line in text.splitlines() if line.startswith(f"| `{name}` |")}
                assert row.endswith(f" {meaning} |")
    for field in dataclasses.fields(LossWeights):
        assert f"| `{field.name}` | `{field.default}` |" in text
    assert "| `roi_size` | whole number or list of whole numbers | `14` |" in text
    assert "| `deterministic` | true or false | `false` |" in text
    assert "| `amp` | `no`, `fp16`, `bf16` | `no` |" in text


def test_a_docstring_belongs_to_the_field_above_it():
    class Example:
        """Not a field's."""

        first: int = 1
        second: int = 2
        """Two
        lines."""

    assert attribute_docstrings(Example) == {"second": "Two lines."}


def test_overrides_of_the_page_are_taken():
    [line] = [line for line in page().splitlines() if line.startswith("psarm train")]

    words = shlex.split(line)
    overrides = [word for before, word in pairwise(words) if before == "-o"]
    config = load_config(DOCS.parent / "configs" / "psarm_prw.yaml", overrides)
    assert (config.train.batch_size, config.train.lr_steps, config.train.loss_weights.oim) == (4, (6, 9), 0.5)


def test_the_command_writes_the_page(tmp_path):
    result = CliRunner().invoke(main, [str(tmp_path / "configuration.md")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "configuration.md").read_text(encoding="utf-8") == page()
