"""Synthetic street scenes with people, written in the on-disk format of PRW or CUHK-SYSU.

From nothing to files: `settings` (what is asked) → `cast` of `appearance`s (who) → `plan` (who walks where and when)
→ `pose`, `body`, `head`, `bags` (a person as tubes) → `drawing`, `materials`, `figure` (a person as a sprite)
→ `cameras`, `surfaces`, `background`, `furniture`, `scene` (a frame) → `jobs` (in parallel)
→ `layout`, `prw_layout`, `cuhk_layout`, `writer` (the files) → `generate` (all of it).
"""

from psarm.data.synth.generate import LAYOUTS, SynthSummary, generate_dataset
from psarm.data.synth.settings import SynthSettings

__all__ = ["LAYOUTS", "SynthSettings", "SynthSummary", "generate_dataset"]
