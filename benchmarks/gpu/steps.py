"""The measurements, in the order of what one wants to know first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from psarm.benchmarks.gpu.accuracy import AccuracySet
from psarm.benchmarks.gpu.contenders import DTYPES, Contender, literal, rewrites
from psarm.benchmarks.gpu.end_to_end import EndToEnd
from psarm.benchmarks.gpu.engines import torch_bundle
from psarm.benchmarks.gpu.journal import Journal, Row, is_right
from psarm.benchmarks.gpu.measure import measure_ceiling
from psarm.benchmarks.gpu.network import Bench
from psarm.benchmarks.gpu.onnxruntime_rows import onnxruntime_rows
from psarm.benchmarks.gpu.profile import top_kernels
from psarm.benchmarks.gpu.stages import count_work, stage_times
from psarm.benchmarks.gpu.subject import Subject
from psarm.errors import UsageError
from psarm.export.torch_graphs import device_precisions
from psarm.machine import usable_cores

MANY_PEOPLE = 100


class Suite:
    """All measurements of one device."""

    def __init__(
        self, journal: Journal, device: torch.device, tiny: bool, rounds: int, folder: Path, checkpoint: Path
    ) -> None:
        """`folder`: for bundles and the drawn data set; `checkpoint`: the trained model."""
        self.journal, self.device, self.tiny, self.rounds = journal, device, tiny, rounds
        self.folder, self.checkpoint = folder, checkpoint
        self.half = "fp16" if device.type == "cuda" else "bf16"  # CPUs' convolutions are very slow in fp16
        # On a CPU nothing is compiled to code, which would take minutes, but what is compiled is traced.
        self.compiler = "eager" if device.type == "cpu" else "inductor"
        self._made = {contender.name: contender for contender in self._candidates()}
        self.bench = Bench(journal, device, rounds)
        self.bench.ceilings = journal.report.get("ceiling", {}).get("tera_macs", {})  # of the process before this one

    def run(self, profile: bool) -> None:
        """Everything that fits; nothing that fails stops the rest.

        Raises `DeviceLostError` where the GPU answers no more: what came before is in the journal.
        """
        self.journal.step("model and frame", 0, self._make_subject, again=True)
        check_device(self.device)
        steps: list[tuple[str, float, Callable[[], None]]] = [
            ("ceilings", 5, self._ceilings),
            ("batch 1", 45, self._batch_one),
            ("end to end", 25, self._end_to_end),
            ("kernels", 40, self._kernels),
            ("end to end, kernels", 20, self._end_to_end_kernels),
            ("compiled parts", 70, self._compiled_parts),
            ("batches", 30, self._batches),
            *([("profile", 15, self._profile)] if profile else []),
            ("stages", 20, self._stages),
            ("accuracy", 45, self._accuracy),
            ("precisions and layouts", 40, self._precisions),
            ("many people", 20, self._many_people),
            ("compiled whole", 130, self._compiled_whole),
            ("ONNX Runtime", 5, self._onnxruntime),
            ("literal in batches", 20, self._literal_batches),
        ]
        for title, seconds, body in steps:
            if title in self.journal.report["done"]:  # by the process before this one
                continue
            self.journal.step(title, seconds * (0.02 if self.tiny else 1), body)
            check_device(self.device)

    def _make_subject(self) -> None:
        self.subject = Subject(self.device, self.tiny)
        self.journal.put("subject", self.subject.facts())
        self.people = self.subject.people
        self.bench.subject = self.subject
        self.bench.work = count_work(self.subject)
        self.journal.put("work_macs", asdict(self.bench.work))
        with torch.inference_mode():
            exact = rewrites("eager", "fp32", recorded=False).build(self.subject)
            answer = exact.prepare(self.subject.case(1, self.people)).answer
        self.bench.expected = {} if answer is None else answer()

    def _ceilings(self) -> None:
        on_gpu = self.device.type == "cuda"
        precisions = {name: dtype for name, dtype in DTYPES.items() if on_gpu or name != "fp16"}
        ceiling = measure_ceiling(self.device, precisions, self.rounds)
        self.bench.ceilings = ceiling.tera_macs
        self.journal.put("ceiling", asdict(ceiling))

    def _batch_one(self) -> None:
        contenders = [
            literal(self.half),
            self._made["rewrites CUDA graphs"],
            self._made["rewrites CUDA graphs, fused convolutions"],
            rewrites("eager", self.half, recorded=False),
            literal(self.half, autocast=False),
            literal("fp32"),
        ]
        self.bench.run("batch 1", contenders, 1, self.people)

    def _kernels(self) -> None:
        self._beside_the_best("kernels", "kernels", "kernels, fused convolutions")

    def _compiled_parts(self) -> None:
        self._beside_the_best("compiled parts", "compiled parts", "compiled parts, fused convolutions")

    def _compiled_whole(self) -> None:
        self._beside_the_best("compiled whole", "compiled whole")

    def _beside_the_best(self, group: str, *names: str) -> None:
        others = [self._made[f"rewrites CUDA graphs, {name}"] for name in names]
        self.bench.run(group, [self._best(), *others], 1, self.people)

    def _batches(self) -> None:
        for batch in (8, 16, 4, 32, 2) if not self.tiny else (2,):
            title = f"batch {batch}"
            body = partial(self.bench.run, title, [self._best(compiled=False)], batch, self.people)
            self.journal.step(title, 0 if self.tiny else 8, body)

    def _literal_batches(self) -> None:
        self.bench.run("literal in batches", [literal(self.half)], 8 if not self.tiny else 2, self.people)

    def _precisions(self) -> None:
        best = self._best()
        contenders = [best, *(rewrites("CUDA graphs", precision) for precision in ("bf16", "fp32"))]
        contenders.append(rewrites("CUDA graphs, channels first", self.half, channels_last=False))
        contenders.append(rewrites("eager", "bf16", recorded=False))
        self.bench.run("precisions and layouts", contenders, 1, self.people)

    def _many_people(self) -> None:
        people = MANY_PEOPLE if not self.tiny else 2 * self.people
        self.bench.run("many people", [self._best(), literal(self.half)], 1, people)

    def _end_to_end(self) -> None:
        run = self._engines()
        run.measure(1, ("graphs", "fused", "eager"), self.subject.model())
        run.measure(2 if self.tiny else 8, [run.fastest()], None)

    def _end_to_end_kernels(self) -> None:
        self._engines().measure(1, ("graphs", "kernels"), None)

    def _engines(self) -> EndToEnd:
        folder = self.folder / "yardstick"
        folder.mkdir(exist_ok=True)
        bundle = torch_bundle(self.subject.model(), folder)
        return EndToEnd(self.journal, self.device, self.rounds, bundle, self.subject.frame)

    def _profile(self) -> None:
        built = self._best().build(self.subject)
        with torch.inference_mode():
            prepared = built.prepare(self.subject.case(1, self.people))
            prepared.network()
        self.journal.put("profile", {"name": self._best().name, "kernels": top_kernels(prepared.network, self.device)})

    def _stages(self) -> None:
        for batch in (1, 8) if not self.tiny else (1,):
            built = self._best().build(self.subject)
            plain = rewrites("eager", self.half, recorded=False).build(self.subject)
            case = self.subject.case(batch, self.people)
            times = stage_times(built, plain, case, self.rounds, self.bench.ceilings.get(self.half))
            self.journal.put(f"stages, batch {batch}", {"name": self._best().name, "parts": times})

    def _accuracy(self) -> None:
        if not self.checkpoint.exists():
            raise UsageError(f"There is no checkpoint {self.checkpoint}; give one with --checkpoint.")
        folder = self.folder / "accuracy"
        folder.mkdir()
        drawn = AccuracySet(folder, self.checkpoint, self.tiny, 1 if self.tiny else min(8, usable_cores()))
        for precision in device_precisions():
            row: Row = {"group": "accuracy", "name": f"engine {precision}", "precision": precision}
            with self.journal.guarded(row):
                self.journal.add({**row, **drawn.row(precision, "graphs")})

    def _onnxruntime(self) -> None:
        onnxruntime_rows(self.journal, self.subject, self.folder, self.rounds)

    def _candidates(self) -> list[Contender]:
        """What may turn out the best."""
        recorded = partial(rewrites, precision=self.half)
        compiled = partial(recorded, compiler=self.compiler)
        return [
            recorded("CUDA graphs"),
            recorded("CUDA graphs, fused convolutions", fused=True),
            recorded("CUDA graphs, kernels", kernels=True),
            recorded("CUDA graphs, kernels, fused convolutions", kernels=True, fused=True),
            compiled("CUDA graphs, compiled parts", seconds=60, compiled="parts"),
            compiled("CUDA graphs, compiled parts, fused convolutions", seconds=60, compiled="parts", fused=True),
            compiled("CUDA graphs, compiled whole", seconds=100, compiled="whole"),
        ]

    def _best(self, compiled: bool = True) -> Contender:
        """The fastest that is right, of one frame; where nothing was measured the plainest recording.

        Without `compiled` none that would be compiled anew, for a minute, for other shapes.
        """
        rows = [row for row in self.journal.rows if row["name"] in self._made and is_right(row)]
        rows = [row for row in rows if compiled or "compiled" not in row["name"]]
        rows = [row for row in rows if row["batch"] == 1 and row["people"] == self.people]
        name = min(rows, key=lambda row: float(row["ms"]))["name"] if rows else "rewrites CUDA graphs"
        return self._made[name]


def check_device(device: torch.device) -> None:
    """Raise `DeviceLostError` where a kernel went wrong so that every later call to the GPU fails.

    Or a recording, so that torch's allocator does.
    """
    if device.type == "cuda":
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError as error:
            raise DeviceLostError(str(error)) from error


class DeviceLostError(Exception):
    """The GPU can only be used by another process."""
