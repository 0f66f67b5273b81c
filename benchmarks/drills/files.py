"""Drills on video files: damage, a clock that goes backwards, eight at once."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psarm.benchmarks.drills.accounts import check_account, read_contents
from psarm.benchmarks.drills.clips import RATE, TICKS, damage_middle, join_with_backward_clock, write_clip
from psarm.benchmarks.drills.commands import run_command
from psarm.benchmarks.drills.outcome import Outcome, Setting

SOURCES = 8
DAMAGED = ("damaged.mp4", "damaged.mkv", "short.mkv")
SHOWN_FIRST = 2000
"""Seconds on the clock of the first part of a file whose clock goes back to 0."""


def index_words(setting: Setting, videos: Sequence[Path | str], where: Path) -> list[str]:
    """`psarm index` on every frame of `videos`, without `psarm`."""
    words = ["index", str(setting.bundle), *map(str, videos), "--gallery", str(where), "--every", "1", "--json"]
    return [*words, *setting.options]


def index_whole(setting: Setting, videos: Sequence[Path], where: Path) -> Any:
    """Index files that are to be indexed to their end; gives the printed report."""
    return run_command(index_words(setting, videos, where), where.with_suffix(".log")).json()


def damaged_video(setting: Setting) -> Outcome:
    """Bytes in the middle of two files are overwritten, and another lacks its last third.

    MP4 lists its frames apart from them, so that each can be accounted for. In Matroska a frame whose place in the file
    is gone was never known of: that part is missing has to be said.
    """
    outcome, where = Outcome(), setting.work / "damaged.gallery"
    clips = [write_clip(setting.frames, setting.length, setting.work / name) for name in DAMAGED]
    for clip in clips[:2]:
        damage_middle(clip)
    clips[2].write_bytes(clips[2].read_bytes()[: clips[2].stat().st_size * 2 // 3])
    report = {Path(entry["source"]).name: entry for entry in index_whole(setting, clips, where)["sources"]}
    contents = read_contents(where)
    check_account(outcome, contents, finished=True)
    for clip in clips:
        info, notes = contents.sources[clip.name], report[clip.name]["notes"]
        progress, due = info.progress, info.source.planned
        outcome.check("missing frames are due, or it is said", due == setting.length or bool(notes))
        outcome.figures[clip.name] = {
            "frames_written": setting.length,
            "due": due,
            "indexed": progress.frames,
            "skipped": dict(progress.reasons),
            "notes": notes,
        }
    whole = contents.sources[DAMAGED[0]].source.planned == setting.length
    outcome.check("every frame of a damaged MP4 file is due", whole)
    noted = sum(int(count) for count in re.findall(r"about (\d+) frames are missing", str(report[DAMAGED[1]]["notes"])))
    known = contents.sources[DAMAGED[1]].source.planned == setting.length - noted
    outcome.check("every frame of a damaged MKV file is due or counted in a note", known)
    end = (setting.length - 1) * 1_000_000 // RATE
    for name in DAMAGED[:2]:
        progress = contents.sources[name].progress
        outcome.check("most of a damaged file is indexed", progress.frames > setting.length / 2)
        outcome.check("a damaged file is read to its end", progress.last_frame >= end - 2_000_000)
    return outcome


def backward_clock_in_file(setting: Setting) -> Outcome:
    """A recording whose clock goes back by half an hour in the middle."""
    outcome, where = Outcome(), setting.work / "clock.gallery"
    half = setting.length // 2
    first = write_clip(setting.frames, half, setting.work / "first.ts", start=SHOWN_FIRST * TICKS)
    second = write_clip(setting.frames, half, setting.work / "second.ts")
    both = setting.work / "both.ts"
    join_with_backward_clock(first, second, both)
    report = index_whole(setting, [both], where)
    contents = read_contents(where)
    check_account(outcome, contents, finished=True)
    progress = contents.sources[both.name].progress
    outcome.check("nothing is lost", progress.frames == 2 * half, indexed=progress.frames, written=2 * half)
    seconds = progress.last_frame / 1_000_000
    outcome.check("the parts follow each other", abs(seconds - (2 * half - 1) / RATE) < 1, last_second=seconds)
    outcome.check("it is said", "clock goes backwards" in str(report))
    return outcome


def eight_sources(setting: Setting) -> Outcome:
    """Eight files of different lengths at once, in one engine."""
    outcome, where = Outcome(), setting.work / "eight.gallery"
    lengths = {f"clip{n}.mkv": setting.length * (n + 1) // SOURCES for n in range(SOURCES)}
    clips = []
    for number, (name, length) in enumerate(lengths.items()):
        shifted = [*setting.frames[number:], *setting.frames[:number]]
        clips.append(write_clip(shifted, length, setting.work / name))
    start = time.perf_counter()
    index_whole(setting, clips, where)
    seconds = time.perf_counter() - start
    contents = read_contents(where)
    check_account(outcome, contents, finished=True)
    found = {name: contents.indexed(name) for name in lengths}
    outcome.check("every frame of every file is indexed", found == lengths, frames=sum(found.values()))
    outcome.figures["frames_a_second_with_the_start_of_the_command"] = round(sum(found.values()) / seconds, 1)
    return outcome
