"""PS-ARM and SeqNet in PyTorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psarm.model.builder import build_model
    from psarm.model.checkpoint import load_model, save_model
    from psarm.model.person_search import PersonSearchModel

__all__ = ["PersonSearchModel", "build_model", "load_model", "save_model"]

_HOMES = {
    "PersonSearchModel": "person_search",
    "build_model": "builder",
    "load_model": "checkpoint",
    "save_model": "checkpoint",
}


def __getattr__(name: str) -> Any:
    """Import torch only when something of the model is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
