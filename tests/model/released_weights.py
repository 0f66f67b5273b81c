"""Random weights and images on which comparing two implementations means something.

Signals stay of order one through the depth (the last norm of every residual block is scaled by 0.2), normalisation
statistics are random, boxes are really moved, and more than half of the proposals pass the detection head.
"""

import math
from collections import OrderedDict

import torch

PROPOSALS = 12  # in place of 300, to be quick; every number of the heads stays the released one
SIZES = [(97, 141), (61, 235)]  # height, width: up- and downscaled, the second bounded by its long side


def condition(shapes, seed):
    """A state dict with these names and shapes."""
    generator = torch.Generator().manual_seed(seed)
    return {name: _tensor(name, shape, generator) for name, shape in shapes.items()}


def _tensor(name, shape, generator):
    def normal(scale):
        return torch.randn(shape, generator=generator) * scale

    last = name.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return torch.tensor(7)
    if last == "running_var":
        return torch.rand(shape, generator=generator) + 0.5
    if last in ("lut", "cq"):
        return torch.nn.functional.normalize(normal(1.0), dim=1)
    if last in ("running_mean", "bias"):
        return normal(0.1)
    if len(shape) == 1:  # the scale of a norm
        return (torch.rand(shape, generator=generator) + 0.5) * (0.2 if name.endswith("bn3.weight") else 1.0)
    if name == "rpn.head.bbox_pred.weight":
        return normal(0.3 / math.sqrt(shape[1]))
    gain = 2.0 if len(shape) == 4 else 1.0
    return normal(math.sqrt(gain / math.prod(shape[1:])))


def shrink(model):
    """Small images, few but crowded proposals; psarm and the oracle both have torchvision's transform and RPN."""
    model.transform.min_size, model.transform.max_size = (128,), 200
    model.rpn.nms_thresh = 0.55
    model.rpn._post_nms_top_n = {"training": PROPOSALS, "testing": PROPOSALS}


def picture(height, width, seed):
    """[3,height,width] in 0…1: blurred blobs with fine grain, so that regions differ."""
    generator = torch.Generator().manual_seed(seed)
    blobs = torch.rand(1, 3, 5, 6, generator=generator)
    grain = torch.rand(1, 3, height, width, generator=generator)
    smooth = torch.nn.functional.interpolate(blobs, (height, width), mode="bicubic", align_corners=False)
    return (0.7 * smooth + 0.3 * grain)[0].clamp(0, 1)


@torch.no_grad()
def calibrate(oracle, pictures):
    """Fit the output layers of a released model to its own features on `pictures`, as training would have done."""
    heads = oracle.roi_heads
    detection, reid = [], []
    for image in pictures:
        features, _ = oracle.features(image, None)
        [proposals], _ = oracle.rpn(oracle.images, OrderedDict(only=features))
        rois = heads.roi(features, proposals)
        detection.append(heads.box_head(rois)[1])
        reid.append(heads.reid_head(rois))
    deep = torch.cat(detection)
    predictor = heads.faster_rcnn_predictor
    standardise(predictor.cls_score, deep, torch.tensor([-0.6, 0.6]), 0.8)
    standardise(predictor.bbox_pred, deep, torch.zeros(8), 0.8)
    res4, res5 = torch.cat([r[0] for r in reid]), torch.cat([r[1] for r in reid])
    projectors = heads.embedding_head.projectors
    pairs = [(heads.box_predictor.bbox_pred, res5), (projectors["feat_res4"], res4), (projectors["feat_res5"], res5)]
    for (linear, norm), inputs in pairs:
        outputs = linear(inputs)
        norm.running_mean.copy_(outputs.mean(dim=0))
        norm.running_var.copy_(outputs.var(dim=0))
    heads.box_predictor.bbox_pred[1].bias[6:] += 3  # refined boxes grow, so the second suppression has work


@torch.no_grad()
def standardise(linear, inputs, mean, std):
    """Give the outputs of a linear layer this mean [out] and standard deviation."""
    outputs = linear(inputs)
    scale = std / outputs.std(dim=0)
    linear.weight.mul_(scale[:, None])
    linear.bias.copy_((linear.bias - outputs.mean(dim=0)) * scale + mean)
