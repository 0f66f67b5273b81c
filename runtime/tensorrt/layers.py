"""What an engine really computes in: its layers by data type, told by the engine itself and not by the file's name."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from psarm.errors import ExportError
from psarm.runtime.tensorrt.flavour import Flavour, MessageLog
from psarm.runtime.tensorrt.library import Network

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = {"half": "fp16", "fp16": "fp16", "float": "fp32", "fp32": "fp32", "bfloat16": "bf16", "bf16": "bf16"} | {
    name: name for name in ("int8", "int32", "int64")
}
DATA_TYPE = re.compile(r"Datatype: ([^,}]+)")
WORD = re.compile(r"[A-Za-z]+\d*")
HEAVY = ("CONVOLUTION", "MATRIX_MULTIPLY")
"""The layers whose precision decides an engine's speed."""
TYPES_OF = {"fp16": "HALF"}


def check_network(network: Network, precision: str, graph: Path) -> None:
    """Raise `ExportError` where most convolutions and products of an fp16 graph compute in another type."""
    wanted = TYPES_OF.get(precision)
    if wanted is None:
        return
    heavy = [layer for layer in map(network.get_layer, range(network.num_layers)) if layer.type.name in HEAVY]
    outputs = [layer.get_output(0) for layer in heavy]
    count = sum(output is not None and output.dtype.name == wanted for output in outputs)
    if heavy and 2 * count < len(heavy):
        raise ExportError(
            f"{graph.name} is no {precision} graph: only {count} of its {len(heavy)} convolutions and matrix products "
            f"compute in {precision}; export it again with --precision {precision}."
        )


def describe(flavour: Flavour, plan: bytes, log: MessageLog) -> str:
    """One line a layer, from the engine inspector.

    TensorRT for RTX logs the inspector's text when it has built, so that no GPU is needed; for TensorRT the plan is
    loaded once.
    """
    if flavour.ahead_of_time:
        return next((text for _, text in reversed(log.messages.copy()) if text.startswith("Layers:")), "")
    library = flavour.load()
    engine = library.Runtime(log.handle).deserialize_cuda_engine(plan)
    if engine is None:
        raise ExportError(f"{flavour.title} does not load the engine it has just built; run it again.")
    return str(engine.create_engine_inspector().get_engine_information(library.LayerInformationFormat.ONELINE))


def count(description: str) -> dict[str, int]:
    """Layers by the type of their outputs; those without any (they compute shapes on the host) are left out."""
    found: Counter[str] = Counter()
    for line in description.splitlines():
        _, marker, outputs = line.partition("Outputs: [")
        if marker and "LayerType:" in line:
            found.update({_name(match) for match in DATA_TYPE.findall(outputs)})
    return dict(sorted(found.items()))


def check_engine(counts: Mapping[str, int], precision: str, graph: Path) -> None:
    """Raise `ExportError` where the finished engine holds no layer of the precision it was built for."""
    if precision in counts:
        return
    held = ", ".join(f"{number} {name}" for name, number in counts.items()) or "none that tell their type"
    raise ExportError(
        f"The engine of {graph.name} holds no {precision} layer (its layers: {held}), so it is no {precision} engine; "
        f"export the bundle again with --precision {precision}."
    )


def _name(data_type: str) -> str:
    """`Half` or `Row major linear FP16 format` → fp16."""
    words = [word.lower() for word in WORD.findall(data_type)]
    return next((NAMES[word] for word in words if word in NAMES), words[-1] if words else "unknown")
