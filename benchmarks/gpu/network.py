"""Rows of the network's time: images on the device to embeddings there, contenders in turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from psarm.benchmarks.gpu.contenders import Built, Contender, Prepared
from psarm.benchmarks.gpu.journal import Journal, Row
from psarm.benchmarks.gpu.measure import Times, peak_bytes, reset_peak, take_turns
from psarm.benchmarks.gpu.subject import Case, Subject


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one image, as the rewrites do it."""

    detect: int
    reid_person: int

    def of(self, case: Case) -> int:
        """Of a batch with its people."""
        return case.batch * self.detect + len(case.boxes) * self.reid_person


class Bench:
    """What all groups of network rows share; `subject` comes first."""

    subject: Subject

    def __init__(self, journal: Journal, device: torch.device, rounds: int) -> None:
        self.journal, self.device, self.rounds = journal, device, rounds
        self.ceilings: dict[str, float] = {}
        """10^12 multiply-adds a second at best, by precision."""
        self.work = Work(0, 0)
        self.expected: dict[str, Tensor] = {}
        """Features and embeddings of the float32 rewrites on one frame."""

    def run(self, group: str, contenders: Sequence[Contender], batch: int, people: int) -> None:
        """Build, check and time contenders, and write their rows."""
        case = self.subject.case(batch, people)
        ready: dict[str, tuple[Contender, Prepared, Row]] = {}
        for contender in contenders:
            row: Row = {"group": group, "name": contender.name, "precision": contender.precision}
            row.update(batch=batch, people=people)
            if self.journal.left < contender.seconds:
                left = round(self.journal.left)
                self.journal.add({**row, "failure": f"left out: {left} s were left of the budget"})
                continue
            with self.journal.guarded(row):
                before = reset_peak(self.device)
                built: Built = contender.build(self.subject)
                with torch.inference_mode():
                    prepared = built.prepare(case)
                    prepared.network()
                    self._check(prepared, row)
                peak = peak_bytes(self.device)
                row["people_found"] = prepared.people_found
                row["peak_mb"] = None if peak is None else round((peak - before) / 1e6)
                ready[f"{contender.name} {contender.precision}"] = (contender, prepared, row)
        self._time(ready, case)

    def _time(self, ready: dict[str, tuple[Contender, Prepared, Row]], case: Case) -> None:
        functions = {}
        for key, (_, prepared, _) in ready.items():
            functions[f"{key}/network"] = prepared.network
            functions.update({f"{key}/{stage}": function for stage, function in prepared.stages.items()})
        if not functions:
            return
        with torch.inference_mode():
            times = take_turns(functions, self.device, self.rounds)
        for key, (contender, prepared, row) in ready.items():
            total = times[f"{key}/network"]
            row.update(network_row(total, case))
            row["stages_ms"] = {stage: times[f"{key}/{stage}"].median for stage in prepared.stages}
            if ceiling := self.ceilings.get(contender.precision):
                row["share_of_gemm"] = self.work.of(case) / (1e9 * total.median) / ceiling
            self.journal.add(row)

    def _check(self, prepared: Prepared, row: dict[str, Any]) -> None:
        """How far features and embeddings are from float32's, in decibels, where the case has those people first.

        `exact`: that the proposals are the ordinary graph's; where not, an app runs that graph too.
        """
        if prepared.answer is None:
            return
        answer = prepared.answer()
        for name, expected in self.expected.items():
            count = min(len(expected), len(answer[name]))
            row[f"{name}_db"] = decibels(answer[name][:count], expected[:count])
        if "exact" in answer:
            row["exact"] = bool(answer["exact"].all())


def network_row(times: Times, case: Case) -> Row:
    """A row's times."""
    return {
        "ms": times.median,
        "ms_best": times.best,
        "ms_worst": times.worst,
        "samples": times.samples,
        "frames_per_second": 1000 * case.batch / times.median,
    }


def decibels(found: Tensor, expected: Tensor) -> float | None:
    """Power of the expected values over that of the errors; None where they are equal. NaN counts as no signal left."""
    error = (found.double() - expected.double()).square().sum().item()
    signal = expected.double().square().sum().item()
    if error == 0:
        return None
    return 10 * math.log10(signal / error) if math.isfinite(error) and signal > 0 else -100.0
