import pytest
import torch

from psarm.config import TrainConfig
from psarm.training.schedule import learning_rate, scaled_to_batch


@pytest.mark.parametrize(
    ("warmup", "steps"), [(1.0, (8,)), (0.0, ()), (0.5, (3, 5)), (2.0, (1, 4))], ids=["psarm", "flat", "half", "long"]
)
def test_equals_torchs_schedulers(warmup, steps):
    """The oracle: torch's warm-up and step decay, stepped once an iteration."""
    recipe = TrainConfig(lr=0.3, warmup_epochs=warmup, lr_steps=steps, lr_gamma=0.1)
    per_epoch = 10
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=recipe.lr)
    schedulers = [torch.optim.lr_scheduler.MultiStepLR(optimizer, [step * per_epoch for step in steps], 0.1)]
    if warmup:
        iterations = int(warmup * per_epoch)
        schedulers.append(torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, 1.0, iterations))
    for iteration in range(10 * per_epoch):
        assert learning_rate(recipe, iteration, per_epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def test_starts_at_a_thousandth():
    assert learning_rate(TrainConfig(), 0, 1000) == pytest.approx(0.003 / 1000)
    assert learning_rate(TrainConfig(), 1000, 1000) == 0.003


def test_the_rate_is_scaled_to_the_effective_batch_where_it_says_which_it_is_for():
    assert scaled_to_batch(TrainConfig(lr=0.003, lr_batch=3), 6) == TrainConfig(lr=0.006, lr_batch=3)
    assert scaled_to_batch(TrainConfig(lr=0.003), 6) == TrainConfig(lr=0.003)
