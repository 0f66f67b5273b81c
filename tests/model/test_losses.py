"""The seven losses against a literal recomputation, gradients of every parameter, images with nothing to learn from."""

from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from released_oracle import clip, decode, encode, iou
from released_weights import picture

from psarm.config import ModelConfig
from psarm.model import build_model
from psarm.model.nae import NormAwareEmbedding

SMALL = ModelConfig(
    backbone="resnet18",
    width=0.25,
    roi_size=6,
    min_size=96,
    max_size=160,
    roi_batch_size=16,
    post_nms_top_n_train=40,
    num_identities=7,
    queue_size=5,
)
KEYS = {"rpn_cls", "rpn_reg", "detection_cls", "detection_reg", "reid_cls", "reid_reg", "oim"}
IMAGES = [picture(97, 141, 0), picture(120, 90, 1)]
TARGETS = [
    {"boxes": torch.tensor([[10.0, 8, 50, 90], [60.5, 20, 100, 80]]), "labels": torch.tensor([3, -1])},
    {"boxes": torch.tensor([[20.0, 30, 55, 119]]), "labels": torch.tensor([0])},
]


def make(config=SMALL, double=False):
    torch.manual_seed(0)
    model = build_model(config)
    for table in (model.roi_heads.reid_loss.lut, model.roi_heads.reid_loss.cq):
        table.copy_(torch.nn.functional.normalize(torch.randn(table.shape), dim=1))
    return (model.double() if double else model).train()


class Tape:
    """Notes what a method was given and what it answered."""

    def __init__(self, monkeypatch, owner, name):
        self.calls = []
        method = getattr(owner, name)

        def noted(*arguments):
            result = method(*arguments)
            self.calls.append((arguments, result))
            return result

        monkeypatch.setattr(owner, name, noted, raising=True)


@pytest.fixture
def recorded(monkeypatch):
    """A model, its losses in float64, and what went in and out of its parts."""
    model = make(double=True)
    heads = model.roi_heads
    tapes = {
        name: Tape(monkeypatch, owner, name)
        for owner, name in [
            (heads.sampler, "sample"),
            (heads, "detection_outputs"),
            (heads, "outputs"),
            (heads.roi_align, "forward"),
            (heads, "losses"),
        ]
    }
    tables = {name: getattr(heads.reid_loss, name).clone() for name in ("lut", "cq")}
    images = [image.double() for image in IMAGES]
    targets = [{"boxes": t["boxes"].double(), "labels": t["labels"]} for t in TARGETS]
    torch.manual_seed(7)
    losses = model.losses(images, targets)
    return model, losses, {name: tape.calls for name, tape in tapes.items()}, tables, (images, targets)


def test_sampled_rois(recorded):
    """Ground truth joins the RoIs; IoU ≥ 0.5 is positive; the second head starts from the first head's boxes."""
    _, _, calls, _, _ = recorded
    (_, proposals, sizes, targets), _ = calls["losses"][0]
    [(first_in, first), (second_in, second)] = calls["sample"]
    assert all(a is b for a, b in zip(first_in[0], proposals, strict=True))
    (_, boxes), (_, deltas) = calls["detection_outputs"][0]
    assert all(a is b for a, b in zip(boxes, first.boxes, strict=True))
    flat = iter(deltas)
    for i, image_boxes in enumerate(boxes):
        refined = torch.stack([clip(decode(next(flat), box), sizes[i]) for box in image_boxes])
        torch.testing.assert_close(second_in[0][i], refined, rtol=0, atol=1e-9)
        assert not second_in[0][i].requires_grad
    (_, looked), _ = calls["forward"][1]
    assert all(a is b for a, b in zip(looked, second.boxes, strict=True))
    assert calls["outputs"][0][0][0] is calls["forward"][1][1]
    for given, sampled in ((first_in[0], first), (second_in[0], second)):
        rows = iter(zip(sampled.labels.tolist(), sampled.deltas, strict=True))
        for i, target in enumerate(targets):
            candidates = torch.cat([given[i], target["boxes"]])
            positives = [max(iou(box, gt) for gt in target["boxes"]) >= 0.5 for box in candidates]
            taken = 0
            for box in sampled.boxes[i]:
                assert any(torch.equal(box, candidate) for candidate in candidates)
                overlaps = [iou(box, gt) for gt in target["boxes"]]
                best = overlaps.index(max(overlaps))
                label, delta = next(rows)
                if overlaps[best] >= 0.5:
                    taken += 1
                    assert label == int(target["labels"][best])
                    torch.testing.assert_close(delta, encode(target["boxes"][best], box), rtol=0, atol=1e-6)
                else:
                    assert label == -2
            assert taken == min(8, sum(positives))
            assert len(sampled.boxes[i]) == taken + min(16 - taken, positives.count(False))


def test_values_of_the_head_losses(recorded):
    _, losses, calls, tables, _ = recorded
    [(_, first), (_, second)] = calls["sample"]
    logits, deltas = calls["detection_outputs"][0][1]
    reid_deltas, embeddings, person_logits = calls["outputs"][0][1]
    terms = [-torch.log_softmax(row, 0)[int(label != -2)] for row, label in zip(logits, first.labels, strict=True)]
    assert_value(losses["detection_cls"], sum(terms) / len(terms))
    assert_value(losses["detection_reg"], literal_smooth_l1(deltas, first))
    terms = [
        -torch.log(torch.sigmoid(logit) if label != -2 else 1 - torch.sigmoid(logit))
        for logit, label in zip(person_logits, second.labels, strict=True)
    ]
    assert_value(losses["reid_cls"], sum(terms) / len(terms))
    assert_value(losses["reid_reg"], literal_smooth_l1(reid_deltas, second))
    rows = [*tables["lut"], *tables["cq"]]
    terms = [
        torch.logsumexp(30 * torch.stack([x @ row for row in rows]), 0) - 30 * x @ tables["lut"][label]
        for x, label in zip(embeddings, second.labels, strict=True)
        if label >= 0
    ]
    assert_value(losses["oim"], sum(terms) / len(terms))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(embeddings)).double())


def test_rpn_losses_are_torchvisions(recorded):
    model, losses, _, _, (images, targets) = recorded
    torch.manual_seed(7)
    batch, targets = model.transform(images, targets)
    _, expected = model.rpn(batch, OrderedDict(map=model.backbone(batch.tensors)), targets)
    assert_value(losses["rpn_cls"], expected["loss_objectness"])
    assert_value(losses["rpn_reg"], expected["loss_rpn_box_reg"])


def test_detection_is_not_trained_through_the_boxes_it_hands_on():
    model = make()
    losses = model.losses(IMAGES, TARGETS)
    (losses["reid_cls"] + losses["reid_reg"] + losses["oim"]).backward()
    assert all(p.grad is None for p in model.roi_heads.faster_rcnn_predictor.parameters())
    assert all(p.grad is None for p in model.roi_heads.box_head.parameters())
    assert all(p.grad is None for p in model.rpn.parameters())


CASES = {
    f"{variant}-{layout}-{backbone}": replace(SMALL, variant=variant, arm_layout=layout, backbone=backbone, roi_size=14)
    for variant, layout in (("psarm", "paper"), ("psarm", "released"), ("seqnet", "paper"))
    for backbone in ("resnet18", "resnet50")
}


@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_every_trainable_parameter_gets_a_gradient(config):
    model = make(config)
    model.backbone.freeze_stem()
    losses = model.losses(IMAGES, TARGETS)
    assert set(losses) == KEYS
    assert all(loss.dim() == 0 and torch.isfinite(loss) and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if name in ("backbone.conv1.weight", "backbone.bn1.weight", "backbone.bn1.bias"):
            assert not parameter.requires_grad
            assert parameter.grad is None
        else:
            assert parameter.requires_grad, name
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("variant", ["psarm", "seqnet"])
def test_images_without_people(variant):
    model = make(replace(SMALL, variant=variant))
    nobody = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = model.losses(IMAGES, [nobody, nobody])
    assert set(losses) == KEYS
    assert {name for name, loss in losses.items() if loss == 0} == {"rpn_reg", "detection_reg", "reid_reg", "oim"}
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    losses = model.losses(IMAGES, [TARGETS[0], nobody])
    assert all(torch.isfinite(loss) and loss > 0 for loss in losses.values())


def test_people_without_identity_only():
    model = make()
    header = int(model.roi_heads.reid_loss.header)
    lut = model.roi_heads.reid_loss.lut.clone()
    unlabelled = [{**target, "labels": torch.full_like(target["labels"], -1)} for target in TARGETS]
    losses = model.losses(IMAGES, unlabelled)
    assert losses["oim"] == 0
    assert all(loss > 0 for name, loss in losses.items() if name != "oim")
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert torch.equal(lut, model.roi_heads.reid_loss.lut)
    assert int(model.roi_heads.reid_loss.header) != header


def test_targets_are_left_as_they_were():
    before = [{key: value.clone() for key, value in target.items()} for target in TARGETS]
    make().losses(IMAGES, TARGETS)
    for one, other in zip(before, TARGETS, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("training", [True, False])
def test_norm_aware_embedding(training):
    """v/||v|| and BatchNorm1d(1)(||v||), v = [feat_res4's projection, feat_res5's projection]."""
    nae = NormAwareEmbedding(5, 9, 8).double().train(training)
    nae.rescaler.weight.data.fill_(1.7)
    nae.rescaler.bias.data.fill_(-0.3)
    nae.rescaler.running_mean.fill_(0.6)
    res4, res5 = torch.rand(11, 5).double(), torch.rand(11, 9).double()
    mean, var = nae.rescaler.running_mean.clone(), nae.rescaler.running_var.clone()
    ours, logits = nae(res4, res5)
    with torch.no_grad():
        parts = []
        for (linear, norm), x in ((nae.res4, res4), (nae.res5, res5)):
            y = x @ linear.weight.t() + linear.bias
            m, v = (y.mean(0), y.var(0, unbiased=False)) if training else (0, 1)
            parts.append((y - m) / (v + norm.eps) ** 0.5)
        v = torch.cat(parts, dim=1)
        norms = (v**2).sum(dim=1) ** 0.5
        if training:
            mean, var = norms.mean(), norms.var(unbiased=False)
        expected = (norms - mean) / (var + 1e-5) ** 0.5 * 1.7 - 0.3
    torch.testing.assert_close(ours, v / norms[:, None], rtol=0, atol=1e-10)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)


def literal_smooth_l1(deltas, sampled):
    """Foreground deltas of positives, beta 1, summed, over the number of sampled RoIs."""
    total = torch.zeros((), dtype=deltas.dtype)
    for row, label, wanted in zip(deltas, sampled.labels, sampled.deltas, strict=True):
        if label != -2:
            for difference in (row[4:] - wanted).abs():
                total = total + (0.5 * difference**2 if difference < 1 else difference - 0.5)
    return total / len(sampled.labels)


def assert_value(ours, literal):
    assert ours > 0
    torch.testing.assert_close(ours, literal, rtol=1e-10, atol=0)
