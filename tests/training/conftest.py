from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from tiny_prw import write_tiny_prw


@pytest.fixture(scope="session")
def prw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a tiny data set; not to be changed."""
    return write_tiny_prw(tmp_path_factory.mktemp("data") / "prw")


@pytest.fixture
def fresh_accelerator() -> Iterator[None]:
    """Accelerate keeps one precision a process; let a test have its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
