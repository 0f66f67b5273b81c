"""The fp32 graphs in TensorRT's form against the ordinary ones, which were compared with the model: same inputs, ONNX
Runtime on the CPU.

Both forms make the same choices from the same numbers (NMS, the best K), so that rows are compared as they stand.
Images whose proposals the form says it did not settle are left out; a batch of nothing else fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from psarm.export.comparison import Comparison, largest_error
from psarm.export.verify import SEED, require_limits
from psarm.export.verify_graphs import GraphRunner
from psarm.export.verify_inputs import BatchCase, batch_cases, border_boxes
from psarm.runtime.manifest import GRAPH_OUTPUTS


def verify_tensorrt(
    directory: Path, names: Iterable[str], say: Callable[[str], None] = lambda message: None
) -> list[Comparison]:
    """Compare the graphs `names` of the bundle in `directory`; raises `ExportError` where a limit does not hold."""
    say("verifying the form for TensorRT…")
    ordinary = {name: GraphRunner(directory / f"{name}.onnx", name) for name in names}
    form = {name: GraphRunner(directory / "tensorrt" / f"{name}.fp32.onnx", name) for name in names}
    rng = np.random.default_rng(SEED)
    found = [one for case in batch_cases(rng) for one in _compare(ordinary, form, case, rng)]
    require_limits(found)
    return found


def _compare(
    ordinary: dict[str, GraphRunner], form: dict[str, GraphRunner], case: BatchCase, rng: np.random.Generator
) -> list[Comparison]:
    images = {"images": case.images, "image_sizes": torch.tensor(case.sizes)}
    expected, actual = (runners["detect"].run(**images) for runners in (ordinary, form))
    settled = actual["exact"]
    problem = None if settled.any() else "no image's proposals are settled, so that nothing can be compared"
    counts = (expected["counts"][settled], actual["counts"][settled])
    if not torch.equal(*counts):
        problem = "other numbers of proposals than the ordinary graph"
    comparisons = [
        Comparison(
            "tensorrt/detect",
            case.name,
            int(counts[0].sum()),
            boxes=largest_error(actual["boxes"][settled], expected["boxes"][settled]),
            scores=largest_error(actual["scores"][settled], expected["scores"][settled]),
            problem=problem,
        )
    ]
    padded = (case.images.shape[2], case.images.shape[3])
    parts = [border_boxes(size, padded, rng) for size in case.sizes]
    indices = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(part) for part in parts]))
    heads = {"features": expected["features"], "boxes": torch.cat(parts), "batch_indices": indices}
    for name in form.keys() - {"detect"}:
        wanted, found = (runners[name].run(**heads) for runners in (ordinary, form))
        errors = {output: largest_error(found[output], wanted[output]) for output in GRAPH_OUTPUTS[name]}
        boxes, drift = errors["refined_boxes"], errors.get("embeddings")
        comparisons.append(Comparison(f"tensorrt/{name}", case.name, len(indices), boxes=boxes, embeddings=drift))
    return comparisons
