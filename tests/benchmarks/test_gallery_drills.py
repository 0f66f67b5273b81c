"""The drills' own parts: clips, the camera, processes, and checks that can fail."""

import json
import time
from contextlib import suppress

import av
import numpy as np
import pyarrow as pa
import pytest
import toy_bundle as toy
from click.testing import CliRunner
from gallery_filled import fill

from psarm.benchmarks import gallery_drills
from psarm.benchmarks.drills import backward_clock, reader
from psarm.benchmarks.drills.accounts import Contents, check_account, check_same, read_contents
from psarm.benchmarks.drills.broadcast import Broadcast
from psarm.benchmarks.drills.clips import (
    damage_middle,
    join_with_backward_clock,
    read_pictures,
    there_and_back,
    write_clip,
)
from psarm.benchmarks.drills.commands import Process
from psarm.benchmarks.drills.outcome import Outcome, Setting
from psarm.benchmarks.drills.watching import beyond, frames_done, writes
from psarm.errors import PsarmError, UsageError
from psarm.runtime.indexing.sampling import Sampling
from psarm.runtime.indexing.sources import find_readers

SLEEP = ("-c", "import sys, time; time.sleep(float(sys.argv[1]))")
PICTURES = [toy.draw_scene({cell: (255, 0, 0)}) for cell in range(4)]


@pytest.fixture(scope="module")
def gallery(toy_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("filled")
    fill(folder / "gallery", toy_bundle, folder)
    return folder / "gallery"


@pytest.fixture(scope="module")
def contents(gallery):
    return read_contents(gallery)


def failed(outcome):
    return [name for name, passed in outcome.checks.items() if not passed]


def test_a_clip_and_its_damage(tmp_path):
    clip = write_clip(PICTURES, 30, tmp_path / "clip.mkv")
    pictures = read_pictures(clip)
    assert len(pictures) == 30 and np.abs(pictures[8].astype(int) - PICTURES[2]).mean() < 10
    assert [id(p) for _, p in zip(range(7), there_and_back(PICTURES), strict=False)] == [
        id(PICTURES[n]) for n in (0, 1, 2, 3, 2, 1, 0)
    ]
    size = clip.stat().st_size
    assert damage_middle(clip, 0.1) == round(size / 10) and clip.stat().st_size == size


def test_a_clock_that_goes_backwards(tmp_path):
    parts = [write_clip(PICTURES, 8, tmp_path / f"{start}.ts", start) for start in (90_000_000, 0)]
    join_with_backward_clock(*parts, tmp_path / "both.ts")
    with av.open(str(tmp_path / "both.ts"), options={"correct_ts_overflow": "0"}) as container:  # as it is
        times = [float(packet.pts * packet.time_base) for packet in container.demux(video=0) if packet.pts is not None]
    assert len(times) == 16 and times[0] >= 1000 > 10 > times[-1]
    [video] = find_readers([str(tmp_path / "both.ts")], sampling=Sampling())
    assert [taken.frame for taken in video.read()] == list(range(0, 1_600_000, 100_000))


def test_a_camera_dies_and_comes_back():
    with Broadcast("door.ts", PICTURES, rate=50) as camera:
        with av.open(camera.address, timeout=5) as container:
            frames = container.decode(video=0)
            assert next(frames).width == 160 and camera.sent > 0
            camera.die()
            with suppress(av.error.FFmpegError):
                sum(1 for _ in frames)  # ends
        with pytest.raises(av.error.FFmpegError):
            av.open(camera.address, timeout=5)
        camera.live()
        with av.open(camera.address, timeout=5) as container:
            assert next(container.decode(video=0)).height == 96


def test_a_process_is_watched(tmp_path):
    program = ("-c", "import sys, time; print('[1]'); sys.stderr.write('Error: no\\n'); sys.exit(int(sys.argv[1]))")
    with Process(["1"], tmp_path / "one.log", program) as process:
        assert process.wait() == 1 and process.one_sentence and process.error == "no" and process.json() == [1]
        with pytest.raises(PsarmError, match="ended before the end of time"):
            process.wait_until(lambda: False, "the end of time")
    with Process(["60"], tmp_path / "two.log", SLEEP) as process:
        assert process.running
        with pytest.raises(PsarmError, match="did not end"):
            process.wait(0.01)
    assert not process.running


def test_a_gallery_adds_up(gallery, contents):
    outcome = Outcome()
    check_account(outcome, contents, finished=all(info.progress.finished for info in contents.sources.values()))
    assert "no person is there twice" in outcome.checks
    check_same(outcome, contents, contents)
    assert {"no person is there twice", "visits are made of their people"}.isdisjoint(failed(outcome))
    assert frames_done(gallery).keys() == contents.sources.keys() and frames_done(gallery.parent / "none") == {}
    assert beyond(gallery, 0)() and not beyond(gallery, 10**6)()


def test_checks_can_fail(contents):
    twice = Contents(contents.sources, pa.concat_tables([contents.people, contents.people[:1]]), contents.visits)
    outcome = Outcome()
    check_account(outcome, twice, finished=True)
    check_same(outcome, twice, contents)
    assert not outcome.passed
    assert {
        "no person is there twice",
        "as many people as were committed",
        "visits are made of their people",
        "the same people as without the fault",
    } <= set(failed(outcome))
    moved = contents.people.set_column(
        contents.people.schema.get_field_index("visit"), "visit", pa.array([None] * len(contents.people), pa.int64())
    )
    outcome = Outcome()
    check_same(outcome, Contents(contents.sources, moved, contents.visits), contents)
    assert failed(outcome) == ["the same visits as without the fault"]


def test_a_reader_reads_until_it_is_told(gallery, contents, tmp_path):
    (tmp_path / "stop").touch()
    report = reader.read_until(gallery, tmp_path / "stop")
    assert (report["rounds"], report["people"], report["falls"]) == (1, len(contents.people), 0)
    assert report["duplicates"] == 0


def test_the_clock_is_set_back(monkeypatch):
    monkeypatch.setattr(time, "time", time.time)  # put back afterwards
    monkeypatch.setattr(time, "time_ns", time.time_ns)
    before = time.time()
    backward_clock.set_back(0, 1000)
    assert before - 1000 <= time.time() < before - 900 and time.time_ns() / 1e9 < before - 900


def test_writing_is_noticed(tmp_path):
    with Process(["60"], tmp_path / "sleep.log", SLEEP) as process:
        condition = writes(process, tmp_path)
        assert not condition()
        (tmp_path / ".writer.lock").write_text(f"{process.pid} psarm index\n")
        assert condition()


def test_pictures_without_people_are_refused(tmp_path, toy_bundle):
    setting = Setting(toy_bundle, tmp_path, [toy.draw_scene({})] * 2, 16, 0.0, 0.0, 1, ("--threads", "1"))
    with pytest.raises(UsageError, match="finds nobody in the pictures"):
        gallery_drills.measured_rate(setting)


def test_the_command(tmp_path, toy_bundle, monkeypatch):
    """Drills that are made up: what they come to is printed, kept, and the exit code."""

    def good(setting):
        outcome = Outcome()
        outcome.check("all is well", setting.rate == 5.0, frames=setting.length_of(100), note=f"{setting.work}/a.mkv")
        return outcome

    def bad(setting):
        raise PsarmError("It broke.")

    monkeypatch.setattr(gallery_drills, "DRILLS", {"good": good, "bad": bad})
    monkeypatch.setattr(gallery_drills, "measured_rate", lambda setting: 5.0)
    clip, path = write_clip(PICTURES, 4, tmp_path / "clip.mkv"), tmp_path / "drills.json"
    words = [toy_bundle, "--work", tmp_path / "wörk", "--video", clip, "--json", path, "--threads", 1]
    result = CliRunner().invoke(gallery_drills.main, [str(word) for word in words])
    assert isinstance(result.exception, PsarmError) and "1 of 2 drills failed: bad" in str(result.exception)
    first, second = json.loads(path.read_text())["drills"]
    assert (
        first["passed"]
        and first["figures"] == {"frames": 500, "note": "good/a.mkv"}
        and second["failure"] == "It broke."
    )
    assert "good: passed" in result.output and "broke off: It broke." in result.output
