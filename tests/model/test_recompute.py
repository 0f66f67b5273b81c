"""Activation checkpointing: the same losses, gradients and running statistics, and less that is kept."""

import pytest
import torch
from small_models import small_model
from torch import nn

from psarm.model.batchnorm import SyncBatchNorm

CHANGES = {"width": 0.125, "roi_size": 4, "min_size": 64, "roi_batch_size": 16, "post_nms_top_n_train": 30}
KINDS = {
    "psarm": {"arm_dropout": 0.5},
    "nae_resnet50": {"variant": "nae", "backbone": "resnet50"},
    "cascaded": {"variant": "cascaded_psarm", "arm_dropout": 0.3},
    "seqnet_convnext": {"variant": "seqnet", "backbone": "convnext_tiny"},
}
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = [torch.rand(3, 60, 90, generator=GENERATOR), torch.rand(3, 70, 60, generator=GENERATOR)]
TARGETS = [
    {"boxes": torch.tensor([[10.0, 8, 40, 55], [50, 5, 80, 50]]), "labels": torch.tensor([2, -1])},
    {"boxes": torch.tensor([[20.0, 10, 50, 60]]), "labels": torch.tensor([4])},
]


def step(recomputes, frozen=False, **changes):
    """Losses, gradients, state at the end and numbers kept for the backward pass."""
    model = small_model(1, **{**CHANGES, **changes}).train()
    model.checkpoint_activations(recomputes)
    if frozen:
        model.backbone.freeze_stem()
    torch.manual_seed(2)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = model.losses(IMAGES, TARGETS)
    sum(losses.values()).backward()
    return losses, {name: p.grad for name, p in model.named_parameters()}, model.state_dict(), sum(kept.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", [False, True], ids=["", "frozen"])
def test_nothing_but_memory_changes(kind, frozen):
    losses, gradients, state, kept = step(False, frozen, **KINDS[kind])
    ours, our_gradients, our_state, ours_kept = step(True, frozen, **KINDS[kind])
    assert all(torch.equal(ours[name], value) for name, value in losses.items())
    for name, value in gradients.items():
        assert (our_gradients[name] is None) == (value is None), name
        assert value is None or torch.equal(our_gradients[name], value), name
    assert ours.keys() == losses.keys() and our_state.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(our_state[name], value), name
    assert ours_kept < 0.7 * kept


def test_running_statistics_move_once():
    model = small_model(1, **CHANGES).train()
    model.checkpoint_activations()
    for _ in range(2):
        sum(model.losses(IMAGES, TARGETS).values()).backward()
    norms = [part for part in model.modules() if isinstance(part, SyncBatchNorm)]
    assert {int(norm.num_batches_tracked) for norm in norms} == {2}
    assert all(norm.recording for norm in norms)


def test_it_can_be_turned_off_again_and_does_nothing_in_eval_mode():
    model = small_model(1, **CHANGES)
    expected = model.detect(IMAGES)
    model.checkpoint_activations(True)
    found = model.detect(IMAGES)
    assert all(torch.equal(one[name], two[name]) for one, two in zip(found, expected, strict=True) for name in one)
    model.checkpoint_activations(False)
    assert not model.backbone.recomputes
    assert not any(getattr(part, "recomputes", False) for part in model.modules())


def test_every_batch_norm_of_every_model_can_be_synchronised():
    for variant in KINDS.values():
        model = small_model(0, **{**CHANGES, **variant})
        norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
        assert norms and all(isinstance(part, SyncBatchNorm) and part.synchronised for part in norms)
        model.synchronise_batchnorm(False)
        assert not any(part.synchronised for part in norms)
        model.synchronise_batchnorm()
        assert all(part.synchronised for part in norms)
