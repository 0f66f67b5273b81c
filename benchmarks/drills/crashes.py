"""Drills on processes: killed while they write, reading while one writes."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from psarm.benchmarks.drills.accounts import check_account, check_same, check_tables, read_contents
from psarm.benchmarks.drills.clips import write_clip
from psarm.benchmarks.drills.commands import TICK, Process
from psarm.benchmarks.drills.files import index_words
from psarm.benchmarks.drills.outcome import Outcome, Setting
from psarm.benchmarks.drills.watching import frames_done, writes

READERS = 2
READER = ("-m", "psarm.benchmarks.drills.reader")
LONGEST_DELAY = 11.0
"""Seconds before a kill: commits come every five, so that about every second run gets to one."""
SECONDS_A_KILL = 12.0
"""Of indexing: so much that something is left at the last kill, also where it goes faster than was measured."""
READING_SECONDS = 30.0


def killed(setting: Setting) -> Outcome:
    """`kill -9` at random moments, then a run to the end: as if nothing had happened."""
    outcome, where, reference = Outcome(), setting.work / "killed.gallery", setting.work / "whole.gallery"
    clip = write_clip(setting.frames, setting.length_of(setting.kills * SECONDS_A_KILL), setting.work / "clip.mkv")
    words = index_words(setting, [clip], where)
    seconds = _index(index_words(setting, [clip], reference), reference, setting.work / "whole.log")
    generator, done, runs = np.random.default_rng(setting.seed), 0, []
    for number in range(setting.kills):
        with Process(words, setting.work / f"kill{number}.log") as process:
            process.wait_until(writes(process, where), "it writes")
            delay = float(generator.uniform(0, LONGEST_DELAY))
            deadline = time.monotonic() + delay
            while process.running and time.monotonic() < deadline:
                time.sleep(TICK / 5)
            outcome.check("it was writing when it was killed", process.running)
        after = frames_done(where).get(clip.name, 0)
        outcome.check("no committed frame is lost", after >= done)
        done = after
        runs.append({"after_seconds": round(delay, 2), "frames_committed": done})
    outcome.check("there was something to lose", done > 0)
    outcome.figures |= {"uninterrupted_seconds": round(seconds, 1), "kills": runs}
    _index(words, where, setting.work / "resumed.log")
    contents = read_contents(where)
    check_account(outcome, contents, finished=True)
    check_same(outcome, contents, read_contents(reference))
    return outcome


def _index(words: list[str], where: Path, log: Path) -> float:
    """Index to the end; seconds since the gallery's lock was taken."""
    with Process(words, log) as process:
        process.wait_until(writes(process, where), "it writes")
        begin = time.monotonic()
        process.wait()
        return time.monotonic() - begin


def readers(setting: Setting) -> Outcome:
    """Two processes read, count and search again and again while one writes."""
    outcome, where, stop = Outcome(), setting.work / "read.gallery", setting.work / "stop"
    clip = write_clip(setting.frames, setting.length_of(READING_SECONDS), setting.work / "clip.mkv")
    logs = [setting.work / f"reader{number}.log" for number in range(READERS)]
    with ExitStack() as processes:
        writer = processes.enter_context(Process(index_words(setting, [clip], where), setting.work / "writer.log"))
        writer.wait_until(writes(writer, where), "it writes")
        reading = [processes.enter_context(Process([str(where), str(stop)], log, READER)) for log in logs]
        outcome.check("the writer ends well", writer.wait() == 0)
        stop.touch()
        codes = [process.wait() for process in reading]
        outcome.check("no reader fails", codes == [0] * READERS, errors=[one.error[-300:] for one in reading])
        found = [process.json() for process in reading] if not any(codes) else []
    contents = read_contents(where)
    check_account(outcome, contents, finished=True)
    check_tables(outcome, contents)
    for report in found:
        outcome.check("what is there never becomes less", report["falls"] == 0)
        outcome.check("nobody is there twice", report["duplicates"] == 0)
        outcome.check("a reader sees it grow", report["different_counts"] > 2)
        outcome.check("a reader sees all in the end", report["people"] == len(contents.people))
    outcome.figures["readers"] = found
    return outcome
