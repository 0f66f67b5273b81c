import dataclasses
import re
from urllib.error import URLError

import pytest
import torch
from released_files import small_released
from safetensors.torch import save_file
from tiny_runs import state_of, tiny
from torchvision.models import convnext_tiny, resnet18, resnet34
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from psarm.config import ModelConfig
from psarm.errors import CheckpointError, ConfigError, TrainingError
from psarm.model.builder import build_model
from psarm.model.checkpoint import read_checkpoint, save_model
from psarm.training.initial import freeze_as_saved, initialise, parameters
from psarm.training.trainer import train

SMALL = ModelConfig(backbone="resnet18", width=0.25, roi_size=7, num_identities=4, queue_size=5)
FULL = dataclasses.replace(SMALL, width=1.0)
NEXT = dataclasses.replace(SMALL, backbone="convnext_tiny")
HEADS = {
    "nae": ["reid_head"],
    "psarm": ["box_head", "reid_head"],
    "cascaded_psarm": ["box_head", "reid_head", "further.0.reid_head"],
}
STEMS = {
    "resnet18": ["conv1.weight", "bn1.weight", "bn1.bias"],
    "convnext_tiny": ["features.0.0.weight", "features.0.0.bias", "features.0.1.weight", "features.0.1.bias"],
}


def narrow_convnext():
    """torchvision's ConvNeXt-T of a quarter of its channels, which is what `width: 0.25` builds."""
    stages = [(24, 48, 3), (48, 96, 3), (96, 192, 9), (192, None, 3)]
    return ConvNeXt([CNBlockConfig(*stage) for stage in stages], num_classes=10)


def placed(weights, heads):
    """Where torchvision's parameters belong in a model, written out."""
    taken = {}
    for name, value in weights.items():
        last = re.sub(r"^features\.([67])\.", lambda found: f"layer4.{int(found[1]) - 6}.", name)
        if last.startswith("layer4."):
            taken |= {f"roi_heads.{head}.{last}": value for head in heads}
        elif not name.startswith(("fc.", "classifier.")):
            taken[f"backbone.{name}"] = value
    return taken


def assert_filled(model, weights, heads):
    """Every parameter of the backbone and of the heads' last stages comes from `weights`."""
    state = model.state_dict()
    taken = placed(weights, heads)
    assert all(torch.equal(state[name], value.to(state[name].dtype)) for name, value in taken.items())
    assert {name for name in state if name.startswith("backbone.") or ".layer4." in name} == taken.keys()


def fixed(model):
    return [name for name, value in model.named_parameters() if not value.requires_grad]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of downloaded weights in torch's cache, with random weights for two networks."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(resnet18().state_dict(), folder / "resnet18-f37072fd.pth")
    torch.save(convnext_tiny().state_dict(), folder / "convnext_tiny-983f1562.pth")
    return folder


@pytest.mark.parametrize(
    "backbone, file",
    [("resnet18", "resnet18-f37072fd.pth"), ("convnext_tiny", "convnext_tiny-983f1562.pth")],
)
def test_imagenet_fills_the_backbone_and_both_heads(cache, backbone, file):
    model = build_model(dataclasses.replace(FULL, backbone=backbone))
    initialise(model, "imagenet")
    assert_filled(model, torch.load(cache / file, weights_only=True), HEADS["psarm"])
    assert fixed(model) == [f"backbone.{name}" for name in STEMS[backbone]]


def test_imagenet_trains_and_resumes(cache, prw, tmp_path):
    config = tiny(prw, tmp_path / "run", epochs=1, init="imagenet", warmup_epochs=0.0)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, width=1.0, min_size=48, max_size=80))
    train(config)
    train(
        dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=2)), resume=True, allow_changes=True
    )
    state = state_of(tmp_path / "run").model
    cached = torch.load(cache / "resnet18-f37072fd.pth", weights_only=True)
    for name in STEMS["resnet18"]:
        assert torch.equal(state[f"backbone.{name}"], cached[name])
    assert not torch.equal(state["backbone.layer1.0.conv1.weight"], cached["layer1.0.conv1.weight"])


def test_imagenet_weights_out_of_reach(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(TrainingError, match=r"of resnet18 are neither in torch's cache nor downloadable .*no route"):
        initialise(build_model(FULL), "imagenet")


def test_imagenet_weights_are_downloaded_into_the_cache(tmp_path, monkeypatch):
    def download(url, target, hash_prefix, progress):
        assert (url, hash_prefix) == ("https://download.pytorch.org/models/resnet18-f37072fd.pth", "f37072fd")
        torch.save(weights, target)

    weights = resnet18().state_dict()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    initialise(model := build_model(FULL), "imagenet")
    assert_filled(model, weights, HEADS["psarm"])
    assert (tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth").is_file()


def test_imagenet_weights_damaged_in_the_cache(cache):
    path = cache / "resnet18-f37072fd.pth"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"resnet18-f37072fd\.pth is damaged"):
        initialise(build_model(FULL), "imagenet")


def test_imagenet_needs_the_full_width():
    with pytest.raises(ConfigError, match=r"model\.width 0\.25; ImageNet weights need width 1"):
        initialise(build_model(SMALL), "imagenet")


@pytest.mark.parametrize("variant", HEADS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_backbone_file_fills_every_copy_of_the_last_stage(tmp_path, variant, suffix):
    weights = narrow_convnext().state_dict()
    path = tmp_path / f"weights{suffix}"
    torch.save(weights, path) if suffix == ".pth" else save_file(weights, path)
    model = build_model(dataclasses.replace(NEXT, variant=variant))
    initialise(model, str(path))
    assert_filled(model, weights, HEADS[variant])
    assert fixed(model) == [f"backbone.{name}" for name in STEMS["convnext_tiny"]]


def test_a_backbone_file_may_lack_classifier_and_counters_and_be_half(tmp_path):
    weights = {name: value for name, value in resnet18().half().state_dict().items() if not name.startswith("fc.")}
    kept = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    torch.save({"model": kept}, tmp_path / "weights.pth")  # under `model`, as many training codes keep it
    initialise(model := build_model(FULL), str(tmp_path / "weights.pth"))
    assert_filled(model, weights, HEADS["psarm"])


def test_a_backbone_file_trains_and_resumes_without_it(prw, tmp_path):
    path = tmp_path / "weights.pth"
    weights = narrow_convnext().state_dict()
    torch.save(weights, path)
    config = tiny(prw, tmp_path / "run", epochs=1, init=str(path), warmup_epochs=0.0)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, backbone="convnext_tiny"))
    train(config)
    path.unlink()
    train(
        dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=2)), resume=True, allow_changes=True
    )
    state = state_of(tmp_path / "run").model
    assert all(torch.equal(state[f"backbone.{name}"], weights[name]) for name in STEMS["convnext_tiny"])
    assert not torch.equal(state["backbone.features.1.0.block.0.weight"], weights["features.1.0.block.0.weight"])


def another_network():
    return resnet34().state_dict()


def a_missing_parameter():
    weights = resnet18().state_dict()
    del weights["layer4.1.conv2.weight"]
    return weights


def an_unknown_parameter():
    return {**resnet18().state_dict(), "head.weight": torch.zeros(3)}


def another_shape():
    return {**resnet18().state_dict(), "bn1.bias": torch.zeros(32)}


@pytest.mark.parametrize(
    "weights, says",
    [
        (another_network, r"\d+ unknown \(first: layer1\.2\.conv1\.weight\)"),
        (a_missing_parameter, r"parameters 1 missing \(first: layer4\.1\.conv2\.weight\);"),
        (an_unknown_parameter, r"parameters 1 unknown \(first: head\.weight\);"),
        (another_shape, r"parameters 1 of another shape \(first: bn1\.bias is \[32\], needed \[64\]\);"),
        (lambda: {"rpn.weight": torch.zeros(2)}, r"missing \(first: conv1\.weight\), 1 unknown"),
    ],
)
def test_a_backbone_file_that_does_not_fit(tmp_path, weights, says):
    torch.save(weights(), path := tmp_path / "weights.pth")
    model = build_model(FULL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"weights\.pth does not fit the backbone resnet18: .*{says}"):
        initialise(model, str(path))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert fixed(model) == []


def test_a_backbone_file_of_another_width(tmp_path):
    torch.save(resnet18().state_dict(), path := tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"resnet18 of width 0\.25: parameters \d+ of another shape"):
        initialise(build_model(SMALL), str(path))


def test_resuming_stops_the_stem_only_where_the_run_had():
    optimizer = torch.optim.SGD(parameters(build_model(SMALL)), 0.1)
    freeze_as_saved(model := build_model(SMALL), optimizer.state_dict())
    assert fixed(model) == []
    model.backbone.freeze_stem()
    optimizer = torch.optim.SGD(parameters(model), 0.1)
    freeze_as_saved(model := build_model(SMALL), optimizer.state_dict())
    assert fixed(model) == [f"backbone.{name}" for name in STEMS["resnet18"]]


@pytest.mark.parametrize("variant", HEADS)
@pytest.mark.parametrize("backbone", STEMS)
def test_a_checkpoint_gives_everything_but_the_tables(tmp_path, backbone, variant):
    config = dataclasses.replace(SMALL, backbone=backbone, variant=variant)
    source = build_model(dataclasses.replace(config, num_identities=9, queue_size=3))
    for name, value in source.state_dict().items():
        if ".reid_loss." in name:
            value.fill_(1)
    save_model(source, tmp_path / "model.safetensors")
    model = build_model(config)
    initialise(model, str(tmp_path / "model.safetensors"))
    given = source.state_dict()
    for name, value in model.state_dict().items():
        if ".reid_loss." in name:
            assert not value.any()
        else:
            assert torch.equal(value, given[name])
    assert fixed(model) == []


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    save_model(build_model(dataclasses.replace(SMALL, variant="seqnet")), tmp_path / "seqnet.safetensors")
    with pytest.raises(
        CheckpointError, match=r"\(model\.variant is psarm, there seqnet\); give -o model\.variant=seqnet\.$"
    ):
        initialise(build_model(SMALL), str(tmp_path / "seqnet.safetensors"))
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        initialise(build_model(SMALL), str(tmp_path / "none.safetensors"))


MEANING = {  # of the same weights: another model than SMALL's, and the override that makes it the same
    "variant": ({"variant": "seqnet_relation_mixer"}, "-o model.variant=seqnet_relation_mixer"),
    "arm_layout": ({"arm_layout": "released"}, "-o model.arm_layout=released"),
    "roi_size": ({"roi_size": (49, 1)}, "-o 'model.roi_size=[49, 1]'"),
    "anchor_sizes": ({"anchor_sizes": (8, 64, 128, 256, 512)}, "-o 'model.anchor_sizes=[8, 64, 128, 256, 512]'"),
    "anchor_ratios": ({"anchor_ratios": (1.0, 0.5, 2.0)}, "-o 'model.anchor_ratios=[1.0, 0.5, 2.0]'"),
}
SHAPES = {"backbone": "resnet50", "width": 0.5, "arm_reduction": 2, "embedding_dim": 128}
FREE = {
    "arm_dropout": 0.1,
    "min_size": 300,
    "max_size": 2000,
    "pre_nms_top_n_train": 10,
    "pre_nms_top_n_test": 10,
    "post_nms_top_n_train": 10,
    "post_nms_top_n_test": 10,
    "rpn_nms_thresh": 0.6,
    "rpn_batch_size": 8,
    "roi_batch_size": 8,
    "score_thresh": 0.1,
    "detection_nms_thresh": 0.3,
    "final_nms_thresh": 0.3,
    "detections_per_image": 3,
    "num_identities": 9,
    "queue_size": 3,
    "oim_momentum": 0.4,
    "oim_scalar": 10.0,
}


@pytest.fixture(scope="module")
def small_checkpoint(tmp_path_factory):
    save_model(build_model(SMALL), path := tmp_path_factory.mktemp("small") / "small.safetensors")
    return str(path)


def test_every_setting_is_decided():
    assert {*MEANING, *SHAPES, *FREE} == {field.name for field in dataclasses.fields(ModelConfig)}


@pytest.mark.parametrize("key", MEANING)
def test_weights_that_would_compute_something_else_are_refused(tmp_path, small_checkpoint, key):
    changes, override = MEANING[key]
    save_model(build_model(dataclasses.replace(SMALL, **changes)), path := tmp_path / "other.safetensors")
    model = build_model(SMALL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in before.items()} == {
        name: value.shape for name, value in build_model(dataclasses.replace(SMALL, **changes)).state_dict().items()
    }
    with pytest.raises(CheckpointError) as caught:
        initialise(model, str(path))
    assert re.fullmatch(
        rf"The weights of .*other\.safetensors would compute something else in this model \(model\.{key} is .*, there "
        rf".*\); give {re.escape(override)}\.",
        str(caught.value),
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    initialise(build_model(dataclasses.replace(SMALL, **changes)), str(path))


def test_all_that_differs_is_named_at_once(small_checkpoint):
    model = build_model(dataclasses.replace(SMALL, variant="seqnet_mlp_mixer", roi_size=(8, 4)))
    with pytest.raises(CheckpointError, match=r"give -o model\.variant=psarm -o model\.roi_size=7\.$"):
        initialise(model, small_checkpoint)


@pytest.mark.parametrize("key", SHAPES)
def test_settings_that_shapes_tell(small_checkpoint, key):
    with pytest.raises(CheckpointError, match=r"small\.safetensors does not fit psarm with resnet\d\d: parameters \d+"):
        initialise(build_model(dataclasses.replace(SMALL, **{key: SHAPES[key]})), small_checkpoint)


def test_settings_that_may_differ(small_checkpoint):
    model = build_model(dataclasses.replace(SMALL, **FREE, roi_size=(7, 7)))
    initialise(model, small_checkpoint)
    given = read_checkpoint(small_checkpoint).state
    assert all(torch.equal(given[name], v) for name, v in model.state_dict().items() if ".reid_loss." not in name)


def test_the_layout_is_free_where_nothing_is_gated(tmp_path):
    plain = dataclasses.replace(SMALL, variant="seqnet")
    save_model(build_model(dataclasses.replace(plain, arm_layout="released")), path := tmp_path / "seqnet.safetensors")
    initialise(build_model(plain), str(path))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_released_file_with_and_without_the_prefix_of_data_parallel(tmp_path, monkeypatch, prefix):
    source = small_released(path := tmp_path / "released.pth", monkeypatch)
    state = torch.load(path, weights_only=True)["model"]
    torch.save({"model": {prefix + name: value for name, value in state.items()}}, path)
    model = build_model(dataclasses.replace(source.config, num_identities=3, queue_size=2))
    initialise(model, str(path))
    given = source.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, torch.zeros_like(value) if ".reid_loss." in name else given[name]), name
    assert fixed(model) == []
    with pytest.raises(CheckpointError, match=r"released\.pth .*; give -o model\.arm_layout=released\.$"):
        initialise(build_model(dataclasses.replace(source.config, arm_layout="paper")), str(path))


def test_empty_is_random():
    torch.manual_seed(0)
    model = build_model(SMALL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    initialise(model, "")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert fixed(model) == []
