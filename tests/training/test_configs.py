from pathlib import Path

import pytest

from psarm.config import load_config
from psarm.training.schedule import learning_rate

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_configuration_parses(path):
    config = load_config(path)
    assert learning_rate(config.train, config.train.epochs * 100 - 1, 100) > 0


def test_the_published_recipes():
    psarm, seqnet = (load_config(CONFIGS / name) for name in ("psarm_prw.yaml", "seqnet_prw.yaml"))
    assert (psarm.train.batch_size, psarm.train.epochs, psarm.train.lr_steps) == (3, 12, (8,))
    assert (seqnet.train.batch_size, seqnet.train.epochs, seqnet.train.lr_steps) == (5, 20, (16,))
    for config in (psarm, seqnet):
        recipe, model = config.train, config.model
        assert (recipe.lr, recipe.momentum, recipe.weight_decay, recipe.clip_norm) == (0.003, 0.9, 5e-4, 10)
        assert recipe.init == "imagenet" and recipe.loss_weights.detection_reg == 10
        assert (model.min_size, model.max_size, model.roi_size, model.num_identities) == (900, 1500, 14, 482)
    assert (psarm.model.variant, seqnet.model.variant) == ("psarm", "seqnet")


def test_the_demo_fine_tunes_the_model_that_ships():
    demo, release = (load_config(CONFIGS / name) for name in ("demo.yaml", "release.yaml"))
    assert demo.model == release.model


def test_numbers_with_an_exponent_are_numbers(tmp_path):
    (tmp_path / "c.yaml").write_text("train: {lr: 2e-4}\n")
    config = load_config(tmp_path / "c.yaml", ["train.weight_decay=1e-3", "train.clip_norm=1.5e1"])
    assert (config.train.lr, config.train.weight_decay, config.train.clip_norm) == (2e-4, 1e-3, 15.0)
