"""The moving average of the weights over the steps (train.ema), which is evaluated and saved in their place."""

from __future__ import annotations

from typing import Any

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from psarm.model.person_search import PersonSearchModel


def make_average(model: PersonSearchModel, decay: float, saved: dict[str, Any]) -> AveragedModel | None:
    """The average of `model`'s weights, as it was `saved`, or beginning with the next step; None where decay is 0.

    Buffers (OIM's tables, BatchNorm's statistics) are not averaged but taken over.
    """
    if decay == 0:
        return None
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
    if saved:
        average.load_state_dict(saved)
    return average
