"""Little videos whose frame k has the brightness `shade(k)`, made with PyAV, and servers that send them."""

import socket
import threading
from contextlib import contextmanager, suppress
from fractions import Fraction

import av
import numpy as np

SIZE = (64, 48)


def shade(number):
    """Brightness of a frame; neighbours differ by more than a codec changes them."""
    return 20 + number * 10 % 200


def shades(images):
    """Nearest frame numbers modulo 20, from the brightness of the lower half."""
    return [round((float(image[image.shape[0] * 3 // 4 :].mean()) - 20) / 10) % 20 for image in images]


def write_video(path, frames=48, fps=24, codec="libx264", times=None, time_base=None, rotation=None, **options):
    """`times`: of the frames, in `time_base`; every 12th frame is a keyframe. The upper left quarter is inverted."""
    settings = {"g": "12", "bf": "2"} if codec == "libx264" else {"g": "12", "bf": "2", "qmax": "1", "qmin": "1"}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=fps, options=settings)
        (stream.width, stream.height), stream.pix_fmt = SIZE, "yuv420p"
        if time_base:
            stream.codec_context.time_base = time_base
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(_drawn(number), format="bgr24")
            frame.pts = times[number] if times else number
            frame.time_base = time_base or Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _drawn(number):
    image = np.full((SIZE[1], SIZE[0], 3), shade(number), np.uint8)
    image[: SIZE[1] // 2, : SIZE[0] // 2] = 255 - shade(number)
    return image


@contextmanager
def server(handle, port=0):
    """Calls `handle(connection, dying)` in a thread for each client; closes all connections when it is left."""
    listener = socket.create_server(("127.0.0.1", port))
    connections, dying = [], threading.Event()

    def serve(connection):
        with suppress(OSError), connection:
            handle(connection, dying)

    def listen():
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    listening = threading.Thread(target=listen, daemon=True)
    listening.start()
    try:
        yield listener.getsockname()[1]
    finally:
        dying.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        listening.join()
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def mjpeg_camera(pictures):
    """HTTP without an end: JPEG files one after the other, again and again."""

    def handle(connection, dying):
        connection.recv(4096)
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
        while not dying.is_set():
            for picture in pictures:
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)
                connection.sendall(head + picture + b"\r\n")
                dying.wait(0.01)

    return handle


def rtsp_camera(transport_stream):
    """RTSP through TCP: MPEG-TS packets in RTP, again and again; the continuity of the clock is not kept."""
    sdp = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track1\r\n"

    def answer(connection, request, extra=b"", body=b""):
        number = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"cseq"))
        connection.sendall(b"RTSP/1.0 200 OK\r\n" + number + b"\r\n" + extra + b"\r\n" + body)

    def handle(connection, dying):
        while request := connection.recv(4096):
            method = request.split(b" ")[0]
            if method == b"DESCRIBE":
                answer(connection, request, b"Content-Type: application/sdp\r\nContent-Length: %d\r\n" % len(sdp), sdp)
            elif method == b"SETUP":
                answer(connection, request, b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n")
            else:
                answer(connection, request, b"Session: 1\r\n")
            if method == b"PLAY":
                break
        number = 0
        while not dying.is_set():
            for first in range(0, len(transport_stream), 1316):
                payload = transport_stream[first : first + 1316]
                head = bytes([0x80, 33]) + (number & 0xFFFF).to_bytes(2) + (number * 900).to_bytes(4) + bytes(4)
                connection.sendall(b"$\0" + (len(head) + len(payload)).to_bytes(2) + head + payload)
                number += 1
                dying.wait(0.01)

    return handle


class FileServer:
    """HTTP of one file; `handle` for `server`. `left`: so many bytes it gives from then on (None: all), and then it
    closes the connection and takes no other, or is `silent`."""

    def __init__(self, data):
        self.data, self.left, self.silent = data, None, False

    def handle(self, connection, dying):
        while request := connection.recv(65536):
            ranges = [line for line in request.split(b"\r\n") if line.lower().startswith(b"range: bytes=")]
            start = int(ranges[0].split(b"=")[1].split(b"-")[0]) if ranges else 0
            body = self.data[start:]
            if self.left != 0:
                head = b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\n" % len(body)
                place = b"Content-Range: bytes %d-%d/%d\r\n\r\n" % (start, len(self.data) - 1, len(self.data))
                connection.sendall(head + place)
            part = body[: self.left]
            self.left = None if self.left is None else self.left - len(part)
            connection.sendall(part)
            if len(part) < len(body) or not body:
                if self.silent:
                    dying.wait()
                return
