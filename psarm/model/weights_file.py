"""Named tensors in a file, whoever wrote it: safetensors, or torch.save's files without running code from them."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from psarm.errors import CheckpointError


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights holds; nothing of it has been interpreted."""

    kind: Literal["safetensors", "pickled"]
    state: dict[str, Tensor]
    """Tensors by name; floating-point ones as float32."""
    stored_as: tuple[str, ...]
    """Types that the floating-point tensors have in the file: float32, float16, …"""
    about: dict[str, Any]
    """What stands beside them: the metadata of safetensors, or the entries beside `model` of a pickled dict."""


def read_weights(path: str | Path) -> WeightsFile:
    """Read a file of named tensors, recognised by its content.

    Raises CheckpointError where there is none, or it is damaged, holds code or holds something else.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(
            f"There is no checkpoint at {path}; give a .safetensors file of psarm or a released .pth file."
        )
    if (path / "manifest.json").is_file():
        raise CheckpointError(
            f"{path} is a bundle (it has a manifest.json); give the checkpoint it was made from, such as "
            "model.safetensors."
        )
    if path.is_dir():
        raise CheckpointError(
            f"{path} is a folder; give the checkpoint file itself (psarm train writes model.safetensors)."
        )
    with path.open("rb") as file:
        start = file.read(9)
    if len(start) == 9 and start[8:9] == b"{":
        return _read_safetensors(path)
    if start.startswith((b"PK", b"\x80")):  # a zip archive of torch.save, or a pickle
        return _read_pickled(path)
    kind = "not a checkpoint" if start else "empty"
    raise CheckpointError(f"{path} is {kind}; give a .safetensors file of psarm or a released .pth file.")


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        with safe_open(path, framework="pt") as file:
            about = dict(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error}); copy or write it again."
        ) from error
    return WeightsFile("safetensors", _float32(state), _types(state), about)


def _read_pickled(path: Path) -> WeightsFile:
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of pickle protocols it then refuses
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and plain values; psarm refuses it because loading it could run code. "
            "Save the state dict alone, or get the checkpoint from its authors again."
        ) from error
    except Exception as error:  # the unpickler raises whatever damaged bytes lead it into
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint ({type(error).__name__}: {first_sentence(error)}); copy it again."
        ) from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(_is_parameter(*item) for item in state.items()):
        raise CheckpointError(f"{path} holds no model weights; needed a dict of tensors, or one under the key 'model'.")
    about = {} if state is content else {name: value for name, value in content.items() if name != "model"}
    return WeightsFile("pickled", _float32(state), _types(state), about)


def misfit(needed: Mapping[str, Tensor], given: Mapping[str, Tensor], listed: int = 1) -> str:
    """How `given` differs from `needed` in names, shapes and kinds of number, in words; empty where it fits.

    Of each kind of difference the number and the first `listed` names are told.
    """
    both = [name for name in needed if name in given]
    shapes = [
        f"{name} is {list(given[name].shape)}, needed {list(needed[name].shape)}"
        for name in both
        if given[name].shape != needed[name].shape
    ]
    kinds = [
        f"{name} is {_type(given[name])}, needed {_type(needed[name])}"
        for name in both
        if given[name].is_floating_point() != needed[name].is_floating_point()
    ]
    differences = {
        "missing": [name for name in needed if name not in given],
        "unknown": [name for name in given if name not in needed],
        "of another shape": shapes,
        "of another type": kinds,
    }
    return ", ".join(
        f"{len(found)} {what} ({'first: ' if len(found) > listed or listed == 1 else ''}{', '.join(found[:listed])})"
        for what, found in differences.items()
        if found
    )


def first_sentence(error: BaseException) -> str:
    """The first sentence of torch's message, shortened."""
    return (str(error).splitlines() or ["no reason given"])[0].split(". ")[0][:120]


def _is_parameter(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _float32(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def _types(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    return tuple(sorted({_type(value) for value in state.values() if value.is_floating_point()}))


def _type(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
