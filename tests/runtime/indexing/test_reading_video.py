"""Video files: what is due, what comes out, at which times, from wherever reading begins."""

import pickle
import re
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from small_videos import FileServer, server, shades, write_video

from psarm.errors import ImageError, UsageError
from psarm.runtime.indexing.decoding import decode
from psarm.runtime.indexing.plan import read_packets
from psarm.runtime.indexing.reading import DAMAGED, Skip, TakenFrame
from psarm.runtime.indexing.sampling import Sampling
from psarm.runtime.indexing.sources import find_readers
from psarm.runtime.indexing.video_file import CUT_OFF

SAMPLINGS = [Sampling(), Sampling(fps=5), Sampling(fps=0.9), Sampling(every=7), Sampling(keyframes=True)]
FOOTAGE = Path(__file__).parents[4] / "shared" / "data"
START = datetime(2025, 6, 1, 8, tzinfo=UTC)


def reader(path, sampling=None, **settings):
    [found] = find_readers([str(path)], sampling=sampling, **settings)
    return found


def comparable(entries):
    return [entry if isinstance(entry, Skip) else (entry.frame, entry.time, entry.image.tobytes()) for entry in entries]


def read(path, sampling=None, after=-1, **settings):
    return list(reader(path, sampling, **settings).read(after))


def due_by_definition(ids, sampling, keys):
    """The slow, obvious way; times in microseconds."""
    if sampling.keyframes:
        return [number for number in ids if number in keys]
    if sampling.fps is None:
        return ids[:: sampling.every or 1]
    due, slot = [], -1
    for number in ids:
        if (now := int((number + 501) * sampling.fps / 1e6)) > slot:
            due.append(number)
            slot = now
    return due


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    made = {name: write_video(folder / f"b.{name}") for name in ("mp4", "mkv", "ts")}
    made["mpeg4.avi"] = write_video(folder / "mpeg4.avi", codec="mpeg4")
    made["h264.avi"] = write_video(folder / "h264.avi")
    made["mpeg2.ts"] = write_video(folder / "mpeg2.ts", codec="mpeg2video")
    return made


@pytest.mark.parametrize("name", ["mp4", "mkv", "ts", "mpeg4.avi", "h264.avi", "mpeg2.ts"])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_what_is_due_comes_out_with_its_picture_wherever_reading_begins(videos, name, sampling):
    everything = read(videos[name])
    assert shades(one.image for one in everything) == [number % 20 for number in range(48)]
    ids = [one.frame for one in everything]
    assert np.abs(np.array(ids) - np.arange(48) * 1e6 / 24).max() <= 500
    with av.open(str(videos[name])) as container:
        stamps = [(packet.pts, packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
    first = min(stamp for stamp, _ in stamps)
    places = sorted(stamp for stamp, _ in stamps)
    keys = {ids[places.index(stamp)] for stamp, key in stamps if key}
    assert ids[0] == 0 and first in {stamp for stamp, key in stamps if key}

    entries = read(videos[name], sampling)
    assert [one.frame for one in entries] == due_by_definition(ids, sampling, keys)
    assert reader(videos[name], sampling).plan().planned == len(entries)
    whole = comparable(entries)
    pictures = {one.frame: number for number, one in enumerate(everything)}
    assert shades(one.image for one in entries) == [pictures[one.frame] % 20 for one in entries]
    for place in (0, len(entries) // 2, len(entries) - 1):
        assert comparable(read(videos[name], sampling, after=entries[place].frame)) == whole[place + 1 :]
    parts = pickle.loads(pickle.dumps(reader(videos[name], sampling).chunks(3)))
    assert [entry for part in parts for entry in comparable(part.read())] == whole
    assert all(len(list(part.read())) >= 3 for part in parts[:-1])


def test_variable_frame_rate(tmp_path):
    steps = [1, 1, 1, 30, 2, 2, 50, 1, 1, 9, 9, 9, 120, 1, 1]
    times = np.cumsum([0, *steps]).tolist()
    path = write_video(tmp_path / "vfr.mp4", len(times), times=times, time_base=Fraction(1, 100))
    assert [one.frame for one in read(path)] == [time * 10_000 for time in times]
    assert [one.frame for one in read(path, Sampling(fps=4))] == due_by_definition(
        [time * 10_000 for time in times], Sampling(fps=4), ()
    )


@pytest.mark.parametrize("name", ["mkv", "mp4", "ts"])
def test_a_gap_in_even_times_is_noted(tmp_path, name):
    times = [time for time in range(100) if not 40 <= time < 52 and time != 90]
    notes = []
    reader(write_video(tmp_path / f"a.{name}", len(times), times=times), on_note=notes.append).plan()
    assert [note.event for note in notes] == ["gap"]
    assert "about 13 frames are missing at 1.6 s and one more place." in notes[0].text
    reader(write_video(tmp_path / f"b.{name}", 100), on_note=notes.append).plan()
    assert len(notes) == 1


@pytest.mark.parametrize("rate", [Fraction(30), Fraction(30000, 1001), Fraction(25)])
def test_a_rate_equal_to_the_videos_takes_every_frame_of_times_rounded_to_milliseconds(tmp_path, rate):
    path = write_video(tmp_path / "a.mkv", 60, fps=rate)
    assert len(read(path, Sampling(fps=float(rate)))) == 60
    assert len(read(path, Sampling(fps=float(rate) / 2))) == 30


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_frames_are_turned_as_the_file_says(tmp_path, rotation):
    path = write_video(tmp_path / "turned.mp4", 3, rotation=rotation)
    _, expected = cv2.VideoCapture(str(path)).read()
    [first, *_] = read(path)
    assert first.image.shape == expected.shape and first.image.flags.c_contiguous
    assert np.abs(first.image.astype(int) - expected).max() < 12


def test_the_time_is_the_given_start_or_what_the_file_says_or_unknown(tmp_path):
    path = write_video(tmp_path / "a.mp4", 3)
    assert [one.time for one in read(path)] == [None] * 3
    assert [one.time for one in read(path, starts=[START])] == [
        START + timedelta(microseconds=one.frame) for one in read(path)
    ]
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.mp4"), "w") as target:
        target.metadata["creation_time"] = "2024-02-03T04:05:06.000000Z"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    dated = reader(tmp_path / "b.mp4")
    assert dated.plan().start == datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC)
    with pytest.raises(UsageError, match="time zone"):
        find_readers([str(path)], starts=[datetime(2025, 6, 1)])
    for far in (datetime.max, datetime.min):
        with pytest.raises(UsageError, match="1900 to 9998"):
            find_readers([str(path)], starts=[far.replace(tzinfo=UTC)])
    with pytest.raises(UsageError, match="for cameras"):
        find_readers([str(path)], give_up_after=3)


def test_one_start_is_for_the_videos_among_the_sources(tmp_path):
    path = write_video(tmp_path / "a.mp4", 3)
    others = ["rtsp://127.0.0.1:1/live", "7", str(tmp_path)]
    readers = find_readers([str(path), *others], starts=[START])
    assert [one.source.start for one in readers] == [START, None, None, None]
    assert all("start" not in one.source.settings for one in readers[1:])
    with pytest.raises(UsageError, match="none of the sources is one"):
        find_readers(others, starts=[START])
    for other in others:
        with pytest.raises(UsageError, match="given no start"):
            find_readers([str(path), other], starts=[START, START])


@pytest.mark.parametrize("name", ["mp4", "mkv", "ts"])
def test_damage_in_the_middle_is_skipped_and_counted(tmp_path, name):
    path = write_video(tmp_path / f"a.{name}", 120)
    whole = {one.frame for one in read(path)}
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 8] = np.random.default_rng(0).bytes(len(data) // 8)
    path.write_bytes(data)
    entries = read(path)
    assert len(entries) == reader(path).plan().planned
    skips = [entry for entry in entries if isinstance(entry, Skip)]
    assert {entry.reason for entry in skips} == {DAMAGED} and 0 < len(skips) < 60
    taken = [entry for entry in entries if isinstance(entry, TakenFrame)]
    assert len(taken) > 50 and {one.frame for one in taken} <= whole
    assert all(one.frame < other.frame for one, other in pairwise(entries))
    alike = [entry for part in reader(path).chunks(12) for entry in part.read()]
    assert [(entry.frame, type(entry)) for entry in alike] == [(entry.frame, type(entry)) for entry in entries]


@pytest.mark.parametrize("share", [0.02, 0.05, 0.3])
def test_damaged_matroska_says_what_it_lacks_and_is_read_to_its_end(tmp_path, share):
    path = write_video(tmp_path / "a.mkv", 240)
    whole = comparable(read(path))
    data = bytearray(path.read_bytes())
    size = round(len(data) * share)
    begin = (len(data) - size) // 2
    data[begin : begin + size] = b"\xa5" * size
    path.write_bytes(data)
    notes = []
    damaged = reader(path, on_note=notes.append)
    entries = list(damaged.read())
    assert [note.event for note in notes] == ["gap"]
    missing = int(re.search(r"about (\d+) frames are missing", notes[0].text)[1])
    assert len(entries) == damaged.source.planned == 240 - missing < 240
    taken = [entry for entry in entries if isinstance(entry, TakenFrame)]
    assert {entry.reason for entry in entries if isinstance(entry, Skip)} <= {DAMAGED} and len(taken) > 100
    assert entries[0].frame == whole[0][0] and entries[-1].frame == whole[-1][0]
    same = [one for one in comparable(taken) if one in whole]
    assert len(same) >= len(taken) - 12  # a keyframe's, of which a part is gone


@pytest.mark.parametrize("name", ["mp4", "mkv"])
@pytest.mark.parametrize("silent", [False, True])
def test_a_server_that_dies_leaves_the_rest_to_do(tmp_path, monkeypatch, name, silent):
    for module in ("decoding", "web"):
        monkeypatch.setattr(f"psarm.runtime.indexing.{module}.NETWORK_TIMEOUT_MS", 500)
    path = write_video(tmp_path / f"a.{name}", 120, **({"movflags": "faststart"} if name == "mp4" else {}))
    web = FileServer(path.read_bytes())
    entries = []
    with server(web.handle) as port:
        address = f"http://user:secret@127.0.0.1:{port}/a.{name}?secret"
        behind = reader(address)
        assert behind.plan().planned == 120
        web.left, web.silent = len(web.data) // 2, silent
        with pytest.raises(
            ImageError, match=r"could not be read further: (it was silent for 0\.5|Input)|cannot be opened"
        ) as raised:
            entries.extend(behind.read())
        assert 10 < len(entries) < 110 and not any(isinstance(one, Skip) for one in entries)
        assert "secret" not in str(raised.value)
        web.left = None
        behind = reader(address)
        rest = list(behind.read(entries[-1].frame))
        assert comparable(entries + rest) == comparable(read(path))
        web.left = len(web.data) // 2
        with pytest.raises(ImageError, match=r"further|opened|reached|ended"):
            reader(address).plan()


@pytest.mark.parametrize("name", ["mp4", "ts", "mpeg4.avi"])
def test_a_file_that_becomes_shorter_while_it_is_read_leaves_the_rest_to_do(tmp_path, name):
    path = write_video(tmp_path / f"a.{name}", 1200, codec="mpeg4" if "avi" in name else "libx264")
    one = reader(path, Sampling(every=40))
    one.plan()
    entries = one.read()
    taken = [next(entries)]
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 6 // 10)
    with pytest.raises(ImageError, match=r"ended early|cannot be opened"):
        taken.extend(entries)
    assert len(taken) < 25 and not any(isinstance(entry, Skip) for entry in taken)


def test_close_ends_a_reading_that_only_fails(tmp_path, monkeypatch):
    failures = []

    def failing(container, stream, name):
        yield from islice(read_packets(container, stream, name), 40)
        while True:
            failures.append(None)
            if len(failures) == 1000:
                closed.close()
            yield None

    closed = reader(write_video(tmp_path / "a.mp4", 100))
    closed.plan()
    monkeypatch.setattr("psarm.runtime.indexing.decoding.read_packets", failing)
    entries = list(closed.read())
    assert len(failures) == 1000 and 10 < len(entries) <= 40 and not any(isinstance(one, Skip) for one in entries)


@pytest.mark.parametrize(
    ("sampling", "beyond"), [(Sampling(), 1), (Sampling(every=5), 5), (Sampling(fps=12), 2)], ids=str
)
def test_a_file_cut_short_counts_what_it_says_it_has(tmp_path, sampling, beyond):
    path = write_video(tmp_path / "a.mp4", 120, movflags="faststart")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    notes = []
    cut = reader(path, sampling, on_note=notes.append)
    entries = list(cut.read())
    assert cut.source.planned == len(range(0, 120, beyond))
    assert sum(entry.count if isinstance(entry, Skip) else 1 for entry in entries) == cut.source.planned
    assert entries[-1].reason == CUT_OFF and entries[-1].count > 20 / beyond
    assert [note.event for note in notes] == ["cut short"] and "of the 120 frames" in notes[0].text
    assert read(path, sampling, after=entries[-1].frame) == []
    assert [one for part in reader(path, sampling).chunks(12) for one in comparable(part.read())] == comparable(entries)


def test_a_clock_that_begins_again_goes_on(tmp_path):
    first = write_video(tmp_path / "first.ts", 30).read_bytes()
    path = tmp_path / "twice.ts"
    path.write_bytes(first + first)
    notes = []
    entries = list(reader(path, on_note=notes.append).read())
    ids = [entry.frame for entry in entries]
    assert len(ids) == 60 and not any(isinstance(entry, Skip) for entry in entries)
    assert all(30_000 < other - one < 130_000 for one, other in pairwise(ids))
    assert [note.event for note in notes] == ["clock"]
    assert comparable(read(path, after=ids[40])) == comparable(entries)[41:]
    parts = reader(path).chunks(20)
    assert [entry for part in parts for entry in comparable(part.read())] == comparable(entries)


def test_a_sparse_rate_decodes_only_what_it_needs(tmp_path, monkeypatch):
    path = write_video(tmp_path / "long.mp4", 240)
    decoded = []

    def counted(stream, packets, keyframes):
        return decode(stream, (decoded.append(packet) or packet for packet in packets), keyframes)

    monkeypatch.setattr("psarm.runtime.indexing.video_file.decode", counted)
    assert [one.frame for one in read(path, Sampling(fps=0.2))] == [0, 5_000_000]
    assert len(decoded) < 24


def test_signature_and_settings(tmp_path):
    path = write_video(tmp_path / "a.mp4", 5)
    one = reader(
        path, Sampling(fps=2), starts=[START.astimezone(timezone(timedelta(hours=5)))], cameras=["door"]
    ).plan()
    assert (one.name, one.camera, one.kind) == (str(path), "door", "video")
    assert one.settings == {"fps": 2, "start": START.isoformat()}
    assert reader(path).plan().signature == one.signature and reader(path).source.settings == {"every": 1}
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert reader(path).plan().signature != one.signature


def test_what_is_no_video(tmp_path):
    path = tmp_path / "a.mp4"
    for content in (b"", b"no video"):
        path.write_bytes(content)
        with pytest.raises(ImageError, match=r"a\.mp4 cannot be opened"):
            reader(path).plan()


def test_close_ends_reading(tmp_path):
    open_reader = reader(write_video(tmp_path / "a.mp4", 100))
    frames = open_reader.read()
    next(frames)
    open_reader.close()
    assert len(list(frames)) < 50


@pytest.mark.skipif(not FOOTAGE.exists(), reason="../shared/data is not there")
@pytest.mark.parametrize(
    ("name", "frames", "keyframes"),
    [("pets2009_s2l1/vtest.avi", 795, 4), ("one_by_one/one-by-one-person-detection.mp4", 1394, 140)],
)
def test_real_footage(name, frames, keyframes):
    path = FOOTAGE / name
    counts = {Sampling(): frames, Sampling(every=7): -(-frames // 7), Sampling(fps=2): -(-frames // 5)}
    for sampling, count in counts.items():
        assert reader(path, sampling).plan().planned == count
    entries = read(path, Sampling(keyframes=True))
    assert len(entries) == keyframes and entries[0].frame == 0 and entries[-1].frame <= (frames - 1) * 100_000
    tail = read(path, Sampling(fps=2), after=(frames - 21) * 100_000)
    assert [one.frame for one in tail] == [k * 500_000 for k in range(-(-(frames - 20) // 5), -(-frames // 5))]
