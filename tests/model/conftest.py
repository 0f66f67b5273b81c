"""Released files with conditioned weights, each loaded by psarm and by the oracle."""

from types import SimpleNamespace

import pytest
import torch
from released_files import released_shapes, training_state
from released_oracle import Oracle
from released_weights import SIZES, calibrate, condition, picture, shrink

import psarm


@pytest.fixture(scope="session", params=["seqnet", "psarm"])
def released(request, tmp_path_factory):
    """`path` of a released-style .pth file, `state` in it, psarm's `model` of it and the `oracle`."""
    variant = request.param
    oracle = Oracle(variant == "psarm", identities=482, queue=500).eval()
    oracle.load_state_dict(condition(released_shapes(variant, 482, 500), seed=1), strict=True)
    shrink(oracle)
    calibrate(oracle, [picture(*size, seed) for seed, size in enumerate(SIZES)])
    state = {name: value.clone() for name, value in oracle.state_dict().items()}
    path = tmp_path_factory.mktemp("released") / f"{variant}.pth"
    torch.save({"model": state, **training_state()}, path)
    model = psarm.load_model(path)
    shrink(model)
    yield SimpleNamespace(variant=variant, oracle=oracle, state=state, path=path, model=model)
    path.unlink()  # pytest would keep its hundreds of megabytes


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def precise(request, released):
    """`released` in one precision, and back to float32 afterwards (exact: the weights are float32 numbers)."""
    released.model.to(request.param)
    released.oracle.to(request.param)
    yield SimpleNamespace(**vars(released), dtype=request.param)
    released.model.float()
    released.oracle.float()
