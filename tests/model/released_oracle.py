"""The released SeqNet and PS-ARM written down as literally as possible: one image at a time, loops, no sharing.

Written from a description of the released models, not from psarm: nothing of psarm is imported. Modules carry the
released parameter names, so that a released state dict loads with strict=True. Of torchvision it uses what the
released code uses: ResNet, RegionProposalNetwork, GeneralizedRCNNTransform's resizing and RoIAlign.
"""

import copy
import math
from collections import OrderedDict
from dataclasses import dataclass

import torch
import torchvision
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform

MEAN = [0.485, 0.456, 0.406]
STD = [0.229, 0.224, 0.225]


class Oracle(nn.Module):
    """`psarm` False: SeqNet."""

    def __init__(self, psarm, identities, queue):
        super().__init__()
        resnet = torchvision.models.resnet50(weights=None)
        self.transform = GeneralizedRCNNTransform(900, 1500, MEAN, STD)
        self.backbone = Backbone(resnet, psarm)
        anchors = AnchorGenerator(sizes=((32, 64, 128, 256, 512),), aspect_ratios=((0.5, 1.0, 2.0),))
        self.rpn = RegionProposalNetwork(
            anchors,
            RPNHead(1024, 15),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 12000, "testing": 6000},
            post_nms_top_n={"training": 2000, "testing": 300},
            nms_thresh=0.7,
        )
        self.roi_heads = Heads(resnet, psarm, identities, queue)

    def look(self, image, canvas=None):
        """RPN and detection head on one image [3,h,w], the start of both ways to detect."""
        features, size = self.features(image, canvas)
        return Scene(image, features, size, self.first_stage(features, size))

    def detect(self, scene):
        """Boxes, scores, embeddings weighted by the score."""
        boxes, scores, embeddings = [], [], []
        for box, score in scene.found:
            deltas, embedding = self.roi_heads.reid(scene.features, box[None])
            boxes.append(clip(decode(deltas[0], box), scene.size))
            scores.append(score)
            embeddings.append(embedding[0] * score)
        return self.finish(*self.second_look(boxes, scores, embeddings), scene)

    def embed(self, image, boxes):
        """[3,h,w], [n,4] → [n,256]: query mode."""
        features, size = self.features(image, None)
        return self.roi_heads.reid(features, rescale(boxes, image.shape[-2:], size))[1]

    def detect_around(self, scene, box):
        """As detect, for a query's image and box [4]: context mode, the given box first, nothing weighted."""
        boxes, scores, embeddings = [], [], []
        for person, score in scene.found:
            deltas, embedding = self.roi_heads.reid(scene.features, person[None])
            boxes.append(clip(decode(deltas[0], person), scene.size))
            scores.append(score)
            embeddings.append(embedding[0])
        boxes, scores, embeddings = self.second_look(boxes, scores, embeddings)
        [given] = rescale(box[None], scene.image.shape[-2:], scene.size)
        boxes.append(given)
        scores.append(torch.ones((), dtype=box.dtype))
        embeddings.append(self.roi_heads.reid(scene.features, given[None])[1][0])
        return self.finish(boxes, scores, embeddings, scene)

    def features(self, image, canvas):
        """The res4 map of one image, padded to `canvas` (h, w) where it stands in a batch of larger images."""
        resized, _ = self.transform.resize(self.transform.normalize(image))
        size = tuple(resized.shape[-2:])
        height, width = canvas or (math.ceil(size[0] / 32) * 32, math.ceil(size[1] / 32) * 32)
        padded = torch.zeros(1, 3, height, width, dtype=image.dtype)
        padded[0, :, : size[0], : size[1]] = resized
        self.images = ImageList(padded, [size])
        return self.backbone(padded), size

    def first_stage(self, features, size):
        """RPN, then the detection head and NMS 0.4: a list of (box, score), best first."""
        [proposals], _ = self.rpn(self.images, OrderedDict(only=features))
        logits, deltas = self.roi_heads.detection(features, proposals)
        boxes, scores = [], []
        for i in range(len(proposals)):
            score = torch.softmax(logits[i], dim=0)[1]
            box = clip(decode(deltas[i], proposals[i]), size)
            if score > 0.5 and box[2] - box[0] >= 1e-2 and box[3] - box[1] >= 1e-2:
                boxes.append(box)
                scores.append(score)
        self.passed = boxes, scores
        return [(boxes[i], scores[i]) for i in nms(boxes, scores, 0.4)[:300]]

    def second_look(self, boxes, scores, embeddings):
        """Score above 0.5 again, and both sides at least 0.01 after refining."""
        alive = []
        for i, (x1, y1, x2, y2) in enumerate(boxes):
            if scores[i] > 0.5 and x2 - x1 >= 1e-2 and y2 - y1 >= 1e-2:
                alive.append(i)
        self.flat = len(boxes) - len(alive)
        return tuple([values[i] for i in alive] for values in (boxes, scores, embeddings))

    def finish(self, boxes, scores, embeddings, scene):
        """NMS 0.5, at most 300, boxes in pixels of the image."""
        kept = nms(boxes, scores, 0.5)[:300]
        if not kept:
            nobody = torch.zeros(0, dtype=scene.image.dtype)
            return {"boxes": nobody.reshape(0, 4), "scores": nobody, "embeddings": nobody.reshape(0, 256)}
        return {
            "boxes": rescale(torch.stack([boxes[i] for i in kept]), scene.size, scene.image.shape[-2:]),
            "scores": torch.stack([scores[i] for i in kept]),
            "embeddings": torch.stack([embeddings[i] for i in kept]),
        }


@dataclass
class Scene:
    """One image and what the first stage saw in it."""

    image: torch.Tensor  # [3,h,w]
    features: torch.Tensor  # [1,1024,H/16,W/16]
    size: tuple  # height, width after resizing
    found: list  # (box [4] in pixels after resizing, score), best first


class Backbone(nn.Module):
    """conv1 … layer3; PS-ARM's file wraps the stem and every stage once more."""

    def __init__(self, resnet, psarm):
        super().__init__()
        self.psarm = psarm
        if psarm:
            self.feature1 = nn.Sequential(resnet.conv1, resnet.bn1)
            self.layer1 = nn.Sequential(resnet.layer1)
            self.layer2 = nn.Sequential(resnet.layer2)
            self.layer3 = nn.Sequential(resnet.layer3)
        else:
            self.conv1, self.bn1 = resnet.conv1, resnet.bn1
            self.layer1, self.layer2, self.layer3 = resnet.layer1, resnet.layer2, resnet.layer3

    def forward(self, x):
        x = self.feature1(x) if self.psarm else self.bn1(self.conv1(x))
        x = torch.max_pool2d(torch.relu(x), 3, stride=2, padding=1)
        return self.layer3(self.layer2(self.layer1(x)))


class Heads(nn.Module):
    """`detection` and `reid` of boxes [n,4] of one image."""

    def __init__(self, resnet, psarm, identities, queue):
        super().__init__()
        self.box_head = Head(copy.deepcopy(resnet.layer4), psarm)
        self.box_predictor = nn.Module()
        self.box_predictor.bbox_pred = nn.Sequential(nn.Linear(2048, 8), nn.BatchNorm1d(8))
        self.embedding_head = nn.Module()
        self.embedding_head.projectors = nn.ModuleDict(
            {
                "feat_res4": nn.Sequential(nn.Linear(1024, 128), nn.BatchNorm1d(128)),
                "feat_res5": nn.Sequential(nn.Linear(2048, 128), nn.BatchNorm1d(128)),
            }
        )
        self.embedding_head.rescaler = nn.BatchNorm1d(1)
        self.reid_loss = nn.Module()
        self.reid_loss.register_buffer("lut", torch.zeros(identities, 256))
        self.reid_loss.register_buffer("cq", torch.zeros(queue, 256))
        self.faster_rcnn_predictor = FastRCNNPredictor(2048, 2)
        self.reid_head = Head(copy.deepcopy(resnet.layer4), psarm)

    def detection(self, features, boxes):
        """Class logits [n,2], deltas [n,8]."""
        _, res5 = self.box_head(self.roi(features, boxes))
        return self.faster_rcnn_predictor.cls_score(res5), self.faster_rcnn_predictor.bbox_pred(res5)

    def reid(self, features, boxes):
        """Deltas [n,8], unit embeddings [n,256]."""
        res4, res5 = self.reid_head(self.roi(features, boxes))
        vectors, _ = self.norm_aware(res4, res5)
        return self.box_predictor.bbox_pred(res5), vectors / vectors.pow(2).sum(dim=1, keepdim=True).sqrt()

    def norm_aware(self, res4, res5):
        """Vectors [B,256] before normalisation and their class logits [B]."""
        projectors = self.embedding_head.projectors
        vectors = torch.cat([projectors["feat_res4"](res4), projectors["feat_res5"](res5)], dim=1)
        norms = vectors.pow(2).sum(dim=1).sqrt()
        return vectors, self.embedding_head.rescaler(norms[:, None])[:, 0]

    def roi(self, features, boxes):
        rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], dim=1)
        return torchvision.ops.roi_align(features, rois, (14, 14), 1 / 16, sampling_ratio=2, aligned=False)


class Head(nn.Module):
    """ARM (PS-ARM only) and res5 → what enters res5 and what leaves it, each max-pooled."""

    def __init__(self, layer4, psarm):
        super().__init__()
        self.psarm = psarm
        self.layer4 = nn.Sequential(layer4) if psarm else layer4
        if psarm:
            self.mlP_model = nn.Module()
            self.mlP_model.mixers = nn.Module()
            self.mlP_model.mixers.token_mixer = TokenMixer(256, 196)
            self.mlP_model.mixers.channel_mixer = ChannelMixer(256)
            self.qconv1 = nn.Conv2d(1024, 256, 1)
            self.qconv2 = nn.Conv2d(256, 1024, 1)

    def forward(self, x):
        if self.psarm:
            x = self.qconv2(self.mixer(self.qconv1(x)))
        deep = self.layer4(x)
        return x.flatten(2).max(dim=2).values, deep.flatten(2).max(dim=2).values

    def mixer(self, x):
        mixers = self.mlP_model.mixers
        return released_mixer(x, mixers.token_mixer, mixers.channel_mixer)


def released_mixer(x, token_mixer, channel_mixer):
    """ARM between its two 1x1 convolutions, with the layout quirk: [B,C,H,W] → [B,C,H,W]."""
    b, c, h, w = x.shape
    t = x.flatten(2).transpose(1, 2).contiguous()  # [B,HW,C]
    # token mixer
    scrambled = t.view(b, c, h, w)  # memory reinterpreted, no transpose
    s = token_mixer.spatial_gate(scrambled)
    u = t + s.permute(0, 2, 3, 1).reshape(b, h * w, c)  # properly permuted
    v = token_mixer.norm(u)
    t = t + token_mixer.mlp(v.transpose(1, 2)).transpose(1, 2)  # the residual is t, not u
    # channel mixer
    t = t.contiguous()
    scrambled = t.view(b, c, h, w)
    g = channel_mixer.channel_gate(scrambled)
    u = t + g.permute(0, 2, 3, 1).reshape(b, h * w, c)
    v = channel_mixer.norm(u)
    t = t + channel_mixer.mlp(v)
    return t.contiguous().view(b, c, h, w) + simam(x) + x


def paper_mixer(x, token_mixer, channel_mixer):
    """The same in the paper's layout: straight maps, and the gates multiply (F'' = F' ⊙ M)."""
    b, c, h, w = x.shape
    gated = token_mixer.spatial_gate(x)
    v = token_mixer.norm(gated.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # over channels
    x1 = x + token_mixer.mlp(v.reshape(b, c, h * w)).reshape(b, c, h, w)
    gated = channel_mixer.channel_gate(x1)
    v = channel_mixer.norm(gated.permute(0, 2, 3, 1))
    x2 = x1 + channel_mixer.mlp(v).permute(0, 3, 1, 2)
    return x2 + simam(x) + x


def simam(x):
    out = torch.empty_like(x)
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            m = x[b, c]
            d = (m - m.mean()) ** 2
            y = d / (4 * (d.sum() / (m.numel() - 1) + 1e-4)) + 0.5
            out[b, c] = m * torch.sigmoid(y)
    return out


class Mlp(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.fc2 = nn.Linear(hidden, features)

    def forward(self, x):
        x = self.fc1(x)
        x = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
        return self.fc2(x)


class TokenMixer(nn.Module):
    def __init__(self, channels, tokens):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mlp = Mlp(tokens, 3 * tokens)
        self.spatial_att = nn.Module()
        self.spatial_att.spatial = nn.Module()
        self.spatial_att.spatial.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.spatial_att.spatial.bn = nn.BatchNorm2d(1)

    def spatial_gate(self, x):
        pooled = torch.stack([x.max(dim=1).values, x.mean(dim=1)], dim=1)
        return x * torch.sigmoid(self.spatial_att.spatial.bn(self.spatial_att.spatial.conv(pooled)))


class ChannelMixer(nn.Module):
    def __init__(self, channels):
        super().__init__()
        hidden = channels // 16
        self.norm = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, 3 * channels)
        self.channel_att = nn.Module()
        self.channel_att.mlp = nn.Sequential(
            nn.Flatten(), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )

    def channel_gate(self, x):
        b, c, h, w = x.shape
        average = self.channel_att.mlp(x.flatten(2).mean(dim=2))
        maximum = self.channel_att.mlp(x.flatten(2).max(dim=2).values)
        return x * torch.sigmoid(average + maximum).reshape(b, c, 1, 1).expand(b, c, h, w)


def decode(deltas, box):
    """Foreground deltas (the last four of eight) applied to one box, weights 10, 10, 5, 5."""
    dx, dy, dw, dh = deltas[4] / 10, deltas[5] / 10, deltas[6] / 5, deltas[7] / 5
    limit = math.log(1000 / 16)
    w, h = box[2] - box[0], box[3] - box[1]
    cx, cy = box[0] + 0.5 * w + dx * w, box[1] + 0.5 * h + dy * h
    w, h = w * torch.exp(dw.clamp(max=limit)), h * torch.exp(dh.clamp(max=limit))
    return torch.stack([cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w, cy + 0.5 * h])


def encode(gt, box):
    """Deltas [4] that lead from `box` to `gt`."""
    w, h, gw, gh = box[2] - box[0], box[3] - box[1], gt[2] - gt[0], gt[3] - gt[1]
    dx = ((gt[0] + 0.5 * gw) - (box[0] + 0.5 * w)) / w
    dy = ((gt[1] + 0.5 * gh) - (box[1] + 0.5 * h)) / h
    return torch.stack([10 * dx, 10 * dy, 5 * torch.log(gw / w), 5 * torch.log(gh / h)])


def clip(box, size):
    height, width = size
    x1, y1, x2, y2 = box
    return torch.stack([x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)])


def iou(a, b):
    w = float(min(a[2], b[2]) - max(a[0], b[0]))
    h = float(min(a[3], b[3]) - max(a[1], b[1]))
    if w <= 0 or h <= 0:
        return 0.0
    area_a, area_b = float((a[2] - a[0]) * (a[3] - a[1])), float((b[2] - b[0]) * (b[3] - b[1]))
    return w * h / (area_a + area_b - w * h)


def nms(boxes, scores, threshold):
    """Greedy: indices of the boxes that stay, best first."""
    left = sorted(range(len(boxes)), key=lambda i: -float(scores[i]))
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if iou(boxes[best], boxes[i]) <= threshold]
    return kept


def rescale(boxes, old, new):
    """Boxes [n,4] of an image of size `old` (h, w) in pixels of its copy of size `new`."""
    y, x = (
        torch.tensor(n, dtype=torch.float32) / torch.tensor(o, dtype=torch.float32)
        for n, o in zip(new, old, strict=True)
    )
    return boxes * torch.stack([x, y, x, y]).to(boxes.dtype)
