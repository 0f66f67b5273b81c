"""`PersonSearch.stream` with real threads on the toy bundle: order, batches, bounds, drops, ends."""

import gc
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import toy_bundle as toy

from psarm.errors import StreamError, UsageError
from psarm.runtime import PersonSearch
from psarm.runtime.stages import Network
from psarm.runtime.stream import pipeline
from psarm.runtime.stream.lanes import default_requests, share_threads

RED = (255, 0, 0)
FRAMES = [toy.draw_scene({number % 8: RED}, 96 + number % 3, 160) for number in range(24)]
NEVER = 20.0
"""Seconds after which a test that waits for something has failed."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy.psarm")


@pytest.fixture(scope="module")
def opened(bundle):
    with PersonSearch(bundle, "onnxruntime", threads=2) as engine:
        yield engine


@pytest.fixture
def engine(opened):
    yield opened
    assert threads_left() == []


def threads_left():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("psarm-")]


def wait_until(condition):
    limit = time.monotonic() + NEVER
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.001)


def backend_calls(engine, monkeypatch, before=lambda call: None):
    """Record the batch sizes that reach the detect graph; `before(call number)` runs first."""
    sizes, run = [], engine._backend._run

    def spy(graph, feeds):
        if graph == "detect":
            before(len(sizes))
            sizes.append(len(feeds["images"]))
        return run(graph, feeds)

    monkeypatch.setattr(engine._backend, "_run", spy)
    return sizes


@pytest.mark.parametrize(("name", "requests"), [("onnxruntime", 1), ("onnxruntime", None), ("openvino", 2)])
@pytest.mark.parametrize("batch", [1, 5])
def test_results_are_those_of_detect_in_order(bundle, name, requests, batch):
    with PersonSearch(bundle, name, threads=2) as engine:
        results = list(engine.stream(FRAMES, batch, requests=requests, max_wait=None))
        assert [result.index for result in results] == list(range(len(FRAMES)))
        for result, frame in zip(results, FRAMES, strict=True):
            alone = engine.detect(frame)
            assert result.frame is frame and result.source == "frames" and result.dropped == 0
            assert len(alone) == 1
            np.testing.assert_allclose(result.detections.boxes, alone.boxes, atol=1e-3)
            np.testing.assert_allclose(result.detections.embeddings, alone.embeddings, atol=1e-4)
            assert all(seconds > 0 for seconds in result.seconds.values()) and len(result.seconds) == 5
    assert threads_left() == []


def test_two_batches_run_at_the_same_time(bundle, monkeypatch):
    """Each of two requests waits in the network for the other: one alone would wait in vain."""
    together = threading.Barrier(2, timeout=NEVER)
    from psarm.runtime.backends.onnxruntime import OnnxRuntimeBackend

    run = OnnxRuntimeBackend._run

    def meet(self, graph, feeds):
        if graph == "detect":
            together.wait()
        return run(self, graph, feeds)

    with PersonSearch(bundle, "onnxruntime", threads=2) as engine:
        monkeypatch.setattr(OnnxRuntimeBackend, "_run", meet)
        assert len(list(engine.stream(FRAMES[:6]))) == 6


def test_a_batch_that_overtakes_another_comes_after_it(bundle, monkeypatch):
    """The first batch stays in its lane until the second has left the other."""
    second_is_done = threading.Event()
    detect = Network.detect

    def hold(self, batch, thresholds, timer):
        first = not calls
        calls.append(1)
        if first:
            assert second_is_done.wait(NEVER)
        found = detect(self, batch, thresholds, timer)
        second_is_done.set()
        return found

    calls = []
    with PersonSearch(bundle, "onnxruntime", threads=2) as engine:
        monkeypatch.setattr(Network, "detect", hold)
        results = list(engine.stream(FRAMES[:6], requests=2))
    assert [result.index for result in results] == list(range(6))
    assert all(result.frame is frame for result, frame in zip(results, FRAMES, strict=False))


def test_stages_work_at_the_same_time(engine, monkeypatch):
    """While the network works on the first frame, the second is prepared and others are read."""
    prepared, read = [], []
    make_batch = engine._backend.make_batch
    monkeypatch.setattr(engine._backend, "make_batch", lambda *inputs: (prepared.append(1), make_batch(*inputs))[1])

    def frames():
        for frame in FRAMES[:8]:
            read.append(1)
            yield frame

    def first_waits(call):
        if call == 0:
            wait_until(lambda: len(prepared) >= 2 and len(read) >= 4)

    backend_calls(engine, monkeypatch, first_waits)
    assert len(list(engine.stream(frames(), requests=1))) == 8


def test_two_sources_share_a_batch(engine, monkeypatch):
    sizes = backend_calls(engine, monkeypatch)
    sources = {"left": [FRAMES[0]] * 3, "right": [FRAMES[5]] * 3}
    results = list(engine.stream(sources, batch=6, requests=1, max_wait=None))
    assert sizes == [6]
    for name, cell in (("left", 0), ("right", 5)):
        of_source = [result for result in results if result.source == name]
        assert [result.index for result in of_source] == [0, 1, 2]
        for result in of_source:
            expected = np.array(toy.cell_box(cell, *result.frame.shape[:2])) + toy.SHIFT
            np.testing.assert_allclose(result.detections.boxes, [expected], atol=3)


def test_the_last_batch_is_smaller(engine, monkeypatch):
    sizes = backend_calls(engine, monkeypatch)
    results = list(engine.stream({"a": FRAMES[:7], "b": FRAMES[:4]}, batch=4, requests=1, max_wait=None))
    assert sizes == [4, 4, 3] and len(results) == 11


def test_a_quiet_source_does_not_hold_up_its_frames(engine):
    """Two frames of a batch of eight, and then nothing: they come out before the third is read."""
    taken = threading.Event()

    def camera():
        yield from FRAMES[:2]
        assert taken.wait(NEVER)
        yield FRAMES[2]

    with engine.stream(camera(), batch=8, max_wait=0.01) as results:
        assert [next(results).index, next(results).index] == [0, 1]
        taken.set()
        assert [result.index for result in results] == [2]


@pytest.mark.parametrize(("batch", "buffer"), [(1, None), (3, 4)])
def test_a_slow_consumer_holds_the_source_back(engine, batch, buffer):
    produced = given = 0
    ahead = batch * 4 + (buffer or 2 * batch) + 1  # as docs/streaming.md says
    most = 0

    def frames():
        nonlocal produced, most
        for number in range(60):
            produced += 1
            most = max(most, produced - given)
            yield FRAMES[number % 24]

    results = engine.stream(frames(), batch, buffer=buffer, max_wait=None, requests=1)
    given = 1
    first = next(results)
    wait_until(lambda: produced == ahead)  # the consumer sleeps, and the source goes so far …
    indices = [first.index]
    while len(indices) < 60:
        given += 1
        indices.append(next(results).index)
    assert most <= ahead  # … and never farther
    assert indices == list(range(60)) and list(results) == []


def test_drop_oldest_keeps_the_newest_and_counts(engine, monkeypatch):
    ended, blocked = threading.Event(), threading.Event()

    def camera():
        yield from FRAMES[:1]
        assert blocked.wait(NEVER)  # the network holds the first frame, and the source is not held up
        yield from FRAMES[1:]
        ended.set()

    def hold(call):
        blocked.set()
        assert ended.wait(NEVER)

    backend_calls(engine, monkeypatch, hold)
    sources = {"camera": camera(), "still": FRAMES[:2]}
    with engine.stream(sources, drop="oldest", buffer=2, requests=1) as stream:
        results = list(stream)
        dropped = stream.dropped
    camera_results = [result for result in results if result.source == "camera"]
    assert dropped["still"] == 0 and dropped["camera"] == 24 - len(camera_results) >= 10
    assert [r.index for r in camera_results][-2:] == [22, 23]
    assert all(result.dropped == result.index - place for place, result in enumerate(camera_results))
    assert camera_results[-1].dropped == dropped["camera"]


def test_a_source_that_fails(engine):
    def camera():
        yield from FRAMES[:5]
        raise OSError("cable pulled\nout")

    indices = []
    stream = engine.stream({"door": camera()}, batch=2)
    with pytest.raises(StreamError) as caught:
        indices.extend(result.index for result in stream)
    assert str(caught.value) == "The source door failed after its frame 4: OSError: cable pulled."
    assert caught.value.source == "door" and isinstance(caught.value.__cause__, OSError)
    with pytest.raises(StopIteration):
        next(stream)


def test_other_sources_go_on_where_the_caller_takes_the_error(engine):
    def nothing():
        raise OSError("no such camera")
        yield

    errors = []
    sources = {"door": nothing(), "hall": FRAMES[:6], "yard": iter([FRAMES[0], FRAMES[0].astype(np.float32)])}
    results = list(engine.stream(sources, on_error=errors.append))
    assert [result.index for result in results if result.source == "hall"] == list(range(6))
    assert [result.index for result in results if result.source == "yard"] == [0]
    door, yard = sorted(errors, key=lambda error: str(error.source))
    assert str(door) == "The source door failed before its first frame: OSError: no such camera."
    assert str(yard).startswith("The source yard failed after its frame 0: A frame must be uint8 ")


def test_a_backend_that_dies_names_the_last_good_frame(engine, monkeypatch):
    def die(call):
        if call == 3:
            raise RuntimeError("device lost")

    backend_calls(engine, monkeypatch, die)
    indices = []
    with pytest.raises(StreamError) as caught:
        for result in engine.stream({"hall": FRAMES}, batch=2, requests=1, max_wait=None):
            indices.append(result.index)
    assert indices == list(range(6))
    assert str(caught.value) == (
        "The stream stopped at frame 6 of hall: ONNX Runtime failed in the detect graph on CPU, 2 threads: "
        "device lost; the last good is frame 5 of hall."
    )
    assert caught.value.last_good == {"hall": 5} and caught.value.source is None
    assert threads_left() == []


def test_a_lane_that_dies_names_the_last_good_frame_of_every_source(bundle, monkeypatch):
    """Of the third batch; what the other lane made of later ones is not given out."""
    prepared, prepare, detect = [], Network.prepare, Network.detect

    def note(self, frames, timer):
        prepared.append(prepare(self, frames, timer))
        return prepared[-1]

    def die(self, batch, thresholds, timer):
        if any(batch is third for third in prepared[2:3]):
            raise MemoryError("out of memory")
        return detect(self, batch, thresholds, timer)

    last_good = {}
    with PersonSearch(bundle, "onnxruntime", threads=2) as engine:
        monkeypatch.setattr(Network, "prepare", note)
        monkeypatch.setattr(Network, "detect", die)
        sources = {"hall": FRAMES, "door": FRAMES}
        with pytest.raises(StreamError, match=r"^The stream stopped at frame .*: MemoryError: out of memory") as caught:
            for result in engine.stream(sources, batch=3, requests=2, max_wait=None):
                last_good[result.source] = result.index
    assert sum(index + 1 for index in last_good.values()) == 6
    assert caught.value.last_good == last_good
    assert all(f"frame {index} of {name}" in str(caught.value) for name, index in last_good.items())
    assert threads_left() == []


def test_a_backend_that_never_runs(engine, monkeypatch):
    def die(call):
        raise RuntimeError("device lost")

    backend_calls(engine, monkeypatch, die)
    with pytest.raises(StreamError, match=r"frame 0 of frames: .* device lost; none was done before\."):
        next(engine.stream(FRAMES, requests=1))


@pytest.mark.parametrize("how", ["break", "close", "with", "raise", "garbage"])
def test_leaving_early_ends_everything(engine, how):
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield FRAMES[0]
        finally:
            closed.set()

    stream = engine.stream({"a": endless(), "b": FRAMES}, batch=2)
    if how == "break":
        for _ in stream:
            break
    elif how == "close":
        next(stream)
        stream.close()
        assert list(stream) == []
    elif how == "with":
        with stream:
            next(stream)
    elif how == "raise":
        with pytest.raises(ZeroDivisionError), stream:
            _ = 1 / next(stream).index
    stream = None  # which ends the streams that nothing else has ended
    assert threads_left() == [] and closed.is_set()


@pytest.fixture
def closed_lanes(monkeypatch):
    lanes, close = [], Network.close
    monkeypatch.setattr(Network, "close", lambda lane: (lanes.append(lane), close(lane)))
    return lanes


@pytest.mark.parametrize("where", ["reader", "network"])
def test_collected_as_garbage_in_one_of_its_own_threads(engine, monkeypatch, closed_lanes, where):
    """What that thread would raise, joining itself, fails the test as an unraisable exception."""
    forgotten, collected = threading.Event(), threading.Event()

    def collect():
        if not collected.is_set() and forgotten.wait(NEVER):
            gc.collect()
            collected.set()

    def camera():
        yield FRAMES[0]
        if where == "reader":
            collect()
        while True:
            yield FRAMES[1]

    detect = Network.detect
    monkeypatch.setattr(
        Network, "detect", lambda *inputs: (collect() if where == "network" else None, detect(*inputs))[1]
    )
    stream = engine.stream(camera(), requests=2)
    stream.itself = stream
    gc.disable()
    try:
        del stream
        forgotten.set()
        wait_until(collected.is_set)
        wait_until(lambda: threads_left() == [])
    finally:
        gc.enable()
    assert len(closed_lanes) == 2


@pytest.mark.parametrize("step", ["_dispatcher", "_network"])
def test_interrupted_while_it_closes(engine, monkeypatch, closed_lanes, step):
    stream = engine.stream(FRAMES, requests=2)
    next(stream)
    waiter, name = getattr(stream._pipeline, step), "join" if step == "_dispatcher" else "shutdown"

    def interrupt(**options):
        monkeypatch.delattr(waiter, name)
        raise KeyboardInterrupt

    monkeypatch.setattr(waiter, name, interrupt, raising=False)
    with pytest.raises(KeyboardInterrupt):
        stream.close()
    assert len(closed_lanes) == 2 and list(stream) == []
    stream.close()
    assert threads_left() == []


def test_a_source_that_hangs_is_left_behind_and_told(engine, monkeypatch):
    monkeypatch.setattr(pipeline, "SECONDS_TO_STOP", 0.05)
    go_on = threading.Event()

    def camera():
        yield FRAMES[0]
        go_on.wait(NEVER)

    stream = engine.stream({"door": camera()})
    next(stream)
    with pytest.warns(ResourceWarning, match="source door did not answer"):
        stream.close()
    assert threads_left() == ["psarm-read door"]
    go_on.set()
    wait_until(lambda: not threads_left())


def test_the_engine_can_be_used_meanwhile(engine):
    """Also where the stream runs on the engine's own backend."""
    for result in engine.stream(FRAMES, batch=2, requests=1):
        people = engine.detect_around(result.frame, result.detections.boxes[0])
        query = engine.embed(result.frame, result.detections.boxes[:1])
        np.testing.assert_allclose(people.embeddings[0], query[0], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "device", "threads", "requests"),
    [
        *(("openvino", "CPU", threads, requests) for threads, requests in [(1, 1), (2, 2), (4, 4), (5, 4), (64, 4)]),
        ("onnxruntime", "CUDA", 8, 1),
        ("torch", "CPU", 8, 1),
    ],
)
def test_requests_that_suit_a_backend(name, device, threads, requests):
    network = SimpleNamespace(backend=SimpleNamespace(name=name, device=f"{device}, as it says"))
    assert default_requests(network, threads) == requests


@pytest.mark.parametrize(
    ("threads", "requests", "shares"),
    [(5, 4, [2, 1, 1, 1]), (7, 3, [3, 2, 2]), (4, 2, [2, 2]), (1, 3, [1, 1, 1])],  # the last on a GPU
)
def test_every_thread_is_in_a_lane(threads, requests, shares):
    assert share_threads(threads, requests) == shares


def test_a_backend_that_cannot_run_side_by_side(engine, monkeypatch):
    monkeypatch.setattr(engine._backend, "name", "torch")
    with pytest.raises(UsageError, match="requests is 2, but ONNX Runtime runs one batch at a time"):
        engine.stream(FRAMES, requests=2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch": 0}, "batch is 0; needed 1 or more"),
        ({"buffer": 0}, "buffer is 0"),
        ({"every": -1}, "every is -1"),
        ({"requests": 3}, "requests is 3, but there are 2 CPU threads"),
        ({"max_wait": -1}, "max_wait is -1; needed seconds"),
        ({"max_wait": float("nan")}, "max_wait is nan"),
        ({"drop": "newest"}, "drop is 'newest'; needed \"oldest\""),
    ],
)
def test_options_that_cannot_work(engine, options, says):
    with pytest.raises(UsageError, match=says):
        engine.stream(FRAMES, **options)
