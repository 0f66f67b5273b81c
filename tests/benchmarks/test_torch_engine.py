"""The torch engine gives what the model gives, and tells its stages apart without changing it."""

import numpy as np
import pytest
import torch
from small_models import small_model

from psarm.benchmarks.torch_engine import TorchEngine, untrained_engine
from psarm.errors import BundleError, UsageError
from psarm.runtime import Bundle, PersonSearch, read_image
from psarm.runtime.timing import STAGES


@pytest.fixture
def engine(model):
    engine = TorchEngine(model, threads=1)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def frame(dataset):
    return read_image(dataset.gallery[0].path)


def rgb(frame):
    return torch.from_numpy(frame[..., ::-1].copy()).permute(2, 0, 1).float() / 255


def assert_same(people, expected):
    for name in ("boxes", "scores", "embeddings"):
        np.testing.assert_allclose(getattr(people, name), expected[name].numpy(), atol=1e-5)


def test_detect_embed_and_detect_around_are_the_models(engine, model, frame):
    box = torch.tensor([[20.0, 10.0, 60.0, 90.0]])
    people = engine.detect(frame)
    assert len(people.scores) > 0
    assert_same(people, model.detect([rgb(frame)])[0])
    assert_same(engine.detect_around(frame, box[0].numpy()), model.detect_around([rgb(frame)], box)[0])
    [embeddings] = model.embed([rgb(frame)], [box])
    np.testing.assert_allclose(engine.embed(frame, box.numpy()), embeddings.numpy(), atol=1e-6)


def test_stages_are_positive_and_in_the_order_of_the_runtime(engine, frame):
    engine.detect(frame)
    assert list(engine.last_timings) == list(STAGES)
    assert all(seconds > 0 for seconds in engine.last_timings.values())


@pytest.mark.parametrize("variant", ["nae", "cascaded_psarm"])
def test_stages_of_models_with_one_head_and_with_three(variant, frame):
    engine = TorchEngine(small_model(variant=variant, score_thresh=0.0), threads=1)
    assert len(engine.detect(frame).scores) > 0
    assert all(seconds > 0 for seconds in engine.last_timings.values())
    engine.close()


def test_nobody_to_embed_takes_no_time_in_the_reid_head(model, frame, monkeypatch):
    monkeypatch.setattr(model.roi_heads, "score_thresh", 1.0)
    engine = TorchEngine(model, threads=1)
    assert len(engine.detect(frame).scores) == 0
    assert engine.last_timings["reid"] == 0 < engine.last_timings["detect"]
    engine.close()


def test_closing_leaves_model_and_threads_as_they_were(model):
    before = torch.get_num_threads()
    engine = TorchEngine(model, threads=2)
    assert torch.get_num_threads() == 2 and engine.device == "CPU, 2 threads"
    engine.close()
    assert torch.get_num_threads() == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_bad_frames_and_boxes_are_refused_as_by_the_runtime(engine, frame):
    with pytest.raises(UsageError, match="uint8"):
        engine.detect(frame.astype(np.float32))
    with pytest.raises(UsageError, match="lies outside"):
        engine.embed(frame, [[1000, 1000, 1100, 1100]])


def test_a_bundle_of_other_weights_is_refused(engine, toy_bundle, matching_bundle):
    engine.check_exported_as(Bundle.open(matching_bundle))
    with pytest.raises(BundleError, match="was exported from another model than the checkpoint"):
        engine.check_exported_as(Bundle.open(toy_bundle))


def test_untrained_weights_follow_their_seed_and_leave_torchs_random_state_alone(model):
    state = torch.random.get_rng_state()
    weights = []
    for seed in (0, 0, 1):
        engine = untrained_engine(model.config, 1, seed)
        weights.append(engine._engine.model.backbone.conv1.weight)
        engine.close()
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_engine_of_the_runtime_has_the_same_interface(toy_bundle, engine, frame):
    with PersonSearch(toy_bundle, threads=1) as other:
        other.detect(frame)
        engine.detect(frame)
        assert set(other.last_timings) == set(engine.last_timings)
        assert {name for name in dir(engine) if not name.startswith("_")} - set(dir(other)) == {"check_exported_as"}
