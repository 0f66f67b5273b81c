"""When a batch is run, with a clock of the test's own."""

import threading
import time

import numpy as np
import pytest

from psarm.runtime.stream.queues import FrameQueues, SourceFailure

FRAME = np.zeros((2, 2, 3), np.uint8)


class Clock:
    """Shows `now`; counts how often it was looked at."""

    def __init__(self):
        self.now, self.looks = 0.0, 0

    def __call__(self):
        self.looks += 1
        return self.now


def queues_of(*names, size=8, drop=False):
    clock = Clock()
    return FrameQueues(names, size, drop, clock), clock


def put(queues, name, *numbers):
    for number in numbers:
        assert queues.put(name, number, number / 10, FRAME)


def names(batch):
    return [f"{one.source}{one.index}" for one in batch]


def test_a_full_batch_is_run_at_once_oldest_first():
    queues, clock = queues_of("a", "b")
    for now, name in enumerate("abba"):
        clock.now = now
        put(queues, name, now)
    assert names(queues.take(3, None)) == ["a0", "b1", "b2"]


def test_the_oldest_frame_waits_no_longer_than_asked():
    queues, clock = queues_of("a", "b")
    put(queues, "a", 0)
    clock.now = 0.04
    put(queues, "b", 0)
    taken = []
    taker = threading.Thread(target=lambda: taken.append(queues.take(8, 0.1)))
    taker.start()
    clock.now = 0.0999
    looks = clock.looks
    limit = time.monotonic() + 20
    while clock.looks < looks + 3:  # it looks again, and finds it too early
        assert time.monotonic() < limit
    assert taken == []
    clock.now = 0.1001  # 0.1 after the first, 0.06 after the second
    taker.join(20)
    assert names(taken[0]) == ["a0", "b0"]


def test_no_bound_waits_until_nothing_more_can_come():
    queues, clock = queues_of("a", "b", size=2)
    put(queues, "a", 0, 1)
    clock.now = 1e6
    queues.end("b")
    assert names(queues.take(8, None)) == ["a0", "a1"]  # a is full, b is over
    put(queues, "a", 2)
    queues.end("a")
    assert names(queues.take(8, None)) == ["a2"]
    assert queues.take(8, None) is None


def test_oldest_are_dropped_and_counted_where_asked():
    queues, _ = queues_of("a", "b", size=2, drop=True)
    put(queues, "a", 0, 1, 2, 3, 4)
    put(queues, "b", 0)
    assert queues.dropped == {"a": 3, "b": 0}
    batch = queues.take(3, None)
    assert {f"{one.source}{one.index}": one.dropped for one in batch} == {"a3": 3, "a4": 3, "b0": 0}


def test_a_failure_comes_once_after_the_frames():
    queues, _ = queues_of("a", "b")
    error = OSError("gone")
    put(queues, "a", 0, 5)
    queues.end("a", error)
    put(queues, "b", 0)
    assert names(queues.take(2, None)) == ["a0", "a5"]
    failure = queues.take(2, None)
    assert isinstance(failure, SourceFailure)
    assert (failure.source, failure.last_index, failure.error) == ("a", 5, error)
    queues.end("b")
    assert names(queues.take(2, None)) == ["b0"]
    assert queues.take(2, None) is None


@pytest.mark.parametrize("who", ["reader", "taker"])
def test_closing_lets_go_of_who_waits(who):
    queues, _ = queues_of("a", size=1)
    answers = []
    if who == "reader":
        put(queues, "a", 0)
        waiting = threading.Thread(target=lambda: answers.append(queues.put("a", 1, 0.0, FRAME)))
    else:
        waiting = threading.Thread(target=lambda: answers.append(queues.take(1, None)))
    waiting.start()
    queues.close()
    waiting.join(20)
    assert answers == [False if who == "reader" else None]
    assert not queues.put("a", 2, 0.0, FRAME) and queues.take(1, None) is None
