"""Named tensors in a file, whoever wrote it: safetensors, or torch.save's files without running code from them."""

from __future__ import annotations

import pickle
import warnings
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
    return WeightsFile("safetensors", _float32(state), about)


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
    return WeightsFile("pickled", _float32(state), about)


def first_sentence(error: BaseException) -> str:
    """The first sentence of torch's message, shortened."""
    return (str(error).splitlines() or ["no reason given"])[0].split(". ")[0][:120]


def _is_parameter(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _float32(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
