"""Two processes that train together (gloo, half the batch each) against one with the whole batch, in float64."""

from concurrent.futures import ThreadPoolExecutor

import preloaded
import pytest
import torch
import two_processes
from torch import nn
from two_processes import ROWS, TRAININGS

WORLD = 2


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of the two processes left."""
    folder = tmp_path_factory.mktemp("processes")
    words = [[two_processes.__file__, str(rank), str(WORLD), str(folder)] for rank in range(WORLD)]
    with ThreadPoolExecutor(WORLD) as threads:
        done = list(threads.map(preloaded.run, words))
    assert [process.returncode for process in done] == [0, 0], "\n".join(process.stderr for process in done)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("name", TRAININGS)
def test_training(found, name):
    """Losses, OIM's tables and queue, weights, running statistics; mixed sizes, unlabelled people, empty images."""
    alone = two_processes.train(*TRAININGS[name])
    states = [process[name]["state"] for process in found]
    for step, expected in enumerate(alone["losses"]):
        shares = [process[name]["losses"][step] for process in found]
        for key, value in expected.items():
            assert sum(share[key] for share in shares) / WORLD == pytest.approx(value, rel=1e-8, abs=1e-10), (step, key)
    for key, value in alone["state"].items():
        assert torch.equal(states[0][key], states[1][key]), key
        torch.testing.assert_close(states[0][key], value, rtol=1e-8, atol=1e-9, msg=key)
    tables = {key.rpartition(".")[2] for key, value in alone["state"].items() if value.any() and "reid_loss" in key}
    assert tables >= {"lut", "cq"}


def together(parts):
    """One process's answer to all the rows: its parameters' gradients are the sum of the processes'."""
    return {
        name: torch.cat([part[name] for part in parts])
        if name in ("out", "of_rows")
        else sum(part[name] for part in parts)
        if name in ("of_weight", "of_bias")
        else parts[0][name]
        for name in parts[0]
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("case", ROWS)
def test_batch_norm(found, case, axes, dtype):
    kind, shape = ((nn.BatchNorm1d, ()), (nn.BatchNorm2d, (2, 3)))[axes - 1]
    rows = [two_processes.rows_of(case, rank, dtype, shape) for rank in range(WORLD)]
    expected = two_processes.normalise(two_processes.make_norm(kind, dtype), rows)
    parts = [process["norms"][case, axes, dtype] for process in found]
    precision = {"rtol": 1e-12, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-3}
    for name, value in together(parts).items():
        torch.testing.assert_close(value, expected[name], msg=name, **precision)
    for name in ("mean", "var", "tracked"):
        assert torch.equal(parts[0][name], parts[1][name])


def test_batch_norm_of_a_large_mean(found):
    """Where sums of squares about zero would leave nothing of a variance of 0.04; float32 has steps of 0.001 there."""
    rows = torch.cat([two_processes.rows_of("ragged", rank, torch.float32, offset=1e4) for rank in range(WORLD)])
    variance = 0.9 + 0.1 * rows.double().var(dim=0)
    for process in found:
        torch.testing.assert_close(process["norms"]["large mean"]["var"].double(), variance, rtol=1e-4, atol=0)


def test_batch_norm_that_is_not_synchronised(found):
    for rank, process in enumerate(found):
        rows = two_processes.rows_of("ragged", rank, torch.float64)
        expected = two_processes.normalise(two_processes.make_norm(nn.BatchNorm1d, torch.float64), [rows])
        for name, value in process["norms"]["not synchronised"].items():
            assert torch.equal(value, expected[name]), name


def test_batch_norm_of_a_single_row_is_refused_by_all(found):
    assert all("more than 1 value" in process["norms"]["a single row"] for process in found)


def test_exchange(found):
    here, there = (process["exchange"] for process in found)
    for process in (here, there):
        assert process["world_size"] == WORLD
        assert torch.equal(process["sum_across"], here["mine"] + there["mine"])
        assert process["max_across"] == [4, 7]
        assert torch.equal(process["ragged"], torch.cat([here["mine"][:1], there["mine"]]))
        assert torch.equal(process["none_here"], there["mine"])
        assert process["none"].shape == (0, 2) and process["none"].dtype == torch.int64
        assert process["share_of_nothing"] == 0
    assert (here["share"] + there["share"]) / WORLD == (2 + 3) / (1 + 4)
