"""What `export_bundle` is asked for beside the fp32 graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from psarm.errors import UsageError

PRECISIONS = ("fp32", "fp16", "int8")
"""Those that are files of a bundle; bf16 is a way to run the fp32 graphs."""
COMPARE_FRAMES = 16
"""Frames that precisions are compared with fp32 on where no other number is asked for."""


@dataclass(frozen=True)
class PrecisionSettings:
    """Which precisions to write, and on what they are measured. Raises `UsageError` for what does not go together."""

    precisions: tuple[str, ...] = ("fp32",)
    """In the order of `PRECISIONS`; fp32 is always among them, bf16 and every comparison start from it."""
    calibrate: Path | None = None
    """Pictures to calibrate int8 on: a folder, or a data set's folder."""
    data_root: Path | None = None
    """Folder of a data set to measure accuracy on."""
    dataset: str = "prw"
    """Format of `data_root`."""
    min_map_ratio: float | None = None
    """Least share of fp32's mAP a precision must keep."""
    compare_frames: int | None = None
    """Frames that precisions are compared with fp32 on; None: `COMPARE_FRAMES`."""
    tensorrt: bool = False
    """Whether to write the graphs that TensorRT builds engines from, too."""

    def __post_init__(self) -> None:
        if self.precisions != (needed := parse_precisions(self.precisions)):
            raise UsageError(
                f"The precisions are {', '.join(self.precisions) or 'none'}; needed {', '.join(needed)} in this order, "
                "as parse_precisions gives them."
            )
        if "int8" in self.precisions and self.calibrate is None:
            raise UsageError(
                "int8 is calibrated on pictures of the scenes it will see; give them with --calibrate DATA."
            )
        if self.calibrate is not None and self.precisions == ("fp32",):
            raise UsageError("--calibrate has nothing to do for fp32; ask for int8 or fp16 with --precision.")
        if self.compare_frames is not None and self.precisions == ("fp32",):
            raise UsageError(
                "--compare-frames has nothing to compare with fp32; ask for int8 or fp16 with --precision."
            )
        if self.min_map_ratio is None:
            return
        if not 0 < self.min_map_ratio <= 1:
            raise UsageError(
                f"--min-map-ratio is {self.min_map_ratio:g}; needed a share of fp32's mAP, above 0, at most 1."
            )
        if self.data_root is None:
            raise UsageError("--min-map-ratio needs a data set to measure mAP on; give it with --data-root DIR.")
        if self.precisions == ("fp32",):
            raise UsageError("--min-map-ratio compares precisions with fp32; ask for another one with --precision.")

    def refuse_without_verification(self) -> None:
        """Raise `UsageError` where something is to be measured on, which an export without verification leaves out."""
        for option, value in (("--data-root", self.data_root), ("--compare-frames", self.compare_frames)):
            if value is not None:
                raise UsageError(
                    f"{option} is to measure precisions on, which --no-verify leaves out; drop one of them."
                )

    @property
    def frames_to_compare(self) -> int:
        """How many frames precisions are compared with fp32 on, where there are so many."""
        return self.compare_frames or COMPARE_FRAMES

    @property
    def reduced(self) -> tuple[str, ...]:
        """The precisions beside fp32."""
        return self.precisions[1:]


def parse_precisions(names: Sequence[str]) -> tuple[str, ...]:
    """Names in any order, with or without fp32, as `PrecisionSettings` has them; raises `UsageError`."""
    unknown = [name for name in names if name not in PRECISIONS]
    if unknown:
        advice = ""
        if "bf16" in unknown:
            advice = "; bf16 needs no file, a runtime takes the fp32 graphs in it (psarm detect --precision bf16)"
        raise UsageError(f"There is no precision {unknown[0]!r}; needed some of {', '.join(PRECISIONS)}{advice}.")
    return tuple(name for name in PRECISIONS if name == "fp32" or name in names)


FP32_ONLY = PrecisionSettings()
