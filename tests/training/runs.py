"""Tiny training runs for the tests."""

import dataclasses
from pathlib import Path

from psarm.config import Config, load_config
from psarm.training.state import STATE_FILE, TrainingState, load_state

TINY = Path(__file__).parents[2] / "configs" / "tiny.yaml"


def tiny(prw: Path, output: Path, **recipe: object) -> Config:
    """configs/tiny.yaml on the data set at `prw`, without evaluation unless asked for."""
    config = load_config(TINY)
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, root=str(prw)),
        train=dataclasses.replace(config.train, **{"output": str(output), "evaluate": False, **recipe}),
    )


def state_of(output: Path) -> TrainingState:
    """What a run left for `--resume`."""
    return load_state(output / STATE_FILE)
