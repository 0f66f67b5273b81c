"""The models by name: what the heads of every row of the paper's Tables 1 and 2 are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mixing = Literal[
    "arm", "relation_mixer", "spatially_attended", "channel_attended", "mlp_mixer", "transformer", "spatio_channel"
]
"""What mixes the cells of a RoI; `arm` is the relation mixer with spatio-channel attention."""


@dataclass(frozen=True)
class Variant:
    """What a model's heads are made of."""

    heads: Literal["nae", "seqnet", "cascaded"]
    """nae: one head detects and embeds; seqnet: a detection head, then a re-id head; cascaded: one more re-id head."""
    mixing: Mixing | None = None
    """What stands before res5 of every head."""


VARIANTS = {
    "nae": Variant("nae"),
    "nae_arm": Variant("nae", "arm"),
    "seqnet": Variant("seqnet"),
    "psarm": Variant("seqnet", "arm"),
    "cascaded_psarm": Variant("cascaded", "arm"),
    "seqnet_mlp_mixer": Variant("seqnet", "mlp_mixer"),
    "seqnet_transformer": Variant("seqnet", "transformer"),
    "seqnet_spatio_channel": Variant("seqnet", "spatio_channel"),
    "seqnet_channel_attended": Variant("seqnet", "channel_attended"),
    "seqnet_spatially_attended": Variant("seqnet", "spatially_attended"),
    "seqnet_relation_mixer": Variant("seqnet", "relation_mixer"),
}
"""The rows of the paper's Tables 1 and 2 by the name that `model.variant` takes."""
GATED = ("arm", "relation_mixer", "spatially_attended", "channel_attended")
"""Mixings with an attention gate; only these differ between the two layouts."""
