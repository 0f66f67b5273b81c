"""Which anchors and RoIs the losses look at: by the global generator as in torchvision, or by the seed of an image."""

import pytest
import torch
from small_models import small_model
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.rpn import RegionProposalNetwork

from psarm.model.roi_heads import make_box_coder
from psarm.model.sampling import BalancedSampler, RoISampler

SEEDED = {"seed": torch.tensor(5)}


def some_labels(positives, negatives, ignored):
    labels = torch.tensor([1.0] * positives + [0.0] * negatives + [-1.0] * ignored)
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]


@pytest.mark.parametrize("numbers", [(3, 40, 5), (30, 40, 0), (30, 2, 1), (0, 9, 0), (9, 0, 0), (0, 0, 4), (0, 0, 0)])
def test_without_a_seed_it_is_torchvisions(numbers):
    labels = some_labels(*numbers)
    torch.manual_seed(3)
    positive, negative = BalancedSampler(16, 0.5).sample(labels, {}, 0)
    after = torch.rand(())
    torch.manual_seed(3)
    [theirs], [their_negative] = BalancedPositiveNegativeSampler(16, 0.5)([labels])
    assert torch.equal(positive.sort().values, torch.where(theirs)[0])
    assert torch.equal(negative.sort().values, torch.where(their_negative)[0])
    assert after == torch.rand(())


@pytest.mark.parametrize("numbers", [(3, 40, 5), (30, 40, 0), (30, 2, 1), (0, 0, 0)])
def test_with_a_seed_numbers_are_the_same_and_nothing_else_matters(numbers):
    labels = some_labels(*numbers)
    sampler = BalancedSampler(16, 0.5)
    before = torch.get_rng_state()
    positive, negative = sampler.sample(labels, SEEDED, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(positive) == min(numbers[0], 8)
    assert len(negative) == min(numbers[1], 16 - len(positive))
    assert (labels[positive] == 1).all() and (labels[negative] == 0).all()
    assert len(set(positive.tolist() + negative.tolist())) == len(positive) + len(negative)
    torch.rand(7)
    again = sampler.sample(labels, SEEDED, 1)
    assert torch.equal(positive, again[0]) and torch.equal(negative, again[1])


def test_seeds_and_streams_draw_differently():
    labels = some_labels(50, 200, 0)
    sampler = BalancedSampler(16, 0.5)
    drawn = [
        sampler.sample(labels, {"seed": torch.tensor(seed)}, stream) for seed in (0, 1, 2**62) for stream in (0, 1)
    ]
    assert len({tuple(torch.cat(choice).tolist()) for choice in drawn}) == len(drawn)


def test_every_candidate_comes_up():
    labels = some_labels(5, 40, 3)
    found = set()
    for seed in range(100):
        found |= set(torch.cat(BalancedSampler(8, 0.5).sample(labels, {"seed": torch.tensor(seed)}, 0)).tolist())
    assert found == set(torch.where(labels >= 0)[0].tolist())


def test_seeded_rois_of_an_image_do_not_depend_on_the_others():
    sampler = RoISampler(12, make_box_coder())
    corners = torch.rand(60, 2, generator=torch.Generator().manual_seed(2)) * 50
    boxes = [torch.cat([corners, corners + 20], dim=1)[part] for part in (slice(0, 30), slice(30, 60))]
    targets = [
        {"boxes": boxes[0][:2] + 1, "labels": torch.tensor([3, -1]), "seed": torch.tensor(8)},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "seed": torch.tensor(9)},
    ]
    both = sampler.sample(boxes, targets, 1)
    alone = [sampler.sample([box], [target], 1) for box, target in zip(boxes, targets, strict=True)]
    assert all(torch.equal(together, single.boxes[0]) for together, single in zip(both.boxes, alone, strict=True))
    assert torch.equal(both.labels, torch.cat([single.labels for single in alone]))
    assert torch.equal(both.deltas, torch.cat([single.deltas for single in alone]))
    other = sampler.sample(boxes, targets, 2)
    assert not all(torch.equal(one, two) for one, two in zip(both.boxes, other.boxes, strict=True))


def scenes():
    generator = torch.Generator().manual_seed(4)
    images = [torch.rand(3, 60, 90, generator=generator), torch.rand(3, 70, 60, generator=generator)]
    targets = [
        {"boxes": torch.tensor([[10.0, 8, 40, 55]]), "labels": torch.tensor([2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    return images, targets


def make():
    return small_model(5, variant="seqnet", width=0.125, roi_size=4, min_size=64, roi_batch_size=8).train()


def test_the_rpn_without_seeds_is_torchvisions():
    """Losses and gradients, bit for bit, with the network's own loss and sampler in place of psarm's."""
    images, targets = scenes()
    model = make()
    batch, targets = model.transform(images, targets)
    features = {"map": torch.randn(2, model.backbone.out_channels, 4, 6).requires_grad_()}
    torch.manual_seed(6)
    _, ours = model.rpn(batch, features, targets)
    network = make().rpn
    network.__class__ = RegionProposalNetwork
    network.fg_bg_sampler = BalancedPositiveNegativeSampler(256, 0.5)
    torch.manual_seed(6)
    _, theirs = network(batch, features, targets)
    for name, value in theirs.items():
        assert torch.equal(ours[name], value)
        found, expected = (
            torch.autograd.grad(loss, features["map"], retain_graph=True)[0] for loss in (ours[name], value)
        )
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)


def test_seeded_losses_draw_nothing_from_the_global_generator():
    images, targets = scenes()
    seeded = [{**target, "seed": torch.tensor(index)} for index, target in enumerate(targets)]
    before = torch.get_rng_state()
    one = make().losses(images, seeded)
    torch.set_rng_state(before)
    torch.rand(3)
    two = make().losses(images, seeded)
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = make().losses(images, [{**target, "seed": torch.tensor(77)} for target in targets])
    assert any(not torch.equal(one[name], other[name]) for name in one)
