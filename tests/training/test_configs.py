"""The configurations that come with psarm: all are read and built, and the recipes are the published ones."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from psarm.config import LossWeights, ModelConfig, TrainConfig, load_config
from psarm.model import build_model
from psarm.presets import load_presets
from psarm.training.schedule import learning_rate

CONFIGS = Path(__file__).parents[2] / "configs"
PSARM, SEQNET, NAE = (3, 12, (8,)), (5, 20, (16,)), (5, 22, (16,))
"""Batch size, epochs, and the epochs after which the learning rate falls."""
OTHER_RECIPES = {
    "seqnet_prw": SEQNET,
    "seqnet_cuhk": SEQNET,
    "seqnet_convnext_prw": SEQNET,
    "nae_prw": NAE,
    "nae_cuhk": NAE,
}
SIZES = ("psarm_nano_prw", "psarm_tiny_prw", "psarm_small_prw", "psarm_medium_prw")
"""Ours for CPU boxes, with recipes of their own."""
ALL_PRESETS = {preset.name: preset.config for preset in load_presets()}
PRESETS = {name: config for name, config in ALL_PRESETS.items() if name not in SIZES}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_configuration_parses_and_builds(path):
    config = load_config(path)
    assert learning_rate(config.train, config.train.epochs * 100 - 1, 100) > 0
    with torch.device("meta"):
        model = build_model(config.model)
    assert model.config == config.model


@pytest.mark.parametrize("name", PRESETS)
def test_recipes(name):
    """What a preset does not share with the paper's recipe is batch, epochs, steps and the weight of NAE's boxes."""
    config = PRESETS[name]
    recipe = config.train
    assert (recipe.batch_size, recipe.epochs, recipe.lr_steps) == OTHER_RECIPES.get(name, PSARM)
    single_head = config.model.parts.heads == "nae"
    assert recipe.loss_weights == LossWeights(reid_reg=10.0 if single_head else 1.0)
    assert recipe.lr_batch == recipe.batch_size
    shared = {
        "batch_size": 3,
        "lr_batch": 0,
        "epochs": 12,
        "lr_steps": (8,),
        "loss_weights": LossWeights(),
        "output": "",
        "init": "",
    }
    assert replace(recipe, **shared) == replace(TrainConfig(), **shared)
    assert recipe.init == "imagenet"
    assert (recipe.lr, recipe.momentum, recipe.weight_decay, recipe.clip_norm) == (0.003, 0.9, 5e-4, 10)


@pytest.mark.parametrize("name", PRESETS)
def test_models(name):
    """What a preset's model does not share with the published one is in its name."""
    model = PRESETS[name].model
    changes = {"variant": model.variant, "queue_size": 5000 if name.endswith("_cuhk") else 500}
    if "24x8" in name:
        changes["roi_size"] = (24, 8)
    if "convnext" in name:
        changes["backbone"] = "convnext_base"
    assert model == replace(ModelConfig(), **changes)


def test_sizes_grow():
    """From nano to medium nothing that costs time gets less."""
    models = [ALL_PRESETS[name].model for name in SIZES]
    costs = [(model.width, model.max_size, model.roi_size[0], model.post_nms_top_n_test) for model in models]
    assert costs == sorted(costs) and len(set(costs)) == len(costs)
    assert all(model.variant == "psarm" and model.backbone == "resnet18" for model in models)


def test_the_demo_fine_tunes_the_model_that_ships():
    demo, release = (load_config(CONFIGS / name) for name in ("demo.yaml", "release.yaml"))
    assert demo.model == release.model


def test_numbers_with_an_exponent_are_numbers(tmp_path):
    (tmp_path / "c.yaml").write_text("train: {lr: 2e-4}\n")
    config = load_config(tmp_path / "c.yaml", ["train.weight_decay=1e-3", "train.clip_norm=1.5e1"])
    assert (config.train.lr, config.train.weight_decay, config.train.clip_norm) == (2e-4, 1e-3, 15.0)
