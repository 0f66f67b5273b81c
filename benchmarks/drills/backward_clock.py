"""Run psarm while the computer's clock is set back.

    python -m psarm.benchmarks.drills.backward_clock AFTER BACK WORDS...

After AFTER seconds the clock that Python's `time` shows is BACK seconds behind. The real one is left alone: it is
everybody's.
"""

from __future__ import annotations

import runpy
import sys
import time


def set_back(after: float, back: float) -> None:
    """From `after` seconds on, `time.time` and `time.time_ns` are `back` seconds behind; before psarm is imported."""
    real_time, real_time_ns, leap = time.time, time.time_ns, time.monotonic() + after

    def behind() -> float:
        return real_time() - back * (time.monotonic() >= leap)

    def behind_ns() -> int:
        return real_time_ns() - round(back * 1e9) * (time.monotonic() >= leap)

    time.time, time.time_ns = behind, behind_ns


if __name__ == "__main__":
    set_back(float(sys.argv[1]), float(sys.argv[2]))
    sys.argv = ["psarm", *sys.argv[3:]]
    runpy.run_module("psarm", run_name="__main__")
