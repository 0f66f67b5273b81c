"""Cameras: as they come, away and back, silent, too fast, with a clock that leaps."""

import http.server
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice, pairwise

import cv2
import numpy as np
import pytest
from small_videos import FileServer, mjpeg_camera, rtsp_camera, server, shades, write_video

from psarm.errors import ImageError, UsageError
from psarm.runtime.gallery.records import Source
from psarm.runtime.indexing import live
from psarm.runtime.indexing.cameras import AddressCamera
from psarm.runtime.indexing.live import TOO_SLOW, LiveReader
from psarm.runtime.indexing.reading import DAMAGED, ChunkedReader, Skip
from psarm.runtime.indexing.sampling import Sampling
from psarm.runtime.indexing.sources import find_readers

PICTURES = [cv2.imencode(".jpg", np.full((48, 64, 3), 20 + 10 * number, np.uint8))[1].tobytes() for number in range(20)]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(live, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr("psarm.runtime.indexing.cameras.NETWORK_TIMEOUT_MS", 1000)


def reader(address, **settings):
    [found] = find_readers([address], **settings)
    return found


def now_us():
    return time.time_ns() // 1000


def taken(entries, count):
    frames = (entry for entry in entries if not isinstance(entry, Skip))
    return list(islice(frames, count))


class Frames:
    """A camera whose frames are those given: a brightness, None (damaged), "undecoded", an error that ends it."""

    def __init__(self, *openings, interval=0.0):
        self.openings = list(openings)
        self.interval = interval

    def frames(self, keyframes):
        for one in self.openings.pop(0) if self.openings else [ImageError("no route to host")]:
            if isinstance(one, Exception):
                raise one
            time.sleep(self.interval)
            if one == "undecoded":
                yield None
            else:
                yield lambda one=one: None if one is None else np.full((2, 3, 3), one, np.uint8)


def live_reader(camera, sampling=None, give_up_after=0.2, on_note=lambda note: None):
    source = Source("rtsp://door", "door", "live")
    return LiveReader(camera, source, sampling or Sampling(), give_up_after, on_note)


def read_all(one, after=-1):
    """What comes before it is given up."""
    entries = []
    with pytest.raises(ImageError, match=r"rtsp://door was away for 0\.2 s \(no route to host\)"):
        entries.extend(one.read(after))
    return entries


def test_a_camera_over_http_that_dies_and_comes_back():
    notes = []
    with server(mjpeg_camera(PICTURES)) as port:
        camera = reader(f"http://user:secret@127.0.0.1:{port}/video?key=secret", on_note=notes.append)
        begin = now_us()
        entries = camera.read()
        first = taken(entries, 5)
    time.sleep(0.3)
    with server(mjpeg_camera(PICTURES), port):
        more = taken(entries, 15)[-5:]
        camera.close()
        assert len(list(entries)) <= live.WAITING
    assert [note.event for note in notes] == ["gone", "back"]
    assert camera.source.name == f"http://127.0.0.1:{port}/video" and camera.source.kind == "live"
    assert "secret" not in repr((camera.source, notes))
    assert begin < first[0].frame and all(one.frame < other.frame for one, other in pairwise([*first, *more]))
    assert shades(one.image for one in first) == [0, 1, 2, 3, 4]
    assert first[0].time == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=first[0].frame)


def test_a_camera_over_rtsp(tmp_path):
    stream = write_video(tmp_path / "a.ts", codec="mpeg2video").read_bytes()
    notes = []
    with server(rtsp_camera(stream)) as port:
        camera = reader(f"rtsp://user:secret@127.0.0.1:{port}/live", on_note=notes.append)
        entries = camera.read()
        numbers = shades(one.image for one in taken(entries, 12))
    time.sleep(0.3)
    with server(rtsp_camera(stream), port):
        next(entry for entry in entries if len(notes) == 2)  # some of before may still come
        camera.close()
    assert [note.event for note in notes] == ["gone", "back"] and "secret" not in repr(notes)
    assert all((other - one) % 20 < 6 for one, other in pairwise(numbers))


def test_a_silent_camera_counts_as_gone():
    notes = []
    with server(lambda connection, dying: dying.wait()) as port:
        camera = reader(f"rtsp://127.0.0.1:{port}/live", on_note=lambda note: (notes.append(note), camera.close()))
        assert list(camera.read()) == []
    assert "silent for 1 seconds" in notes[0].text


def test_close_does_not_wait_for_a_silent_camera(monkeypatch):
    monkeypatch.setattr("psarm.runtime.indexing.cameras.NETWORK_TIMEOUT_MS", 5000)
    with server(lambda connection, dying: dying.wait()) as port:
        camera = reader(f"rtsp://127.0.0.1:{port}/live")
        closed = []
        threading.Timer(0.3, lambda: (closed.append(time.monotonic()), camera.close())).start()
        assert list(camera.read()) == []
        assert time.monotonic() - closed[0] < 0.5


def test_nobody_there_is_given_up_after_a_while():
    with server(lambda connection, dying: None) as port:
        pass
    notes = []
    camera = reader(f"rtsp://user:secret@127.0.0.1:{port}/", give_up_after=0.3, on_note=notes.append)
    with pytest.raises(ImageError, match=r"away for 0\.3 s \(Connection refused\)") as raised:
        list(camera.read())
    assert [note.event for note in notes] == ["gone"] and "secret" not in str(raised.value) + notes[0].text


def test_a_camera_over_http_that_is_away_at_the_start_is_waited_for():
    with server(lambda connection, dying: None) as port:
        pass
    notes = []
    camera = reader(f"http://user:secret@127.0.0.1:{port}/video", on_note=notes.append)
    assert camera.plan().kind == "live"
    frames = []
    waiting = threading.Thread(target=lambda: frames.extend(taken(camera.read(), 5)))
    waiting.start()
    time.sleep(0.3)
    assert waiting.is_alive() and not frames
    with server(mjpeg_camera(PICTURES), port):
        waiting.join(10)
        camera.close()
    assert len(frames) == 5 and [note.event for note in notes] == ["gone", "back"] and "secret" not in repr(notes)
    with pytest.raises(ImageError, match=r"away for 0\.3 s \(Connection refused\)"):
        list(reader(f"http://127.0.0.1:{port}/video", give_up_after=0.3).read())


def test_a_file_over_http_whose_server_is_away_at_the_start_fails_at_once(tmp_path):
    with server(lambda connection, dying: None) as port:
        pass
    address = f"http://user:secret@127.0.0.1:{port}"
    for name, settings in (
        ("a.mp4", {}),
        ("A.MKV?key=secret", {"cameras": ["door"]}),
        ("a", {"starts": [datetime.now(UTC)]}),
        ("a?file=a.mp4", {}),
    ):
        with pytest.raises(
            ImageError, match=r"/a.* cannot be read: Connection refused\.$|/A\.MKV .door. cannot"
        ) as raised:
            reader(f"{address}/{name}", **settings).plan()
        assert "secret" not in str(raised.value)
    unnamed = reader(f"{address}/download")
    assert unnamed.plan().kind == "live"
    with pytest.raises(ImageError, match=r"/download cannot be read: Connection refused\.$"):
        unnamed.chunks(10)
    with server(FileServer(write_video(tmp_path / "a.mp4").read_bytes()).handle, port):
        with pytest.raises(UsageError, match="it is a file and no camera"):
            list(unnamed.read())
        with pytest.raises(UsageError, match="it is a file and no camera"):
            list(reader(f"file://{tmp_path}/a.mp4").read())
        assert reader(f"{address}/download").plan().kind == "video"


def test_what_a_camera_over_http_cannot_be_asked_for():
    with server(mjpeg_camera(PICTURES)) as port:
        camera = reader(f"http://127.0.0.1:{port}/video")
        with pytest.raises(ImageError, match="is a camera"):
            camera.chunks(10)
        with pytest.raises(ImageError, match="no start"):
            reader(f"http://127.0.0.1:{port}/video", starts=[datetime.now(UTC)]).plan()
        addresses = [f"http://127.0.0.1:{port}/{name}" for name in ("video", "other")]
        readers = find_readers(addresses, starts=[datetime.now(UTC)])
        assert [(one.plan().kind, one.source.start) for one in readers] == [("live", None)] * 2


def test_a_file_over_http_is_read_as_a_file(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    handler = partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{web.server_port}"
        behind = reader(f"{address}/a.mp4?token=secret", cameras=["door"], sampling=Sampling(every=5))
        assert (behind.plan().name, behind.source.kind) == (f"{address}/a.mp4 [door]", "video")
        frames = [(one.frame, one.image.tobytes()) for one in behind.read()]
        assert behind.source.planned == 10 and "secret" not in repr(behind.chunks(5))
        with pytest.raises(ImageError, match="Not Found"):
            reader(f"{address}/gone.mp4").plan()
        web.shutdown()
    assert frames == [(one.frame, one.image.tobytes()) for one in reader(str(path), sampling=Sampling(every=5)).read()]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing to stderr."""


def test_sampling_of_what_comes():
    assert len(read_all(live_reader(Frames(range(30), interval=0.001), Sampling(every=7)))) == 5
    entries = read_all(live_reader(Frames(range(60), interval=0.01), Sampling(fps=10)))
    slots = [(one.frame - entries[0].frame) // 100_000 for one in entries]
    assert len(set(slots)) == len(slots) >= 5


def test_damaged_frames_and_those_that_are_not_taken_in_time_are_counted():
    assert [type(one) for one in read_all(live_reader(Frames([1, None, 3], interval=0.01)))][1] is Skip
    entries = []
    for entry in (one := live_reader(Frames([*range(100), None]))).read():
        if not entries:
            time.sleep(0.1)
        entries.append(entry)
        if isinstance(entry, Skip) and entry.reason == DAMAGED:
            one.close()
    skips = [entry for entry in entries if isinstance(entry, Skip)]
    assert len(entries) <= live.WAITING + 2 and {entry.reason for entry in skips} <= {TOO_SLOW, DAMAGED}
    assert sum(entry.count if isinstance(entry, Skip) else 1 for entry in entries) == 101
    assert all(one.frame < other.frame for one, other in pairwise(entries))


@pytest.mark.parametrize("stayed", [True, False])
def test_back_off_doubles_up_to_a_limit_and_begins_anew_when_the_camera_stayed(monkeypatch, stayed):
    waits = []
    if stayed:
        monkeypatch.setattr(live, "STAYED_S", 0)

    class Stop(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            if len(waits) == 8:
                self.set()

    monkeypatch.setattr(live, "LONGEST_WAIT_S", 0.4)
    monkeypatch.setattr(live.random, "uniform", lambda low, high: high)
    nobody = [ImageError("no route to host")]
    camera = live_reader(Frames(*[nobody] * 5, [1]), give_up_after=None)
    camera._stop = Stop()
    assert len(list(camera.read())) == 1
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.4, *([0.05, 0.1, 0.2] if stayed else [0.4, 0.4, 0.4])]


def test_a_camera_that_ends_after_it_was_closed_is_not_gone():
    notes, closed = [], threading.Event()

    class Ends:
        def frames(self, keyframes):
            yield lambda: np.zeros((2, 3, 3), np.uint8)
            closed.wait()
            raise ImageError("no route to host")

    camera = LiveReader(Ends(), Source("rtsp://closed", "door", "live"), Sampling(), None, notes.append)
    entries = camera.read()
    next(entries)
    [thread] = [one for one in threading.enumerate() if one.name == "camera rtsp://closed"]
    camera.close()
    closed.set()
    thread.join()
    assert list(entries) == [] and notes == []


def test_what_cannot_be_decoded_is_skipped_and_does_not_count_as_there():
    notes = []
    broken = ["undecoded"] * 2 + [ImageError("no route to host")]
    entries = read_all(live_reader(Frames(*[broken] * 3, interval=0.001), on_note=notes.append))
    assert [type(one) for one in entries] == [Skip] * len(entries) and {one.reason for one in entries} == {DAMAGED}
    assert len(entries) >= 2 and [note.event for note in notes] == ["gone"]


def test_packets_without_any_frame_count_as_gone():
    notes = []
    garbage = [b"\xff\xd8\xff\xe0garbage\xff\xd9"]
    with server(mjpeg_camera(garbage)) as port:
        camera = AddressCamera(f"http://127.0.0.1:{port}/")
        one = LiveReader(camera, Source("http://door", "door", "live"), Sampling(), 0.0, notes.append)
        entries = []
        with pytest.raises(ImageError, match=r"away for 0 s \(no frame of it can be decoded for 1 seconds\)"):
            entries.extend(one.read())
    assert {one.reason for one in entries} <= {DAMAGED, TOO_SLOW} and [note.event for note in notes] == ["gone"]


def test_ids_rise_where_the_clock_goes_backwards(monkeypatch):
    wall = steady = 5_000_000
    monkeypatch.setattr(live, "_wall_us", lambda: wall)
    monkeypatch.setattr(live, "_steady_us", lambda: steady)
    leaps = []
    clock = live.RisingClock(-1, leaps.append)
    assert (clock.now(), clock.now()) == (5_000_000, 5_000_001)
    wall, steady = 1_000_000, 5_040_000  # set back by four seconds
    assert clock.now() == 5_040_000
    wall, steady = 1_040_000, 5_080_000
    assert clock.now() == 5_080_000
    assert len(leaps) == 1 and "set back by 4 s" in leaps[0]
    wall, steady = 9_000_000, 5_120_000  # set right, and ahead of what it was
    assert clock.now() == 9_000_000
    wall, steady = 2_000_000, 5_160_000
    assert clock.now() == 9_040_000 and len(leaps) == 2


def test_reading_goes_on_above_the_last_id_though_the_clock_is_behind_it():
    notes = []
    ahead = now_us() + 3_600_000_000
    entries = read_all(live_reader(Frames(range(5), interval=0.002), on_note=notes.append), after=ahead)
    assert all(ahead < entry.frame < ahead + 10_000_000 for entry in entries)
    assert [note.event for note in notes] == ["clock", "gone"]


def test_what_fails_in_the_thread_is_raised_where_frames_are_taken():
    def fail(note):
        raise RuntimeError("in the callback")

    with pytest.raises(RuntimeError, match="in the callback"):
        list(live_reader(Frames([1]), on_note=fail).read())


def test_a_camera_of_this_machine(monkeypatch):
    class Capture:
        def __init__(self, number):
            self.number, self.left = number, 3

        def isOpened(self):
            return self.number == 7

        def grab(self):
            self.left -= 1
            return self.left >= 0

        def retrieve(self):
            return True, np.full((2, 3, 3), self.left, np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    seven = reader("7", cameras=["hall"])
    assert (seven.source.name, seven.source.camera) == ("camera 7", "hall")
    assert [one.image[0, 0, 0] for one in taken(seven.read(), 6)] == [2, 1, 0, 2, 1, 0]
    with pytest.raises(ImageError, match="cannot be opened"):
        list(reader("3", give_up_after=0.01).read())
    assert not isinstance(seven, ChunkedReader)


def test_addresses_that_differ_in_what_is_left_out_need_cameras():
    assert len(find_readers(["rtsp://host/a", "rtsp://host/b"], starts=[None])) == 2
    addresses = ["rtsp://host/live?channel=1", "rtsp://host/live?channel=2"]
    with pytest.raises(UsageError, match=r"Two sources are named rtsp://host/live;"):
        find_readers(addresses)
    names = [one.source.name for one in find_readers(addresses, ["door", "hall"])]
    assert names == ["rtsp://host/live [door]", "rtsp://host/live [hall]"]
