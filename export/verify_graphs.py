"""Each graph against the PyTorch model, stage by stage on the same numbers.

A choice (the best K, NMS) may turn on the last bit of a float, so comparing only what comes out at the end would need a
tolerance for boxes that changed places. Instead every computation is compared row by row, and every choice is made
again by torchvision from the graph's own numbers, where the answer must be the same box for box.

N images, M anchors, K candidates, P proposals, R RoIs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import boxes as box_ops

from psarm.errors import ExportError
from psarm.export.comparison import Comparison, largest_error, worst
from psarm.export.tracing import PROBES, first_line
from psarm.export.verify_inputs import BatchCase, border_boxes
from psarm.model.person_search import PersonSearchModel

Outputs = dict[str, Tensor]


class GraphRunner:
    """An ONNX file on ONNX Runtime's CPU provider, tensors in and out, with the named inner tensors as outputs too."""

    def __init__(self, path: Path, graph: str, probes: tuple[str, ...] = ()) -> None:
        model = onnx.load(path)
        for name in probes:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions share no base class but Exception
            raise ExportError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load the exported {graph} graph ({first_line(error)}); "
                "this is a fault of psarm or, with --simplify, of onnxslim."
            ) from error
        self.names = [*(output.name for output in model.graph.output)]

    def run(self, **inputs: Tensor) -> Outputs:
        """Outputs by name."""
        values = self.session.run(self.names, {name: value.numpy() for name, value in inputs.items()})
        return {name: torch.from_numpy(value) for name, value in zip(self.names, values, strict=True)}


def detect_runner(bundle: Path) -> GraphRunner:
    """The detect graph of a bundle with its inner tensors."""
    return GraphRunner(bundle / "detect.onnx", "detect", PROBES)


@torch.no_grad()
def compare_detect(model: PersonSearchModel, runner: GraphRunner, case: BatchCase) -> Comparison:
    """The detect graph on one batch: RPN maps, candidates, the choice of proposals, and the first head."""
    graph = runner.run(images=case.images, image_sizes=torch.tensor(case.sizes))
    features = model.backbone(case.images)
    batch = ImageList(case.images, case.sizes)
    rpn_boxes, rpn_scores = _rpn_errors(model, graph, batch, features)
    candidates, problem = _proposal_errors(model, graph, batch, features)
    boxes, scores = _head_errors(model, graph, case.sizes, features)
    if "regions" in graph and not torch.equal(graph["regions"], graph["proposals"]):
        problem = problem or "the regions are not the proposals"
    return Comparison(
        "detect",
        case.name,
        int(graph["counts"].sum()),
        boxes=worst(rpn_boxes, candidates, boxes),
        scores=worst(rpn_scores, scores),
        problem=problem or _padding_problem(graph),
    )


@torch.no_grad()
def compare_heads(
    model: PersonSearchModel,
    detect: GraphRunner,
    heads: dict[str, GraphRunner],
    case: BatchCase,
    rng: np.random.Generator,
) -> list[Comparison]:
    """The graphs of the re-id heads on the detect graph's features, with boxes at all borders, the first image without.

    `heads` are the graphs by name, in the order they run: `refine` where the bundle has it, then `reid`.
    """
    features = detect.run(images=case.images, image_sizes=torch.tensor(case.sizes))["features"]
    padded = (case.images.shape[2], case.images.shape[3])
    boxes = [border_boxes(size, padded, rng) for size in case.sizes]
    if len(boxes) > 1:
        boxes[0] = boxes[0][:0]
    counts = torch.tensor([len(part) for part in boxes])
    indices = torch.repeat_interleave(torch.arange(len(boxes)), counts)
    rois = model.roi_heads.roi_align(model.backbone(case.images), boxes)
    comparisons = []
    for (name, runner), head in zip(heads.items(), model.roi_heads.reid_heads, strict=True):
        graph = runner.run(features=features, boxes=torch.cat(boxes), batch_indices=indices)
        deltas, embeddings, _ = head.outputs(rois)
        refined = model.roi_heads.box_coder.decode(deltas, boxes)[:, 1]
        drift = largest_error(graph["embeddings"], embeddings) if "embeddings" in graph else None
        error = largest_error(graph["refined_boxes"], refined)
        comparisons.append(Comparison(name, case.name, len(indices), boxes=error, embeddings=drift))
    return comparisons


def _rpn_errors(model: PersonSearchModel, graph: Outputs, batch: ImageList, features: Tensor) -> tuple[float, float]:
    """All anchors: clipped boxes and probabilities."""
    [objectness], [deltas] = model.rpn.head([features])
    boxes = _anchor_boxes(model, graph["objectness"], graph["deltas"], batch, features)
    expected = _anchor_boxes(model, objectness, deltas, batch, features)
    scores = largest_error(torch.sigmoid(graph["objectness"]), torch.sigmoid(objectness))
    return largest_error(boxes, expected), scores


def _proposal_errors(
    model: PersonSearchModel, graph: Outputs, batch: ImageList, features: Tensor
) -> tuple[float, str | None]:
    """Candidates and proposals, from the graph's own RPN maps."""
    boxes = _anchor_boxes(model, graph["objectness"], graph["deltas"], batch, features)  # [N,M,4]
    logits = graph["objectness"].permute(0, 2, 3, 1).flatten(1)
    # ONNX TopK takes the lower index first on a tie, as does a stable sort.
    order = torch.sort(logits, dim=1, descending=True, stable=True).indices[:, : graph["candidates"].shape[1]]
    expected = torch.stack([image[index] for image, index in zip(boxes, order, strict=True)])
    error = largest_error(graph["candidates"], expected)
    # torchvision's own choice among the graph's candidates, already in order.
    falling = torch.linspace(4, -4, order.shape[1]).expand(len(order), -1)
    chosen, _ = model.rpn.filter_proposals(graph["candidates"], falling, batch.image_sizes, [order.shape[1]])
    for image, (proposals, count, wanted) in enumerate(zip(graph["proposals"], graph["counts"], chosen, strict=True)):
        if not torch.equal(proposals[: int(count)], wanted):
            return error, f"image {image}: the graph chose {int(count)} proposals, torchvision {len(wanted)} or others"
    return error, None


def _head_errors(
    model: PersonSearchModel, graph: Outputs, sizes: list[tuple[int, int]], features: Tensor
) -> tuple[float, float]:
    """The first head on the graph's proposals."""
    counts = graph["counts"].tolist()
    if sum(counts) == 0:
        return 0.0, 0.0
    heads = model.roi_heads
    proposals = [rows[:count] for rows, count in zip(graph["proposals"], counts, strict=True)]
    scores, deltas = heads.score(features, proposals)
    boxes = torch.cat(heads.decode_foreground(deltas, proposals, sizes))
    real = torch.arange(graph["scores"].shape[1]) < graph["counts"][:, None]
    return largest_error(graph["boxes"][real], boxes), largest_error(graph["scores"][real], scores)


def _padding_problem(graph: Outputs) -> str | None:
    padding = torch.arange(graph["scores"].shape[1]) >= graph["counts"][:, None]
    empty = not graph["scores"][padding].any() and not graph["boxes"][padding].any()
    return None if empty else "rows past the count are not zero"


def _anchor_boxes(
    model: PersonSearchModel, objectness: Tensor, deltas: Tensor, batch: ImageList, features: Tensor
) -> Tensor:
    """Every anchor's decoded box, clipped to its image: [N,M,4]."""
    anchors = model.rpn.anchor_generator(batch, [features])
    _, flat = concat_box_prediction_layers([objectness], [deltas])
    boxes: Any = model.rpn.box_coder.decode(flat, anchors).reshape(len(batch.image_sizes), -1, 4)
    return torch.stack(
        [box_ops.clip_boxes_to_image(image, size) for image, size in zip(boxes, batch.image_sizes, strict=True)]
    )
