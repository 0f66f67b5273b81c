"""psarm: person search with PS-ARM and SeqNet, from training to a torch-free runtime.

Importing `psarm` needs no torch; `load_model` imports it when called.
"""

from __future__ import annotations

TYPE_CHECKING = False  # not typing's, nor pathlib here: no command can answer Ctrl-C before this file is imported
if TYPE_CHECKING:
    from pathlib import Path

    from psarm.model.person_search import PersonSearchModel

__version__ = "0.1.0"
__all__ = ["__version__", "load_model"]


def load_model(path: str | Path, device: str = "cpu") -> PersonSearchModel:
    """Load a psarm checkpoint or a released SeqNet / PS-ARM `.pth` file; returns the model in eval mode.

    The variant and the ARM layout are recognised from the file. Raises `psarm.errors.CheckpointError` when the file
    is not a checkpoint of a known model, and `psarm.errors.MissingExtraError` when torch is not installed.
    """
    from psarm.extras import require

    require("torch", "torchvision", "safetensors", feature="psarm.load_model", extra="train")
    from psarm.model.checkpoint import load_model as load

    return load(path, device)
