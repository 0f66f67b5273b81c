"""Names, dtypes and shapes of tensors against the manifest, and what a library's exception means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from psarm.errors import BundleError, PsarmError
from psarm.runtime.manifest import TensorSpec

OUT_OF_MEMORY = re.compile(
    "out of memory|not enough memory|bad[_ ]alloc|alloc_failed|(failed to|cannot|could not|couldn't|can't) allocate",
    re.IGNORECASE,
)


def check_tensors(
    what: str,
    tensors: Mapping[str, Any],
    specs: Mapping[str, TensorSpec],
    sizes: dict[str, int],
    error: type[PsarmError],
) -> None:
    """Raise `error` for a dtype or shape other than `specs` say; `sizes` collects every named dimension of a call."""
    for name, spec in specs.items():
        array = tensors[name]
        if array.dtype != np.dtype(spec.dtype):
            raise error(f"The {what} {name!r} must be {spec.dtype}, got {array.dtype}.")
        fits = len(array.shape) == len(spec.shape) and all(
            size == (sizes.setdefault(wanted, size) if isinstance(wanted, str) else wanted)
            for size, wanted in zip(array.shape, spec.shape, strict=True)
        )
        if not fits:
            known = [sizes.get(wanted, wanted) if isinstance(wanted, str) else wanted for wanted in spec.shape]
            raise error(f"The {what} {name!r} must be {list(spec.shape)} = {known}, got {list(array.shape)}.")


def check_described(
    path: str, kind: str, found: Mapping[str, tuple[str, Sequence[object]]], described: Mapping[str, TensorSpec]
) -> None:
    """Compare a loaded graph's `kind` ("inputs") with the manifest; raises `BundleError` for the first difference.

    `found`: dtype and shape by name; a size that is no int varies.
    """
    if set(found) != set(described):
        raise BundleError(
            f"{path} has the {kind} {', '.join(sorted(found))}; "
            f"its manifest says {', '.join(sorted(described))}; export the bundle again."
        )
    for name, (dtype, shape) in found.items():
        spec = described[name]
        same_shape = len(shape) == len(spec.shape) and all(
            not (isinstance(a, int) and isinstance(b, int)) or a == b for a, b in zip(shape, spec.shape, strict=True)
        )
        if dtype != spec.dtype or not same_shape:
            raise BundleError(
                f"{path}: {name} is {dtype} {list(shape)}, its manifest says {spec.dtype} {list(spec.shape)}; "
                "export the bundle again."
            )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library failed for want of memory, on the host or a device."""
    return isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)) is not None


def first_line(error: BaseException) -> str:
    """The first line of a library's message, short enough for one sentence."""
    lines = str(error).strip().splitlines()
    return lines[0][:300].rstrip(". ") if lines else type(error).__name__


def count_threads(threads: int) -> str:
    """`4 threads`."""
    return f"{threads} {'thread' if threads == 1 else 'threads'}"
