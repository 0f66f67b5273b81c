"""Configuration: grouped dataclasses with documented fields, read from YAML and `key=value` overrides.

Importable without torch. Every check names the offending key.
"""

from psarm.config.files import load_config, read_groups
from psarm.config.model import ModelConfig
from psarm.config.run import DATASETS, Config, DataConfig, LossWeights, TrainConfig
from psarm.config.values import check_values, from_dict, to_dict
from psarm.config.variants import GATED, VARIANTS, Mixing, Variant

__all__ = [
    "DATASETS",
    "GATED",
    "VARIANTS",
    "Config",
    "DataConfig",
    "LossWeights",
    "Mixing",
    "ModelConfig",
    "TrainConfig",
    "Variant",
    "check_values",
    "from_dict",
    "load_config",
    "read_groups",
    "to_dict",
]
