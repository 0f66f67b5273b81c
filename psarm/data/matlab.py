"""MATLAB files read whole, by scipy, with errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from psarm.errors import DataError


def load_mat(path: Path) -> dict[str, Any]:
    """All variables of a MATLAB file; raises `DataError` where it is missing, damaged or no MATLAB file."""
    if not path.is_file():
        raise DataError(f"{path} is missing.")
    try:
        content: dict[str, Any] = loadmat(str(path), appendmat=False)
    except Exception as error:  # scipy's parser raises whatever damaged bytes lead it into
        raise DataError(f"{path} cannot be read as a MATLAB file ({type(error).__name__}: {error}).") from error
    return content


def load_variable(path: Path, variable: str, meaning: str) -> NDArray[Any]:
    """One variable of a MATLAB file; raises as `load_mat` does, and where it is not there, saying what it means."""
    content = load_mat(path)
    if variable not in content:
        raise DataError(f"{path} has no variable {variable} (found: {variable_names(content)}); it should {meaning}.")
    return np.asarray(content[variable])


def variable_names(content: dict[str, Any]) -> str:
    """Names of the variables of a file, for a message."""
    return ", ".join(name for name in content if not name.startswith("__")) or "none"
