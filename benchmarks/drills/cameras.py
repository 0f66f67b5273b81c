"""Drills on cameras: one dies and comes back, one's computer has its clock set back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psarm.benchmarks.drills.accounts import Contents, check_tables, read_contents
from psarm.benchmarks.drills.broadcast import Broadcast
from psarm.benchmarks.drills.commands import Process
from psarm.benchmarks.drills.files import index_words
from psarm.benchmarks.drills.outcome import Outcome, Setting
from psarm.benchmarks.drills.watching import beyond, frames_done

DYING, STEADY = "dying.ts", "steady.ts"
SETTLE = 12.0
"""Seconds in which at least one commit is made."""
MARGIN = 3.0
"""Seconds of frames that are under way."""
SET_BACK = 3600.0
BACKWARD = ("-m", "psarm.benchmarks.drills.backward_clock")
SET_BACK_AFTER = 20.0
"""Seconds after the start of the process."""
ENDINGS = (0, 130)
"""Exit codes after Ctrl-C."""


def camera_away(setting: Setting) -> Outcome:
    """One of two cameras is away for `setting.outage` seconds."""
    outcome, where = Outcome(), setting.work / "cameras.gallery"
    with Broadcast(DYING, setting.frames) as dying, Broadcast(STEADY, setting.frames) as steady:
        words = index_words(setting, [dying.address, steady.address], where)
        with Process(words, setting.work / "cameras.log") as process:
            process.wait_until(beyond(where, 0, sources=2), "frames of both cameras")
            dying.die()
            gone = time.time()
            time.sleep(setting.outage)
            dying.live()
            back = time.time()
            before = frames_done(where)[DYING]
            process.wait_until(lambda: frames_done(where)[DYING] > before, "frames of the camera that came back")
            returned = time.time() - back
            time.sleep(SETTLE)
            code = process.interrupt()
        report = reports(process)
        outcome.figures["sent"] = {DYING: dying.sent, STEADY: steady.sent}
    contents = read_contents(where)
    check_live(outcome, contents, report, code)
    during = {
        name: int(((times > gone + MARGIN) & (times < back)).sum())
        for name, times in ((name, frame_seconds(contents, name)) for name in (DYING, STEADY))
    }
    outcome.check("nothing comes of a camera that is away", during[DYING] == 0)
    outcome.check("the other camera goes on meanwhile", during[STEADY] > setting.outage / 2, frames_meanwhile=during)
    outcome.check("the camera comes back", bool((frame_seconds(contents, DYING) > back).any()))
    outcome.check("the report says so", report[DYING]["gone"] >= 1 and report[STEADY]["gone"] == 0)
    outcome.figures |= {"seconds_away": setting.outage, "seconds_to_the_first_commit": round(returned, 1)}
    return outcome


def backward_wall_clock(setting: Setting) -> Outcome:
    """The clock of the computer that indexes a camera is set back by an hour."""
    outcome, where = Outcome(), setting.work / "clock.gallery"
    with Broadcast(STEADY, setting.frames) as camera:
        words = [str(SET_BACK_AFTER), str(SET_BACK), *index_words(setting, [camera.address], where)]
        with Process(words, setting.work / "clock.log", BACKWARD) as process:
            process.wait_until(beyond(where, 0), "frames")
            time.sleep(max(0.0, process.started + SET_BACK_AFTER - time.monotonic()))
            at_leap = frames_done(where)[STEADY]
            time.sleep(2 * SETTLE)
            code = process.interrupt()
        report = reports(process)
    contents = read_contents(where)
    check_live(outcome, contents, report, code)
    done = contents.indexed(STEADY)
    outcome.check("frames go on after the clock was set back", done > at_leap + SETTLE, frames=done, at_leap=at_leap)
    outcome.check("ids rise", bool((np.diff(frame_seconds(contents, STEADY)) > 0).all()))
    outcome.check("it is said", any("clock" in note for note in report[STEADY]["notes"]))
    return outcome


def reports(process: Process) -> dict[str, Any]:
    """Report of every source, by the file name."""
    return {Path(entry["source"]).name: entry for entry in process.json()["sources"]}


def check_live(outcome: Outcome, contents: Contents, report: dict[str, Any], code: int) -> None:
    """What was reported at the end is what is there."""
    outcome.check("Ctrl-C ends it", code in ENDINGS, exit_code=code)
    for name, info in contents.sources.items():
        progress = info.progress
        outcome.check("as many frames as reported", progress.frames == report[name]["indexed"])
        outcome.check("every skipped frame has a reason", sum(progress.reasons.values()) == progress.skipped)
        skipped, notes = dict(progress.reasons), report[name]["notes"]
        outcome.figures[name] = {"indexed": progress.frames, "skipped": skipped, "notes": notes}
    check_tables(outcome, contents)


def frame_seconds(contents: Contents, name: str) -> NDArray[np.float64]:
    """[f] of the frames with people, in order: seconds since 1970, as their ids say."""
    source = contents.sources[name].progress.source
    people = contents.people
    frames = people["frame"].to_numpy()[people["source"].to_numpy() == source]
    return np.unique(frames) / 1e6
