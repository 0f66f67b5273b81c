"""The presets that come with psarm: configurations by name, most of them a row of the paper's tables on one data set.

A preset is a YAML file of configs/ with a group `about`. Importable without torch.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path

from psarm.config import DATASETS, VARIANTS, Config, check_values, from_dict, load_config, read_groups
from psarm.errors import ConfigError

FOLDER = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Figures:
    """Accuracy on a test set in percent; left out where it is not known."""

    mAP: float | None = None
    """Of search."""
    top1: float | None = None
    """Of search."""
    recall: float | None = None
    """Of detection at IoU 0.5."""
    AP: float | None = None
    """Of detection at IoU 0.5."""

    def __post_init__(self) -> None:
        check_values(self, "about")


@dataclass(frozen=True)
class About:
    """What a preset is."""

    title: str = ""
    """The model as the paper's row calls it."""
    paper: str = ""
    """Where the row stands, such as 'Table 2'; empty for a model that the paper does not have."""
    published: Figures = field(default_factory=Figures)
    """The paper's figures."""
    measured: Figures = field(default_factory=Figures)
    """Ours, of a whole training and test with this preset on the real data set."""

    def __post_init__(self) -> None:
        check_values(self, "about")
        if not self.title:
            raise ConfigError("about.title is empty; needed what the model is called.")


@dataclass(frozen=True)
class Preset:
    """A named configuration."""

    name: str
    about: About
    config: Config


def load_presets() -> list[Preset]:
    """Every preset in the order of the paper: its rows on PRW, then on CUHK-SYSU, then what it does not have.

    Raises `ConfigError` naming the file and key of a preset that cannot be read.
    """
    found = []
    for path in sorted(FOLDER.glob("*.yaml")):
        groups = read_groups(path)
        if "about" in groups:
            about = from_dict(About, groups["about"], f"{path}: about")
            found.append(Preset(path.stem, about, load_config(path)))
    return sorted(found, key=_place_in_the_paper)


def find_config(name: str) -> Path:
    """The file that `name` is the path of, or else the file of configs/ with that name (`psarm_prw`).

    Raises `ConfigError` naming the nearest presets where there is neither.
    """
    known = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
    given = Path(name)
    if given.is_file() or (given.exists() and name not in known):
        return given
    if name in known:
        return known[name]
    near = difflib.get_close_matches(given.stem, known)
    hint = f"did you mean {' or '.join(near)}?" if near else "`psarm models` lists the presets."
    raise ConfigError(f"There is no configuration file and no preset {name}; {hint}")


def _place_in_the_paper(preset: Preset) -> tuple[bool, int, int, tuple[int, int], float]:
    model, dataset = preset.config.model, preset.config.data.dataset
    rows = list(VARIANTS)
    return not preset.about.paper, DATASETS.index(dataset), rows.index(model.variant), model.roi_shape, model.width
