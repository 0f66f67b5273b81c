"""Presets: each is a row of the paper's tables with the paper's figures, found by name."""

import subprocess
import sys
from collections import Counter
from dataclasses import astuple
from pathlib import Path

import pytest

from psarm import presets
from psarm.config import VARIANTS
from psarm.errors import ConfigError
from psarm.presets import find_config, load_presets

CONFIGS = Path(__file__).parents[1] / "configs"
TABLE_1 = {
    "nae": (91.5, 92.4, 43.3, 80.9),
    "seqnet": (94.8, 95.7, 47.6, 87.6),
    "nae_arm": (93.4, 94.2, 46.9, 81.4),
    "psarm": (95.2, 96.1, 52.6, 88.1),
    "cascaded_psarm": (None, None, 53.1, 88.3),
}
"""mAP and top-1 on CUHK-SYSU, then on PRW, of the paper's own rows and the baselines it builds on."""
TABLE_2 = {
    "seqnet": ("Baseline", 47.6, 87.6, 96.3, 93.1),
    "seqnet_mlp_mixer": ("Baseline + MLP-Mixer", 49.1, 86.8, 96.3, 93.3),
    "seqnet_transformer": ("Baseline + Transformer", 47.9, 85.8, 96.1, 93.5),
    "seqnet_spatio_channel": ("Baseline + Spatio-channel Attention Layer", 48.1, 86.2, 95.2, 93.0),
    "seqnet_channel_attended": (
        "Baseline + Spatial Mixing + Channel-wise Attended Channel Mixing",
        49.4,
        86.7,
        96.2,
        93.2,
    ),
    "seqnet_spatially_attended": (
        "Baseline + Spatially Attended Spatial Mixing + Channel Mixing",
        49.5,
        86.9,
        96.5,
        93.4,
    ),
    "seqnet_relation_mixer": ("Baseline + Relation Mixer", 51.8, 87.9, 96.6, 93.8),
    "psarm": ("PS-ARM (Baseline + ARM)", 52.6, 88.1, 97.1, 93.9),
}
"""PRW: title, mAP, top-1, recall, AP."""
FOR_CPUS = tuple(f"psarm_{size}_prw" for size in ("nano", "tiny", "small", "medium"))
# What the tables do not have: 24x8 RoIs (section 4.2), sizes for CPU boxes, and backbones of other papers.
BESIDE = ("psarm_24x8_prw", "seqnet_convnext_prw", *FOR_CPUS, "psarm_convnext_prw")


@pytest.fixture(scope="module")
def by_name():
    found = load_presets()
    assert max(Counter(preset.name for preset in found).values()) == 1
    return {preset.name: preset for preset in found}


def test_every_row_of_the_tables_is_there_and_nothing_else(by_name):
    rows = {f"{variant}_prw" for variant in (*TABLE_1, *TABLE_2)}
    rows |= {f"{variant}_cuhk" for variant, figures in TABLE_1.items() if figures[0] is not None}
    assert set(by_name) == rows | set(BESIDE)
    assert {preset.config.model.variant for preset in by_name.values()} == set(VARIANTS)


@pytest.mark.parametrize("variant", TABLE_1)
def test_figures_of_table_1(by_name, variant):
    cuhk_map, cuhk_top1, prw_map, prw_top1 = TABLE_1[variant]
    for name, figures in ((f"{variant}_prw", (prw_map, prw_top1)), (f"{variant}_cuhk", (cuhk_map, cuhk_top1))):
        if figures[0] is not None:
            about = by_name[name].about
            assert about.paper in ("Table 1", "Tables 1 and 2")
            assert (about.published.mAP, about.published.top1) == figures


@pytest.mark.parametrize("variant", TABLE_2)
def test_figures_of_table_2(by_name, variant):
    title, *figures = TABLE_2[variant]
    about = by_name[f"{variant}_prw"].about
    assert about.title == ("SeqNet (Baseline)" if title == "Baseline" else title)
    assert about.paper == ("Tables 1 and 2" if variant in TABLE_1 else "Table 2")
    assert astuple(about.published) == tuple(figures)


def test_only_table_2_has_figures_of_detection(by_name):
    have = {name for name, preset in by_name.items() if preset.about.published.recall is not None}
    assert have == {f"{variant}_prw" for variant in TABLE_2}


def test_what_the_tables_do_not_have(by_name):
    wide = by_name["psarm_24x8_prw"]
    assert wide.about.paper == "section 4.2"
    assert astuple(wide.about.published) == (55.3, 89.0, None, None)
    assert wide.config.model.roi_shape == (24, 8)
    for name in ("seqnet_convnext_prw", "psarm_convnext_prw"):
        assert by_name[name].about.paper == ""
        assert astuple(by_name[name].about.published) == (None,) * 4
        assert by_name[name].config.model.backbone == "convnext_base"


def test_sizes_for_cpus_grow(by_name):
    models = [by_name[name].config.model for name in FOR_CPUS]
    for name, model in zip(FOR_CPUS, models, strict=True):
        assert by_name[name].about.paper == "" and astuple(by_name[name].about.published) == (None,) * 4
        assert (model.variant, model.backbone, model.embedding_dim) == ("psarm", "resnet18", 256)
        init = by_name[name].config.train.init
        assert init == ("imagenet" if model.width == 1 else "")  # there are no ImageNet weights of another width
    sizes = [(m.width, m.max_size, m.roi_shape, m.post_nms_top_n_test) for m in models]
    assert sizes == sorted(sizes) and len(set(sizes)) == len(sizes)


def test_nothing_is_claimed_to_be_measured(by_name):
    assert {astuple(preset.about.measured) for preset in by_name.values()} == {(None,) * 4}


def test_names_say_variant_and_data_set(by_name):
    endings = {"prw": "prw", "cuhk-sysu": "cuhk"}
    for name, preset in by_name.items():
        model, data, recipe = preset.config.model, preset.config.data, preset.config.train
        assert name.endswith(f"_{endings[data.dataset]}")
        assert recipe.output == f"runs/{name}"
        if name not in BESIDE:
            assert name == f"{model.variant}_{endings[data.dataset]}"
            assert (model.backbone, model.roi_shape, model.arm_layout) == ("resnet50", (14, 14), "paper")


def test_order(by_name):
    names = list(by_name)
    assert names[:4] == ["nae_prw", "nae_arm_prw", "seqnet_prw", "psarm_prw"]
    assert names[-10:] == [*(f"{v}_cuhk" for v in ("nae", "nae_arm", "seqnet", "psarm")), *BESIDE[1:]]


def test_files_begin_with_what_they_are():
    for path in CONFIGS.glob("*.yaml"):
        assert path.read_text(encoding="utf-8").startswith("# "), path


def test_found_by_name_or_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("psarm_prw").read_text() == (CONFIGS / "psarm_prw.yaml").read_text()
    assert find_config("tiny").samefile(CONFIGS / "tiny.yaml")
    (tmp_path / "psarm_prw").mkdir()  # the output folder of an earlier training, say
    assert find_config("psarm_prw").samefile(CONFIGS / "psarm_prw.yaml")
    (tmp_path / "seqnet_prw").write_text("model: {}\n")
    assert find_config("seqnet_prw") == Path("seqnet_prw")
    assert find_config(str(CONFIGS / "tiny.yaml")) == CONFIGS / "tiny.yaml"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("psarm_pwr", "did you mean psarm_prw or "),
        ("seqnet_cuhk.yml", "did you mean seqnet_cuhk"),
        ("configs/nae_cuhk2.yaml", "did you mean nae_cuhk"),
        ("zzz", "`psarm models` lists the presets."),
    ],
)
def test_unknown_names(name, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        find_config(name)
    message = str(caught.value)
    assert message.startswith(f"There is no configuration file and no preset {name}; ")
    assert hint in message and "\n" not in message


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("about: {paper: Table 1}", "about.title is empty"),
        ("about: {title: 1}", "about.title is 1"),
        ("about: {title: A, figures: {}}", "about: unknown key 'figures'"),
        ("about: {title: A, published: {map: 1.0}}", "published: unknown key 'map'"),
        ("about: {title: A, published: {mAP: high}}", "about.mAP is 'high'"),
        ("about: A", "needed a mapping"),
        ("about: {title: A}\nmodel: {variant: sqnet}", "model.variant is 'sqnet'"),
    ],
)
def test_presets_are_read_strictly(text, complaint, tmp_path, monkeypatch):
    (tmp_path / "wrong.yaml").write_text(text + "\n")
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_presets()
    assert complaint in str(caught.value)


def test_no_torch_is_needed():
    code = "import sys, psarm.presets as p; p.load_presets(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
