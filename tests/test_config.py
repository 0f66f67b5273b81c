"""Configuration files and overrides: what is taken, and how what is not taken is named."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from psarm.config import (
    VARIANTS,
    Config,
    DataConfig,
    LossWeights,
    ModelConfig,
    TrainConfig,
    from_dict,
    load_config,
    to_dict,
)
from psarm.errors import ConfigError

KEYS_OF_DATA = "known keys are dataset, root, workers, group_by_shape, bad_images, validation."


def write(folder, text):
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(call):
    """The message of the ConfigError that `call` raises: one line that ends as a sentence."""
    with pytest.raises(ConfigError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", "?"))
    return message


def test_defaults_are_the_published_recipe():
    model, train = ModelConfig(), TrainConfig()
    assert (model.variant, model.backbone, model.arm_layout) == ("psarm", "resnet50", "paper")
    assert (model.min_size, model.max_size, model.roi_size, model.embedding_dim) == (900, 1500, 14, 256)
    assert (train.epochs, train.batch_size, train.lr, train.lr_steps, train.lr_gamma) == (12, 3, 0.003, (8,), 0.1)
    assert (train.momentum, train.weight_decay, train.warmup_epochs, train.clip_norm) == (0.9, 5e-4, 1, 10)
    assert to_dict(train.loss_weights) == {
        "rpn_cls": 1,
        "rpn_reg": 1,
        "detection_cls": 1,
        "detection_reg": 10,
        "reid_cls": 1,
        "reid_reg": 1,
        "oim": 1,
    }


def test_importing_it_needs_no_torch():
    code = "import sys, psarm.config; sys.exit('torch' in sys.modules or 'yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(
            ModelConfig(variant="seqnet", width=0.25, anchor_sizes=(8,), anchor_ratios=(1.0, 2.5)),
            DataConfig(root="a b"),
            TrainConfig(lr_steps=(), amp="bf16", loss_weights=LossWeights(oim=0.5)),
        ),
    ],
    ids=["defaults", "other"],
)
def test_to_dict_and_from_dict_are_inverse(config, tmp_path):
    import yaml

    tree = to_dict(config)
    assert from_dict(Config, tree, "here") == config
    assert load_config(write(tmp_path, yaml.safe_dump(tree))) == config
    assert to_dict(from_dict(Config, tree, "here")) == tree


def test_a_file_changes_what_it_names_only(tmp_path):
    path = write(tmp_path, "model:\n  width: 1\n  anchor_ratios: [1, 2]\ntrain:\n  loss_weights:\n    oim: 2\n")
    config = load_config(path)
    assert config.model == replace(ModelConfig(), width=1.0, anchor_ratios=(1.0, 2.0))
    assert isinstance(config.model.width, float)
    assert isinstance(config.model.anchor_ratios[0], float)
    assert config.train.loss_weights == LossWeights(oim=2.0)
    assert config.data == DataConfig()


def test_an_empty_group_is_the_defaults(tmp_path):
    assert load_config(write(tmp_path, "model: {}\n")) == Config()


def test_what_a_preset_says_about_itself_is_ignored(tmp_path):
    path = write(tmp_path, "about: {title: a row}\nmodel: {variant: seqnet}\n")
    assert load_config(path) == Config(ModelConfig(variant="seqnet"))
    assert "no group or key 'about'" in refusal(lambda: load_config(path, ["about.title=x"]))


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "{}"])
def test_an_empty_file_is_refused(text, tmp_path):
    path = write(tmp_path, text)
    message = refusal(lambda: load_config(path, ["train.epochs=2"]))
    assert message == f"{path} is empty; it needs the groups model, data, train (see configs/)."


def test_overrides(tmp_path):
    path = write(tmp_path, "train:\n  epochs: 3\n")
    config = load_config(
        path,
        [
            "train.epochs=4",
            "train.lr=1e-4",
            "train.lr_steps=[2, 3]",
            "train.loss_weights.detection_reg=5",
            "model.backbone=resnet18",
            "data.root=/data/a=b",
            "train.evaluate=false",
        ],
    )
    assert config.train.epochs == 4
    assert config.train.lr == 1e-4
    assert config.train.lr_steps == (2, 3)
    assert config.train.loss_weights.detection_reg == 5
    assert config.model.backbone == "resnet18"
    assert config.data.root == "/data/a=b"
    assert config.train.evaluate is False


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.epochs", "is not of the form group.key=value"),
        ("=4", "is not of the form group.key=value"),
        ("train.epochs.more=4", "train.epochs is a value, not a group"),
        ("train=4", "train is a group; give one of its keys: output, epochs, "),
        ("train.epochs=four", "train.epochs"),
        ("train.epochs=", "train.epochs"),
        ("train.epochs=0", "train.epochs"),
        ("train.lr_steps=[2", "train.lr_steps"),
        ("train.lr_steps={", "train.lr_steps"),
        ("data.root=a: b: c", "data.root"),
    ],
)
def test_bad_overrides(override, says, tmp_path):
    assert says in refusal(lambda: load_config(write(tmp_path, "train:\n  epochs: 3\n"), [override]))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("epochs=2", "there is no group or key 'epochs'; did you mean train.epochs?"),
        ("trian.epochs=2", "there is no group or key 'trian'; did you mean train.epochs?"),
        ("loss_weights.oim=2", "there is no group or key 'loss_weights'; did you mean train.loss_weights.oim?"),
        ("train.width=1", "train has no key 'width'; did you mean model.width?"),
        ("nothing=2", "there is no group or key 'nothing'; the groups are model, data, train."),
        ("data.rot=x", "data has no key 'rot'; did you mean data.root?"),
        ("train.epoch=3", "train has no key 'epoch'; did you mean train.epochs?"),
        ("data.colour=x", f"data has no key 'colour'; {KEYS_OF_DATA}"),
        ("data={colour: x}", f"data has no key 'colour'; {KEYS_OF_DATA}"),
    ],
)
def test_an_unknown_key_of_an_override_is_not_blamed_on_the_file(override, says, tmp_path):
    message = refusal(lambda: load_config(write(tmp_path, "train:\n  epochs: 3\n"), [override]))
    assert message == f"Override {override!r}: {says}"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.epochs=three", "train.epochs is 'three'; needed a whole number."),
        ("train.lr=much", "train.lr is 'much'; needed a number."),
        ("train.evaluate=3", "train.evaluate is 3; needed true or false."),
        ("train.output=3", "train.output is 3; needed a text."),
        ("train.lr_steps=8", "train.lr_steps is 8; needed a list of whole numbers, such as [8]."),
        ("model.anchor_ratios=2", "model.anchor_ratios is 2; needed a list of numbers, such as [0.5]."),
    ],
)
def test_a_value_of_another_type_is_told_what_is_needed(override, says, tmp_path):
    assert refusal(lambda: load_config(write(tmp_path, "train:\n  epochs: 3\n"), [override])).endswith(says)


def test_a_group_of_the_file_that_is_none_is_not_blamed_on_the_override(tmp_path):
    path = write(tmp_path, "train: 3\n")
    assert f"{path}: train: got 3" in refusal(lambda: load_config(path, ["train.epochs=4"]))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model: [1, 2\n", "is not valid YAML"),
        ("model:\n\twidth: 1\n", "is not valid YAML"),
        ("a: b: c\n", "is not valid YAML"),
        ("- model\n", "holds a list"),
        ("model\n", "holds a str"),
        ("3\n", "holds a int"),
        ("models: {}\n", "unknown key 'models'"),
        ("1: 2\n", "unknown key 1"),
        ("model: 3\n", "model"),
        ("model:\n", "model"),
        ("train:\n  loss_weights: 3\n", "loss_weights"),
        ("train:\n  loss_weights: {reid: 1}\n", "unknown key 'reid'"),
        ("model: {widht: 1}\n", "unknown key 'widht'"),
        ("!!python/object/apply:os.system ['true']\n", "is not valid YAML"),
    ],
)
def test_bad_files(text, says, tmp_path):
    path = write(tmp_path, text)
    message = refusal(lambda: load_config(path))
    assert says in message
    assert str(path) in message


def test_unknown_keys_are_answered_with_the_known_ones(tmp_path):
    message = refusal(lambda: load_config(write(tmp_path, "data: {rot: x}\n")))
    assert "known keys are bad_images, dataset" in message


def test_files_that_cannot_be_read(tmp_path):
    missing = tmp_path / "missing.yaml"
    message = refusal(lambda: load_config(missing))
    assert message == f"There is no configuration file {missing}; configs/ of a checkout holds presets."
    assert refusal(lambda: load_config(tmp_path)) == f"Cannot read the configuration file {tmp_path}: Is a directory."


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x93", b"train\x00\x01"])
def test_a_file_that_is_not_text(content, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    assert refusal(lambda: load_config(path)) == f"{path} is not a text file; a YAML file in UTF-8 is needed."


def test_a_yaml_error_is_its_place(tmp_path):
    path = write(tmp_path, "model:\n\twidth: 1\n")
    assert refusal(lambda: load_config(path)) == f"{path} is not valid YAML (line 2, column 1)."


WRONG_TYPES = {
    "model": {
        "variant": ["psram", 3, None, True, ["psarm"]],
        "backbone": ["resnet152"],
        "arm_layout": ["straight"],
        "width": ["wide", None, True, [1]],
        "min_size": [900.5, "900", None, True],
        "anchor_sizes": [32, [32.5], ["a"], None, {}],
        "anchor_ratios": [1, [None], ["x"]],
    },
    "data": {"dataset": ["cuhk"], "root": [3, None], "workers": [1.5, "two"]},
    "train": {
        "amp": ["fp8", True],
        "evaluate": ["yes", 1],
        "lr": ["fast", None],
        "lr_steps": [8, [8.5]],
        "init": [None],
    },
}


@pytest.mark.parametrize(
    ("group", "key", "value"),
    [(group, key, value) for group, keys in WRONG_TYPES.items() for key, values in keys.items() for value in values],
)
def test_wrong_types_are_named(group, key, value):
    message = refusal(lambda: from_dict(Config, {group: {key: value}}, "here"))
    assert f"{group}.{key} is " in message
    assert "needed" in message


BAD_VALUES = {
    "model": {
        "width": [0, -1, float("nan")],
        "min_size": [0, -5, 1501],
        "max_size": [899],
        "embedding_dim": [0, 255, -2],
        "anchor_sizes": [[], [0], [32, -1]],
        "anchor_ratios": [[], [0]],
        "roi_size": [0, 1, [7], [0, 3], [1, 1], [24, 8, 1]],
        "roi_batch_size": [0],
        "rpn_batch_size": [-1],
        "num_identities": [0],
        "detections_per_image": [0],
        "arm_reduction": [0],
        "queue_size": [-1],
        "score_thresh": [-0.1, 1.1],
        "detection_nms_thresh": [2],
        "final_nms_thresh": [-1],
        "rpn_nms_thresh": [1.5],
        "oim_momentum": [-0.5],
        "arm_dropout": [1.01],
        "pre_nms_top_n_train": [0],
        "pre_nms_top_n_test": [-1],
        "post_nms_top_n_train": [0],
        "post_nms_top_n_test": [0],
    },
    "data": {"workers": [-1]},
    "train": {
        "epochs": [0, -1],
        "batch_size": [0],
        "lr": [0, -0.1, float("nan")],
        "clip_norm": [0],
        "warmup_epochs": [-1],
        "flip": [-0.1, 1.5],
        "seed": [-1],
        "threads": [-1],
    },
}


def test_one_cell_is_enough_where_nothing_compares_cells():
    for variant in VARIANTS:
        compared = VARIANTS[variant].mixing in ("arm", "spatio_channel")
        assert ModelConfig(variant=variant, roi_size=(1, 2)).roi_shape == (1, 2)
        if compared:
            message = refusal(lambda variant=variant: ModelConfig(variant=variant, roi_size=1))
            assert message == "model.roi_size is 1; needed at least 2 cells, which SimAM compares."
        else:
            assert ModelConfig(variant=variant, roi_size=1).roi_shape == (1, 1)


@pytest.mark.parametrize(
    ("group", "key", "value"),
    [(group, key, value) for group, keys in BAD_VALUES.items() for key, values in keys.items() for value in values],
)
def test_bad_values_are_named(group, key, value):
    message = refusal(lambda: from_dict(Config, {group: {key: value}}, "here"))
    # A pair of sizes is named by the first.
    assert f"{group}.{'min_size' if key == 'max_size' else key} is " in message
    assert "needed" in message


def test_values_made_in_code_are_checked_too():
    assert "model.width" in refusal(lambda: ModelConfig(width="wide"))
    assert "model.anchor_sizes" in refusal(lambda: ModelConfig(anchor_sizes=[32]))
    assert "train.epochs" in refusal(lambda: TrainConfig(epochs=True))


def test_every_preset_of_the_checkout_is_read():
    presets = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
    assert presets
    for preset in presets:
        assert isinstance(load_config(preset), Config)
