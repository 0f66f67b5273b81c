"""Gradients that are not finite: the step stops the training, or fp16's loss scaler skips it."""

import pytest
import torch
from accelerate import Accelerator
from fp16_on_cpu import ScalingAccelerator
from tiny_runs import assert_equal, state_of, tiny
from torch import nn

from psarm.config import TrainConfig
from psarm.data.loader import Batch
from psarm.training.averaging import make_average
from psarm.training.faults import Diverged
from psarm.training.step import Stepper
from psarm.training.trainer import train

SCALE = 2.0**120
OVERFLOWS_BUT_FOR_THREE_HALVINGS = 2.0**10
"""A gradient that is 2**130 with `SCALE` and 2**127 with an eighth of it, which float32 can hold."""


class Weights(nn.Module):
    """Four numbers; the loss is always finite, its gradient is what the batch says."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(4.0))

    def forward(self, images, targets):
        weight = self.weight.clone()
        weight.register_hook(lambda gradient: gradient * targets[0]["gradient"])
        return {"oim": weight.sum()}


def make_stepper(accelerator, decay=0.5, accumulate=1):
    model = Weights()
    losses, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 1.0))
    recipe = TrainConfig(accumulate=accumulate, clip_norm=1.0)
    return Stepper(recipe, accelerator, model, losses, optimizer, make_average(model, decay, {}))


def take(stepper, *gradients):
    batches = [Batch([torch.zeros(3, 1, 1)], [{"gradient": torch.tensor(value)}], []) for value in gradients]
    return stepper.step(batches, 1.0)


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("others", [[], [1.0]], ids=["one batch", "the second of two"])
def test_a_gradient_that_is_not_finite_stops_the_training(value, others):
    stepper = make_stepper(Accelerator(cpu=True), accumulate=1 + len(others))
    with pytest.raises(Diverged, match=f"^the gradient norm is {value}$"):
        take(stepper, *others, float(value))
    assert stepper.model.weight.tolist() == [0, 1, 2, 3]
    assert stepper.average.n_averaged == 0


def test_fp16_skips_steps_until_the_scale_fits():
    accelerator = ScalingAccelerator(init_scale=SCALE)
    stepper = make_stepper(accelerator)
    for halvings in (1, 2, 3):
        _, norm = take(stepper, OVERFLOWS_BUT_FOR_THREE_HALVINGS)
        assert norm == float("inf") and accelerator.scaler.get_scale() == SCALE / 2**halvings
        assert stepper.model.weight.tolist() == [0, 1, 2, 3]
        assert stepper.average.n_averaged == 0  # else the average would count weights that no step made
    losses, norm = take(stepper, OVERFLOWS_BUT_FOR_THREE_HALVINGS)
    assert losses == {"total": 6.0, "oim": 6.0}
    assert norm == 2 * OVERFLOWS_BUT_FOR_THREE_HALVINGS and accelerator.scaler.get_scale() == SCALE / 8
    torch.testing.assert_close(stepper.model.weight.detach(), torch.arange(4.0) - 0.5)  # clipped to a norm of 1
    assert stepper.average.n_averaged == 1
    assert torch.equal(stepper.average.module.weight, stepper.model.weight)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_fp16_stops_where_no_scale_helps(value):
    accelerator = ScalingAccelerator()
    stepper = make_stepper(accelerator)
    for _ in range(16):  # torch begins with 2**16
        take(stepper, float(value))
    assert accelerator.scaler.get_scale() == 1
    with pytest.raises(Diverged, match=f"^the gradient norm is {value} in fp16 even at a loss scale of 1$"):
        take(stepper, float(value))
    assert stepper.model.weight.tolist() == [0, 1, 2, 3]
    assert stepper.average.n_averaged == 0


def test_the_loss_scale_is_saved_and_goes_on(prw, tmp_path, monkeypatch):
    """Four steps double the scale once, after the third: in the middle of the second epoch."""
    monkeypatch.setattr(
        "psarm.training.trainer.make_accelerator",
        lambda amp: ScalingAccelerator(init_scale=2.0**8, growth_interval=3),
    )
    train(tiny(prw, tmp_path / "straight", epochs=2))
    train(tiny(prw, tmp_path / "resumed", epochs=1))
    first = state_of(tmp_path / "resumed").scaler
    assert (first["scale"], first["_growth_tracker"]) == (2**8, 2)
    train(tiny(prw, tmp_path / "resumed", epochs=2), resume=True, allow_changes=True)
    straight, resumed = state_of(tmp_path / "straight"), state_of(tmp_path / "resumed")
    assert (straight.scaler["scale"], straight.scaler["_growth_tracker"]) == (2**9, 1)
    for part in ("scaler", "model", "optimizer"):
        assert_equal(getattr(resumed, part), getattr(straight, part), part)
