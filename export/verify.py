"""Verification of a bundle: every graph and the whole, on inputs other than the traced ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from psarm.errors import ExportError
from psarm.export.comparison import Comparison
from psarm.export.verify_graphs import GraphRunner, compare_detect, compare_heads, detect_runner
from psarm.export.verify_inputs import batch_cases
from psarm.export.verify_people import CASES, compare_embed, compare_people
from psarm.model.person_search import PersonSearchModel

SEED = 20221204


def verify_bundle(
    model: PersonSearchModel, bundle: Path, say: Callable[[str], None] = lambda message: None
) -> list[Comparison]:
    """Compare the fp32 graphs of `bundle`, run by ONNX Runtime on the CPU, with the model they came from.

    `say` gets a line before each part. Raises `ExportError` naming every case where a limit does not hold; people are
    looked at only where the graphs are right.
    """
    detect = detect_runner(bundle)
    names = ["refine", "reid"] if len(model.roi_heads.reid_heads) > 1 else ["reid"]
    heads = {name: GraphRunner(bundle / f"{name}.onnx", name) for name in names}
    rng = np.random.default_rng(SEED)
    cases = batch_cases(rng)
    say("verifying detect…")
    graphs = [compare_detect(model, detect, case) for case in cases]
    say(f"verifying {' and '.join(names)}…")
    graphs += [comparison for case in cases for comparison in compare_heads(model, detect, heads, case, rng)]
    require_limits(graphs)
    say("verifying the whole bundle…")
    people = [compare_people(model, bundle, case, SEED + number) for number, case in enumerate(CASES)]
    people.append(compare_embed(model, bundle, SEED))
    require_limits(people)
    return graphs + people


def require_limits(comparisons: list[Comparison]) -> None:
    """Raise `ExportError` naming every comparison whose limits do not hold."""
    failed = [f"{c.graph}, {c.case}: {', '.join(c.failures())}" for c in comparisons if c.failures()]
    if failed:
        broken = any("by nan" in phrase for phrase in failed)
        advice = (
            "the model's own answers are not numbers: its weights hold NaN or overflow"
            if broken
            else "untrained weights can amplify rounding that much: --no-verify exports them anyway"
        )
        raise ExportError(
            f"The exported graphs do not compute what the PyTorch model does: {'; '.join(failed)}; nothing was written "
            f"({advice})."
        )
