from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from toy_bundle import draw_scene, make_toy_bundle

from psarm.benchmarks.timing import WARM_UP_FRAMES, Case, Timing, spread, time_cases, time_engines
from psarm.benchmarks.workloads import Workload
from psarm.errors import ImageError, PsarmError
from psarm.runtime import PersonSearch
from psarm.runtime.detections import Detections
from psarm.runtime.timing import STAGES


class FakeClock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class FakeEngine:
    """Writes its name into a shared log, and takes the given seconds one call after the other."""

    def __init__(self, name, log, clock, seconds, stages=True, breaks_at=None):
        self.name, self.log, self.clock, self.seconds = name, log, clock, seconds
        self.stages, self.breaks_at = stages, breaks_at
        self.calls = 0
        self.last_timings = {}

    def detect(self, frame):
        self.log.append((self.name, frame.shape[:2]))
        if self.calls == self.breaks_at:
            raise PsarmError(f"{self.name} broke.")
        taken = self.seconds[self.calls]
        self.calls += 1
        self.clock.now += taken
        if self.stages:
            self.last_timings = {stage: taken * share for stage, share in zip(STAGES, (1, 5, 1, 2, 1), strict=True)}
        return Detections(*(np.zeros(shape, np.float32) for shape in ((3, 4), (3,), (3, 2))))


@pytest.fixture
def paths(tmp_path):
    """Four frames that differ in size."""
    import cv2

    found = []
    for index in range(4):
        found.append(tmp_path / f"{index}.png")
        cv2.imwrite(str(found[-1]), np.zeros((10 + index, 20, 3), np.uint8))
    return found


def run(paths, *engines, clock):
    return time_engines(engines, paths, clock=clock, settle=0)


def test_engines_take_turns_on_every_frame_after_a_warm_up(paths):
    log, clock = [], FakeClock()
    engines = [FakeEngine(name, log, clock, [1.0] * 9) for name in "AB"]
    run(paths, *engines, clock=clock)
    heights = [10, 11, 10, 11, 12, 13]  # the first two once more, before
    assert len(heights) == WARM_UP_FRAMES + len(paths)
    assert log == [(name, (height, 20)) for height in heights for name in "AB"]


def test_medians_leave_the_warm_up_out(paths):
    clock = FakeClock()
    engine = FakeEngine("A", [], clock, [9, 9, 0.1, 0.4, 0.2, 0.3])
    [timing] = run(paths, engine, clock=clock)
    assert timing.total_ms == pytest.approx(250)
    assert (timing.p50_ms, timing.p95_ms, timing.p99_ms) == pytest.approx((250, 385, 397))
    assert timing.network_ms == pytest.approx(1250 + 500)
    assert timing.fps == pytest.approx(4)
    assert timing.frames == 4 and timing.people == 3
    assert timing.stages_ms == pytest.approx(dict(zip(STAGES, [250, 1250, 250, 500, 250], strict=True)))
    assert timing.to_dict()["fps"] == pytest.approx(4)


class HeldUpEngine(FakeEngine):
    """Held up in another stage in each of its calls."""

    def detect(self, frame):
        found = super().detect(frame)
        held = STAGES[self.calls % len(STAGES)]
        self.last_timings = dict.fromkeys(STAGES, 0.01) | {held: self.seconds[self.calls - 1] - 0.04}
        return found


def test_times_that_another_run_would_not_give_are_unsettled(paths):
    clock = FakeClock()
    [held] = run(paths, HeldUpEngine("A", [], clock, [1.0] * 6), clock=clock)
    assert (held.total_ms, sum(held.stages_ms.values())) == pytest.approx((1000, 50))
    assert held.unsettled == "the stages add up to 5% of the time" == held.to_dict()["unsettled"]
    slow = [FakeEngine("A", [], clock, [1, 1, 1, 1, 1, last], stages=False) for last in (2, 3)]
    assert [run(paths, engine, clock=clock)[0].unsettled for engine in slow] == [
        None,
        "p95 of a call is 2.7 times its median",
    ]


def test_stages_that_add_up_are_settled():
    def unsettled(share):
        return Timing(dict.fromkeys(STAGES, 20.0 * share), 100, 100, 200, 300, 3, 30).unsettled

    assert [unsettled(share) for share in (0.75, 1, 1.25)] == [None] * 3
    assert unsettled(1.26) == "the stages add up to 126% of the time" and unsettled(0.7) is not None


def test_an_engine_that_does_not_tell_stages_apart_has_a_total_only(paths):
    clock = FakeClock()
    [timing] = run(paths, FakeEngine("A", [], clock, [0.5] * 6, stages=False), clock=clock)
    assert timing.stages_ms is None
    assert timing.total_ms == pytest.approx(500)


@pytest.mark.parametrize("breaks_at", [0, 3])
def test_an_engine_that_fails_drops_out_and_the_others_go_on(paths, breaks_at):
    log, clock = [], FakeClock()
    good = FakeEngine("good", log, clock, [1.0] * 6)
    bad = FakeEngine("bad", log, clock, [1.0] * 6, breaks_at=breaks_at)
    error, timing = run(paths, bad, good, clock=clock)
    assert str(error) == "bad broke."
    assert timing.frames == 4
    assert [name for name, _ in log].count("bad") == breaks_at + 1


def test_a_frame_that_cannot_be_read_is_not_an_engines_failure(paths, tmp_path):
    with pytest.raises(ImageError, match=r"missing\.png"):
        run([*paths, tmp_path / "missing.png"], FakeEngine("A", [], FakeClock(), [1.0] * 9), clock=FakeClock())


def test_spread_covers_the_whole_list():
    items = [Path(str(number)) for number in range(10)]
    assert spread(items, 3) == [items[0], items[4], items[9]]
    assert spread(items, 1) == [items[0]]
    assert spread(items, 10) == spread(items, 99) == items


def test_a_batch_takes_its_frames_in_a_row_and_shares_its_time(paths):
    log, clock = [], FakeClock()
    case = Case(BatchEngine("A", log, clock, [1.0] * 9), Workload(3))
    assert (case.calls(30), case.calls(12), case.calls(2)) == (10, 5, 2)
    [timing] = time_cases([case], paths, clock=clock, settle=0)
    heights = [[size[0] for size in sizes] for _, sizes in log]
    warm_up = [[10, 11, 12], [11, 12, 13]]
    assert heights == [*warm_up, [10, 11, 12], [13, 10, 11], [12, 13, 10], [11, 12, 13]]
    assert (timing.total_ms, timing.p50_ms, timing.frames) == (pytest.approx(1000 / 3), 1000, 4)
    assert sum(timing.stages_ms.values()) == pytest.approx(10000 / 3)


@pytest.mark.parametrize("batch", [1, 2, 4, 7, 32])
def test_every_batch_is_timed_on_all_frames(monkeypatch, batch):
    reads, log, clock = [], [], FakeClock()
    heights = [10 + number for number in range(30)]

    def read(path):
        reads.append(path)
        return np.zeros((int(path.stem), 20, 3), np.uint8)

    monkeypatch.setattr("psarm.benchmarks.timing.read_image", read)
    kind = FakeEngine if batch == 1 else BatchEngine
    cases = [Case(kind(name, log, clock, [1.0] * 40), Workload(batch)) for name in "AB"]
    one, other = time_cases(cases, [Path(f"{height}.png") for height in heights], clock=clock, settle=0)
    assert one.frames == other.frames == 30
    calls = [[sizes] if batch == 1 else sizes for name, sizes in log if name == "A"]
    assert {height for call in calls[WARM_UP_FRAMES:] for height, _ in call} == set(heights)
    assert len(reads) <= len(calls) * batch  # what both are given is read once


class BatchEngine(FakeEngine):
    def detect(self, frames):
        people = super().detect(np.zeros((1, 1, 3), np.uint8))
        self.log[-1] = (self.name, [frame.shape[:2] for frame in frames])
        return [people] * len(frames)


def test_frames_are_brought_to_a_size_and_repeated():
    images = [np.full((4, 6, 3), value, np.uint8) for value in (10, 20)]
    frames = Workload(3, size=(3, 2)).frames(images)
    assert [(frame.shape, frame.max()) for frame in frames] == [((2, 3, 3), value) for value in (10, 20, 10)]


@pytest.mark.parametrize("fewest", [2, 3])
def test_every_frame_must_have_the_people_asked_for(monkeypatch, paths, fewest):
    found = [Detections(*(np.zeros(shape, np.float32) for shape in ((n, 4), (n,), (n, 2)))) for n in (4, fewest)]
    monkeypatch.setattr("psarm.benchmarks.timing.detect", lambda *_: found)
    monkeypatch.setattr(Workload, "imposed_on", lambda *_: nullcontext())
    engine = FakeEngine("A", [], FakeClock(), [], stages=False)
    [result] = time_cases([Case(engine, Workload(2, people=3))], paths, clock=FakeClock(), settle=0)
    if fewest == 3:
        assert result.people == 3.5
    else:
        assert str(result) == "3 people were asked for; the detection stage proposes 2 in one of the frames."


@pytest.mark.parametrize("people", [0, 1, 5])
def test_as_many_people_as_wanted_are_embedded(tmp_path, people):
    with PersonSearch(make_toy_bundle(tmp_path / "toy.psarm"), "onnxruntime", threads=1) as engine:
        frame = draw_scene({0: (200, 40, 40)})
        assert len(engine.detect(frame)) == 1
        with Workload(people=people).imposed_on(engine):
            assert len(engine.detect(frame)) == people
        assert len(engine.detect(frame)) == 1
