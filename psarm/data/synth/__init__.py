"""Synthetic street scenes with people, written in PRW's on-disk format.

From nothing to files: `settings` (what is asked) → `cast` of `appearance`s (who) → `plan` (who walks where and when)
→ `pose`, `body`, `head`, `bags` (a person as tubes) → `drawing`, `materials`, `figure` (a person as a sprite)
→ `cameras`, `surfaces`, `background`, `furniture`, `scene` (a frame) → `writer` (PRW's files) → `jobs` (in parallel)
→ `generate` (all of it).
"""

from psarm.data.synth.generate import SynthSummary, generate_prw
from psarm.data.synth.settings import SynthSettings

__all__ = ["SynthSettings", "SynthSummary", "generate_prw"]
