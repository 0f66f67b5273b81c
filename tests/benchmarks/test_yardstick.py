"""The yardstick is the literal model, with weights that behave: about so many people, little amplified rounding."""

import dataclasses

import numpy as np
import pytest
import torch
from torchvision.models.resnet import BasicBlock

from psarm.benchmarks.model_cost import model_cost
from psarm.benchmarks.torch_engine import TorchEngine
from psarm.benchmarks.yardstick import (
    LAST_NORM,
    LOGIT_SPREAD,
    PRESETS,
    Reference,
    draw_yardstick_frame,
    make_yardstick,
    scaled_config,
)
from psarm.errors import UsageError
from psarm.export.comparison import largest_error
from psarm.model.builder import IMAGE_MEAN, IMAGE_STD
from psarm.runtime.manifest import Preprocessing
from psarm.runtime.preprocess import make_batch

CONFIG = scaled_config("tiny", 192)


@pytest.fixture(scope="module")
def frame():
    return draw_yardstick_frame(108, 192)


@pytest.fixture(scope="module")
def model(frame):
    return make_yardstick(CONFIG, frame, people=12)


@pytest.fixture
def engine(model):
    engine = TorchEngine(model, 1)
    yield engine
    engine.close()


def test_released_preset_is_the_released_model():
    assert round(model_cost(PRESETS["released"]).macs.total / 1e9, 1) == 468.6
    assert PRESETS["released"].pre_nms_top_n_test == 6000 and PRESETS["released"].post_nms_top_n_test == 300


def test_sizes_scale_with_the_frame():
    config = scaled_config("released", 960)
    assert (config.min_size, config.max_size) == (450, 750)
    assert scaled_config("released", 1920) == PRESETS["released"]
    with pytest.raises(UsageError, match="too small"):
        scaled_config("released", 1)


def test_about_so_many_people_are_found(engine, frame):
    assert 9 <= len(engine.detect(frame).scores) <= 12  # NMS after the second head may merge some


def test_conditioning(model, frame):
    """Damped blocks, statistics of this frame, and a classifier that tells the proposals apart."""
    blocks = [part for part in model.modules() if isinstance(part, BasicBlock)]
    assert blocks and all((block.bn2.weight == LAST_NORM).all() for block in blocks)
    assert not any(part.training for part in model.modules())
    reference = Reference(model)
    seen = []
    handle = model.backbone.conv1.register_forward_hook(lambda module, arguments, output: seen.append(output))
    with torch.no_grad():
        batch, features = model._features([reference.image(frame)])
        proposals, _ = model.rpn(batch, {"map": features})
        logits, _ = model.roi_heads.detection_outputs(features, proposals)
    handle.remove()
    norm = model.backbone.bn1
    torch.testing.assert_close(norm.running_mean, seen[0].mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, seen[0].var((0, 2, 3)), rtol=1e-3, atol=1e-6)
    assert norm.momentum == 0.1
    assert float(logits.diff().std()) == pytest.approx(LOGIT_SPREAD, rel=1e-3)


def test_rounding_is_not_amplified(engine, model, frame):
    reference = Reference(model)
    found, expected = engine.detect(frame), reference.detect(frame)
    assert expected.boxes.dtype == np.float64
    for name, limit in {"boxes": 5e-3, "scores": 1e-4, "embeddings": 1e-4}.items():
        assert largest_error(getattr(found, name), getattr(expected, name)) < limit
    embedded = reference.embed(frame, expected.boxes[:2])
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, rtol=1e-12)
    assert largest_error(engine.embed(frame, expected.boxes[:2]), embedded) < 1e-4


def test_reference_as_the_runtime_sees_it(model, frame):
    rule = Preprocessing(*(CONFIG.min_size, CONFIG.max_size, 32, IMAGE_MEAN, IMAGE_STD, "RGB", (0.0, 1.0), "bilinear"))
    reference = Reference(model, rule)
    batch, _ = reference.model.transform([reference.image(frame)])
    expected, _ = Reference(model).model.transform([reference.image(frame)])
    assert batch.image_sizes == expected.image_sizes and batch.tensors.dtype == torch.float64
    torch.testing.assert_close(batch.tensors, expected.tensors, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(batch.tensors.numpy(), make_batch([frame], rule).images)


def test_same_seed_same_weights(model, frame):
    before = torch.random.get_rng_state()
    again = make_yardstick(CONFIG, frame, people=12)
    other = make_yardstick(CONFIG, frame, people=12, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    name = "backbone.conv1.weight"
    assert torch.equal(model.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(model.state_dict()[name], other.state_dict()[name])


def test_needs_a_detection_head(frame):
    with pytest.raises(UsageError, match="no detection head"):
        make_yardstick(dataclasses.replace(CONFIG, variant="nae"), frame)
