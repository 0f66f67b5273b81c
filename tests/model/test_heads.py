"""NAE's single head and the cascade's third, one box at a time, against the model; what each head is trained on."""

from collections import OrderedDict
from itertools import pairwise

import pytest
import torch
from released_oracle import clip, decode, nms, rescale
from released_weights import picture
from small_models import small_model

IMAGES = [picture(120, 90, 1).double(), picture(97, 141, 0).double(), picture(100, 150, 2).double()]
GIVEN = torch.tensor([[20.0, 10, 60, 110], [3.5, 2, 70, 90], [60, 20, 149, 99]], dtype=torch.float64)


def literal_people(model, given=None):
    """Boxes, scores, embeddings of each image, in pixels of the images, by loops over single boxes."""
    heads = model.roi_heads
    batch, _ = model.transform(IMAGES)
    features = model.backbone(batch.tensors)
    proposals, _ = model.rpn(batch, OrderedDict(map=features))
    answers = []
    for i, size in enumerate(batch.image_sizes):

        def look(head, box, i=i):
            """Delta [8], embedding [D], person logit of one box."""
            pooled = heads.roi_align(features[i : i + 1], [box[None]])
            return [value[0] for value in head.outputs(pooled)]

        kept_boxes, kept_scores, regions = [], [], []
        for proposal in proposals[i]:
            if heads.box_head is None:
                deltas, _, logit = look(heads, proposal)
                score = 1 / (1 + torch.exp(-logit))
            else:
                _, res5 = heads.box_head(heads.roi_align(features[i : i + 1], [proposal[None]]))
                logits, deltas = heads.faster_rcnn_predictor(res5)
                score, deltas = torch.softmax(logits[0], dim=0)[1], deltas[0]
            box = clip(decode(deltas, proposal), size)
            if score > heads.score_thresh and min(box[2] - box[0], box[3] - box[1]) >= 1e-2:
                kept_boxes.append(box)
                kept_scores.append(score)
                regions.append(proposal if heads.box_head is None else box)
        boxes, scores, embeddings = [], [], []
        for k in nms(kept_boxes, kept_scores, 0.4)[:300]:
            box = regions[k]
            for head in heads.reid_heads:
                deltas, embedding, _ = look(head, box)
                box = clip(decode(deltas, box), size)
            if min(box[2] - box[0], box[3] - box[1]) >= 1e-2:
                boxes.append(box)
                scores.append(kept_scores[k])
                embeddings.append(embedding if given is not None else embedding * kept_scores[k])
        if given is not None:
            [box] = rescale(given[i][None], IMAGES[i].shape[-2:], size)
            boxes.insert(0, box)
            scores.insert(0, torch.tensor(1.0, dtype=torch.float64))
            embeddings.insert(0, look(heads.reid_heads[-1], box)[1])
        order = nms(boxes, scores, 0.5)[:300]
        answers.append(
            {
                "boxes": rescale(torch.stack([boxes[k] for k in order]), size, IMAGES[i].shape[-2:]),
                "scores": torch.stack([scores[k] for k in order]),
                "embeddings": torch.stack([embeddings[k] for k in order]),
            }
        )
    return answers


@pytest.fixture(scope="module", params=["nae", "nae_arm", "cascaded_psarm"])
def model(request):
    model = small_model(3, variant=request.param).double()
    heads = model.roi_heads
    if heads.box_head is None:  # norms of random embeddings are alike; spread the scores around one half
        heads.embedding_head.rescaler.running_mean.fill_(float(head_norms(model).median()))
        heads.embedding_head.rescaler.running_var.fill_(float(head_norms(model).var()) / 4)
        heads.embedding_head.rescaler.bias.data.fill_(0.0)
    else:
        heads.faster_rcnn_predictor.bbox_pred.weight.data.mul_(20)
    for head in heads.reid_heads:
        head.box_predictor[0].weight.data.mul_(20)
    return model


@torch.no_grad()
def head_norms(model):
    batch, _ = model.transform(IMAGES)
    features = model.backbone(batch.tensors)
    proposals, _ = model.rpn(batch, OrderedDict(map=features))
    pooled = model.roi_heads.reid_head(model.roi_heads.roi_align(features, proposals))
    return model.roi_heads.embedding_head.vectors(*pooled).norm(dim=1)


def assert_same(found, expected):
    assert sum(len(people["boxes"]) for people in expected) >= 6
    for ours, literal in zip(found, expected, strict=True):
        for name, value in literal.items():
            torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6 if name == "boxes" else 1e-9)


@torch.no_grad()
def test_detect(model):
    assert_same(model.detect(IMAGES), literal_people(model))


@torch.no_grad()
def test_detect_around(model):
    found = model.detect_around(IMAGES, GIVEN)
    assert_same(found, literal_people(model, GIVEN))
    for people, box in zip(found, GIVEN, strict=True):
        torch.testing.assert_close(people["boxes"][0], box, rtol=0, atol=1e-4)
        torch.testing.assert_close(people["embeddings"].norm(dim=1), torch.ones(len(people["boxes"])).double())


@torch.no_grad()
def test_embed_is_the_last_heads_look_at_the_given_box(model):
    head = model.roi_heads.reid_heads[-1]
    for image, box in zip(IMAGES, GIVEN, strict=True):
        [embedding] = model.embed([image], [box[None]])
        batch, _ = model.transform([image])
        looked = rescale(box[None], image.shape[-2:], batch.image_sizes[0])
        rois = model.roi_heads.roi_align(model.backbone(batch.tensors), [looked])
        torch.testing.assert_close(embedding, head.outputs(rois)[1], rtol=0, atol=1e-7)
        assert embedding.norm() == pytest.approx(1)


HEAD_LOSSES = {"reid_cls", "reid_reg", "oim"}
TARGETS = [
    {"boxes": torch.tensor([[10.0, 8, 50, 90], [60.5, 20, 88, 80]]).double(), "labels": torch.tensor([3, -1])},
    {"boxes": torch.tensor([[20.0, 30, 55, 96]]).double(), "labels": torch.tensor([0])},
    {"boxes": torch.zeros(0, 4).double(), "labels": torch.zeros(0, dtype=torch.int64)},
]


@pytest.mark.parametrize(
    ("variant", "names"),
    [
        ("nae", HEAD_LOSSES),
        ("psarm", HEAD_LOSSES | {"detection_cls", "detection_reg"}),
        ("cascaded_psarm", HEAD_LOSSES | {"detection_cls", "detection_reg"} | {f"{name}_2" for name in HEAD_LOSSES}),
    ],
)
def test_each_head_is_trained_on_the_boxes_of_the_one_before(variant, names, monkeypatch):
    model = small_model(4, variant=variant).double().train()
    heads = model.roi_heads
    sampled, first = [], []
    sample, losses = heads.sampler.sample, heads.losses
    monkeypatch.setattr(heads.sampler, "sample", lambda *a: sampled.append((a[0], sample(*a))) or sampled[-1][1])
    monkeypatch.setattr(heads, "losses", lambda *a: first.append(a) or losses(*a))
    tables = [head.reid_loss.lut.clone() for head in heads.reid_heads]
    found = model.losses([image.clone() for image in IMAGES], TARGETS)
    assert set(found) == names | {"rpn_cls", "rpn_reg"}
    assert all(torch.isfinite(value) for value in found.values())
    (_, proposals, sizes, _) = first[0]
    assert all(torch.equal(a, b) for a, b in zip(sampled[0][0], proposals, strict=True))
    assert len(sampled) == len(heads.reid_heads) + (heads.box_head is not None)
    for (_, before), (given, _) in pairwise(sampled):
        assert [len(boxes) for boxes in given] == [len(boxes) for boxes in before.boxes]
        assert not any(boxes.requires_grad for boxes in given)
        for boxes, (height, width) in zip(given, sizes, strict=True):
            assert (boxes >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
    assert all(not torch.equal(head.reid_loss.lut, table) for head, table in zip(heads.reid_heads, tables, strict=True))


def test_no_detection_head_to_ask():
    model = small_model(0, variant="nae")
    with pytest.raises(RuntimeError, match="no detection head"):
        model.roi_heads.detection_outputs(torch.zeros(1, 64, 6, 10), [torch.zeros(1, 4)])
