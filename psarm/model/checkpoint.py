"""Saving and loading models: our safetensors files, training states, and the released `.pth` files.

Our checkpoint is one safetensors file whose metadata key `psarm` holds JSON: the model configuration and what it was
trained on. Loading never runs code from the file (weights_only) and is strict about names and shapes.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from psarm import __version__
from psarm.config import ModelConfig, from_dict, to_dict
from psarm.errors import CheckpointError, ConfigError, UsageError
from psarm.files import atomic_path
from psarm.model.builder import build_model
from psarm.model.person_search import PersonSearchModel
from psarm.model.released import is_psarm, looks_released, released_config, rename

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds."""

    config: ModelConfig
    state: dict[str, Tensor]
    dataset: dict[str, Any] | None
    """Name, frames and identities of the training data, where known."""


def load_model(path: str | Path, device: str = "cpu") -> PersonSearchModel:
    """Load a checkpoint of ours or a released SeqNet / PS-ARM `.pth`; the model comes back in eval mode.

    Raises CheckpointError when the file is missing, damaged, holds code, or belongs to another architecture, and
    UsageError when this machine's torch cannot use `device`.
    """
    checkpoint = read_checkpoint(path)
    model = build_model(checkpoint.config)
    load_state(model, checkpoint.state, str(path))
    try:
        return model.eval().to(device)
    except (RuntimeError, AssertionError) as error:  # torch has no error of its own for a device that is not there
        raise UsageError(f"Device {device!r} cannot be used ({_first_sentence(error)}); use 'cpu'.") from error


def save_model(
    model: PersonSearchModel, path: str | Path, dataset: dict[str, Any] | None = None, half: bool = False
) -> None:
    """Write a model as one safetensors file, atomically; `half` stores float16 (loading gives float32 again)."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    about = {
        "format": FORMAT,
        "psarm_version": __version__,
        "model": to_dict(model.config),
        "dataset": dataset,
    }
    with atomic_path(path) as temporary:
        # Not save_file, which turns a full disk into a SafetensorError.
        temporary.write_bytes(save(state, metadata={"psarm": json.dumps(about)}))


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint file of any known kind without building the model; tensors come back as float32."""
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


def load_state(model: PersonSearchModel, state: Mapping[str, Tensor], source: str) -> None:
    """Load strictly by name and shape; a checkpoint of another architecture is one clear CheckpointError."""
    expected = model.state_dict()
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    shapes = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    if missing or unknown or shapes:
        parts = [
            f"{len(missing)} missing (first: {missing[0]})" if missing else "",
            f"{len(unknown)} unknown (first: {unknown[0]})" if unknown else "",
            f"{len(shapes)} of another shape (first: {shapes[0]} is {list(state[shapes[0]].shape)}, "
            f"needed {list(expected[shapes[0]].shape)})"
            if shapes
            else "",
        ]
        raise CheckpointError(
            f"{source} does not fit {model.config.variant} with {model.config.backbone}: parameters "
            f"{', '.join(part for part in parts if part)}; use a checkpoint of this architecture."
        )
    model.load_state_dict(dict(state), strict=True)


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            about = (file.metadata() or {}).get("psarm")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error}); copy or write it again."
        ) from error
    if about is None:
        raise CheckpointError(
            f"{path} is a safetensors file without psarm's metadata; give one written by psarm train."
        )
    try:
        values = json.loads(about)
        version, config, dataset = values["format"], values["model"], values.get("dataset")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} has metadata that psarm cannot read ({error}); give one written by psarm train."
        ) from error
    if version != FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {version}, this psarm reads {FORMAT}; upgrade psarm.")
    return Checkpoint(_config(config, path), _float32(state), dataset)


def _read_pickled(path: Path) -> Checkpoint:
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
            f"{path} is damaged or not a checkpoint ({type(error).__name__}: {_first_sentence(error)}); copy it again."
        ) from error
    state, values = _state_of(content, path)
    if values is not None:  # a training state of ours
        return Checkpoint(_config(values, path), _float32(state), content.get("dataset"))
    if not looks_released(state):
        raise CheckpointError(
            f"{path} holds a model of another architecture (first parameter: {next(iter(state))}); psarm loads its own "
            "checkpoints and the released SeqNet and PS-ARM files."
        )
    return _released(state, path)


def _state_of(content: Any, path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The state dict in what torch.load gave, and our configuration where the file is a training state."""
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(_is_parameter(*item) for item in state.items()):
        raise CheckpointError(f"{path} holds no model weights; needed a dict of tensors, or one under the key 'model'.")
    config = content.get("config")
    return state, config.get("model") if isinstance(config, dict) else None


def _released(state: Mapping[str, Tensor], path: Path) -> Checkpoint:
    renamed = rename(state)
    for name in ("roi_heads.reid_loss.lut", "roi_heads.reid_loss.cq"):
        table = renamed.get(name)
        if table is None or table.dim() != 2 or len(table) == 0:
            found = "is missing" if table is None else f"has the shape {list(table.shape)}, needed [rows, 256]"
            raise CheckpointError(f"{path}: the OIM table {name} {found}; give the released file unchanged.")
    # Not stored by the released code.
    renamed.setdefault("roi_heads.reid_loss.header", torch.zeros((), dtype=torch.int64))
    return Checkpoint(released_config(renamed, is_psarm(state)), _float32(renamed), None)


def _is_parameter(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _first_sentence(error: BaseException) -> str:
    return (str(error).splitlines() or ["no reason given"])[0].split(". ")[0][:120]


def _float32(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def _config(values: Any, path: Path) -> ModelConfig:
    try:
        return from_dict(ModelConfig, values, f"{path}: model")
    except ConfigError as error:
        raise CheckpointError(f"The checkpoint's configuration cannot be used: {error}") from error
