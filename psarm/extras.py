"""Optional dependencies: fail with one clear sentence before a command starts its work."""

from __future__ import annotations

import importlib.util

from psarm.errors import MissingExtraError


def require(*modules: str, feature: str, extra: str) -> None:
    """Check that `modules` (top-level import names) are installed, without importing them.

    Raises `MissingExtraError` naming the `feature` that needs them, the missing ones and the pip `extra` to install::

        require("torch", "torchvision", feature="psarm train", extra="train")
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtraError(feature, extra, f"{', '.join(missing)} {verb} not installed")
