"""Drills on where a gallery lies: a full disk, one that may not be written, a second writer."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path

import cv2

from psarm.benchmarks.drills.accounts import check_account, check_same, read_contents
from psarm.benchmarks.drills.clips import write_clip
from psarm.benchmarks.drills.commands import Process, run_command
from psarm.benchmarks.drills.files import index_whole, index_words
from psarm.benchmarks.drills.mounts import read_only, small_disk
from psarm.benchmarks.drills.outcome import Outcome, Setting
from psarm.benchmarks.drills.watching import beyond, writes

DISK_MB = 256
SECONDS = 30.0
"""Of indexing: several commits."""


def full_disk(setting: Setting) -> Outcome:
    """Somebody else fills the disk after the first commit; later there is space again."""
    outcome, reference = Outcome(), setting.work / "whole.gallery"
    clip = write_clip(setting.frames, setting.length_of(SECONDS), setting.work / "clip.mkv")
    disk = setting.work / "disk"
    index_whole(setting, [clip], reference)
    with small_disk(disk, DISK_MB):
        where, filler = disk / "full.gallery", disk / "filler"
        with Process(index_words(setting, [clip], where), setting.work / "full.log") as process:
            process.wait_until(beyond(where, 0), "a commit")
            size = fill(filler)
            code = process.wait()
        contents = read_contents(where)
        outcome.check("it ends with exit code 1", code == 1, exit_code=code, error=process.error[-300:])
        outcome.check("it ends with one sentence", process.one_sentence)
        check_account(outcome, contents, finished=False)
        outcome.figures |= {"filled_bytes": size, "frames_before": contents.indexed(clip.name)}
        filler.unlink()
        index_whole(setting, [clip], where)
        contents = read_contents(where)
        check_account(outcome, contents, finished=True)
        check_same(outcome, contents, read_contents(reference))
        outcome.figures["frames_after"] = contents.indexed(clip.name)
    return outcome


def fill(path: Path) -> int:
    """Write a file until the disk is full; gives its size."""
    block, size = b"\0" * 2**16, 0
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                size += file.write(block)
            except OSError:
                return size


def read_only_gallery(setting: Setting) -> Outcome:
    """A gallery on a file system that may only be read: searched, and nothing else."""
    outcome, where = Outcome(), setting.work / "readonly.gallery"
    clip = write_clip(setting.frames, setting.length // 4, setting.work / "clip.mkv")
    index_whole(setting, [clip], where)
    contents, before = read_contents(where), content_hash(where)
    query, audit = setting.work / "query.png", setting.work / "audit.jsonl"
    cv2.imwrite(str(query), setting.frames[0])
    box = ",".join(f"{side:.1f}" for side in contents.people["box"][0].as_py())
    search = ["search", "--gallery", str(where), "--query", str(query), "--box", box, "--json"]
    other = write_clip(setting.frames, 5, setting.work / "other.mkv")
    refused = {
        "a search that would not be noted": search,
        "another source": index_words(setting, [other], where),
        "a deletion": ["gallery", "delete-source", str(where), str(clip), "--yes"],
    }
    with read_only(where):
        info = run_command(["gallery", "info", str(where), "--json"], setting.work / "info.log").json()
        found = run_command([*search, "--audit-log", str(audit)], setting.work / "search.log").json()
        for number, (name, words) in enumerate(refused.items()):
            with Process(words, setting.work / f"refused{number}.log") as process:
                code = process.wait()
            outcome.check(f"{name} is refused in one sentence", code in (1, 2) and process.one_sentence)
            outcome.figures[name] = process.error[-300:]
    said = outcome.figures["a search that would not be noted"]
    outcome.check("a search that is not noted names --audit-log", "--audit-log" in said)
    outcome.check("what is in it can be asked", info["people"] == len(contents.people) > 0)
    outcome.check("it is searched", bool(found))
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    outcome.check("a search is noted elsewhere", len(lines) == 1, noted=sorted(lines[0]) if lines else [])
    outcome.check("nothing changed", content_hash(where) == before)
    return outcome


def content_hash(directory: Path) -> str:
    """Of all files' names and contents."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(directory)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def two_writers(setting: Setting) -> Outcome:
    """A second process wants to write while one does."""
    outcome, where, reference = Outcome(), setting.work / "two.gallery", setting.work / "whole.gallery"
    length = setting.length_of(SECONDS)
    clips = [write_clip(setting.frames, length, setting.work / f"clip{n}.mkv") for n in range(2)]
    with Process(index_words(setting, clips[:1], where), setting.work / "first.log") as first:
        first.wait_until(writes(first, where), "it writes")
        others = {"index": index_words(setting, clips[1:], where), "compact": ["gallery", "compact", str(where)]}
        with ExitStack() as processes:
            seconds = {
                name: processes.enter_context(Process(words, setting.work / f"second-{name}.log"))
                for name, words in others.items()
            }
            codes = {name: second.wait() for name, second in seconds.items()}
        for name, second in seconds.items():
            outcome.check(f"a second {name} is refused", codes[name] == 1 and second.one_sentence)
            outcome.check("the refusal names the process that writes", str(first.pid) in second.error)
            outcome.figures[name] = second.error[-300:]
        outcome.check("the first goes on meanwhile", first.running)
        outcome.check("the first ends well", first.wait() == 0)
    contents = read_contents(where)
    check_account(outcome, contents, finished=True)
    outcome.check("only the first one's source is there", list(contents.sources) == [clips[0].name])
    index_whole(setting, clips[1:], where)
    index_whole(setting, clips, reference)
    contents = read_contents(where)
    check_account(outcome, contents, finished=True)
    check_same(outcome, contents, read_contents(reference))
    return outcome
