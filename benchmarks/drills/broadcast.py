"""A camera that can die and come back: MPEG-TS over HTTP, in real time, without end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from psarm.benchmarks.drills.clips import RATE, TICKS, there_and_back
from psarm.runtime.video import Frame

HOST = "127.0.0.1"


class _Sink:
    """What PyAV writes to: the socket of whoever watches."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, data: bytes) -> int:
        self._connection.sendall(data)
        return len(data)


class Broadcast:
    """Shows the same pictures to everybody who asks, from the beginning, until `die`; a context manager."""

    def __init__(self, name: str, pictures: Sequence[Frame], rate: float = RATE) -> None:
        self._name, self._pictures, self._rate = name, pictures, rate
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self._port = int(probe.getsockname()[1])
        self._server: ThreadingHTTPServer | None = None
        self._dead = threading.Event()
        self.sent = 0
        """Frames, to all watchers together."""

    @property
    def address(self) -> str:
        """To watch it."""
        return f"http://{HOST}:{self._port}/{self._name}"

    def __enter__(self) -> Self:
        self.live()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.die()

    def live(self) -> None:
        """Answer, at the same address as before."""
        self._dead = threading.Event()
        broadcast, dead = self, self._dead

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "video/mp2t")
                self.end_headers()
                broadcast.show(self.connection, dead)

            def log_message(self, format: str, *args: Any) -> None:
                """Not to stderr."""

        self._server = ThreadingHTTPServer((HOST, self._port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def die(self) -> None:
        """Hang up on everybody and refuse connections."""
        self._dead.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def show(self, connection: socket.socket, dead: threading.Event) -> None:
        """The pictures, until `dead` or until nobody watches."""
        import av

        height, width = self._pictures[0].shape[:2]
        begin = time.monotonic()
        try:
            with av.open(_Sink(connection), "w", format="mpegts") as container:
                options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "12", "g": str(RATE)}
                stream = container.add_stream("libx264", rate=RATE, options=options)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.codec_context.time_base = Fraction(1, TICKS)
                for number, picture in enumerate(there_and_back(self._pictures)):
                    if dead.wait(max(0.0, begin + number / self._rate - time.monotonic())):
                        return
                    frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
                    frame.pts, frame.time_base = round(number * TICKS / self._rate), Fraction(1, TICKS)
                    container.mux(stream.encode(frame))
                    self.sent += 1
        except (OSError, av.error.FFmpegError):
            return  # the watcher went
