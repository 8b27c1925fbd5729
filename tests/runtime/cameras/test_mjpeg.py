"""MJPEG over HTTP: what cameras really send, and what a broken or hostile one may send. Sockets."""

import hashlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_ad_runtime import CameraError, FrameError, FrameSource, open_source
from edge_ad_runtime.cameras import CameraSettings
from edge_ad_runtime.cameras.mjpeg import MjpegCamera

Serve = Callable[..., str]
WriteVideo = Callable[[str, Sequence[int]], Path]


def jpeg(value: int, size: tuple[int, int] = (48, 96)) -> bytes:
    return cv2.imencode(".jpg", np.full((*size, 3), value, np.uint8))[1].tobytes()


def part(data: bytes, length: int | None = None, kind: str = "image/jpeg") -> bytes:
    header = f"--frame\r\nContent-Type: {kind}\r\n"
    if length is not None:
        header += f"Content-Length: {length}\r\n"
    return header.encode() + b"\r\n" + data + b"\r\n"


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve an answer, given as pieces or as a function of the handler; returns the address."""
    servers = []

    def start(
        pieces: Sequence[bytes] | Callable[[BaseHTTPRequestHandler], None],
        kind: str = "multipart/x-mixed-replace; boundary=frame",
        status: int = 200,
        chunked: bool = False,
    ) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.close_connection = True
                try:
                    if callable(pieces):
                        pieces(self)
                        return
                    self.send_response(status)
                    self.send_header("Content-Type", kind)
                    if chunked:
                        self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    for piece in pieces:
                        head, tail = (
                            (f"{len(piece):x}\r\n".encode(), b"\r\n") if chunked else (b"", b"")
                        )
                        self.wfile.write(head + piece + tail)
                except OSError:
                    return

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/video"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def values(source: FrameSource, count: int) -> list[int | str]:
    """Grey values of frames; the error in place of a lost one."""
    found: list[int | str] = []
    for _ in range(count):
        try:
            captured = source.read()
        except FrameError as error:
            found.append(str(error))
        else:
            assert captured is not None
            assert captured.frame.shape == (48, 96, 3)
            found.append(round(float(captured.frame.mean())))
    return found


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda data: part(data, len(data)),
        lambda data: part(data),
        lambda data: part(data, len(data) - 9),
        lambda data: part(data, len(data)).replace(b"\r\n", b"\n"),
        lambda data: part(b"temperature", 11, "text/plain") + part(data, len(data)),
        lambda data: (
            b"--frame\r\ncontent-length: " + str(len(data)).encode() + b"\r\n\r\n" + data + b"\r\n"
        ),
        lambda data: part(data, len(data)).replace(b"--frame", b"----frame--x"),
    ],
    ids=[
        "length",
        "no length",
        "short length",
        "line feeds",
        "text between",
        "no type",
        "boundary",
    ],
)
def test_what_cameras_send(
    serve: Serve, make: Callable[[bytes], bytes], chunked: bool, request: pytest.FixtureRequest
) -> None:
    address = serve([make(jpeg(value)) for value in (10, 20, 30)], chunked=chunked)
    with open_source(address) as source:
        assert isinstance(source, MjpegCamera) and source.live
        if "short length" in request.node.name:
            assert all("cut off" in str(lost) for lost in values(source, 3))
        else:
            assert values(source, 3) == [10, 20, 30]
        with pytest.raises(CameraError, match="stopped after 3 frames"):
            source.read()


def test_a_damaged_picture_is_one_lost_frame(serve: Serve) -> None:
    wrong = b"\xff\xd8 no picture \xff\xd9"
    address = serve([part(jpeg(10)), part(wrong, len(wrong)), part(jpeg(30))])
    with open_source(address) as source:
        first, lost, last = values(source, 3)
    assert (first, last) == (10, 30) and "not a readable picture" in str(lost)


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([part(b"x" * 1000, 2_000_000_000)], "announces a picture of 1907 MiB"),
        (
            [b"--frame\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n"],
            "announces a picture|header",
        ),
        ([b"--frame\r\n", *[b"X-Filler: 1\r\n"] * 100], "header without an end"),
        ([b"x" * 2**20] * 70, "no boundary"),
        ([b"--frame\r\n\r\n", *[b"x" * 2**20] * 70], "announces a picture of 6. MiB"),
        ([part(jpeg(10), -5)[:30]], "stopped after 0 frames"),
    ],
    ids=["length", "absurd length", "header", "no boundary", "no length", "cut off"],
)
def test_an_answer_without_bounds_is_refused(
    serve: Serve, pieces: Sequence[bytes], message: str
) -> None:
    with open_source(serve(pieces)) as source, pytest.raises(CameraError, match=message):
        source.read()


def test_a_bomb_in_a_part_is_one_lost_frame(serve: Serve) -> None:
    data = bytearray(jpeg(10))
    header = data.index(b"\xff\xc0")
    data[header + 5 : header + 9] = b"\xff\xdc\xff\xdc"
    with open_source(serve([part(bytes(data), len(data)), part(jpeg(20))])) as source:
        lost, after = values(source, 2)
    assert "decode to more than 512 MiB" in str(lost) and after == 20


MEASURE = """
import resource, sys
from edge_ad_runtime import CameraError, open_source
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    with open_source(sys.argv[1]) as source:
        source.read()
except CameraError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, str(error))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB on Linux")
@pytest.mark.parametrize(
    "kind",
    ["multipart/x-mixed-replace; boundary=frame", "image/jpeg", "application/octet-stream"],
)
@pytest.mark.parametrize("stated", ["part", "whole"])
def test_a_length_of_two_gigabytes_takes_no_memory(serve: Serve, kind: str, stated: str) -> None:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        if stated == "whole":
            handler.send_header("Content-Length", "2000000000")
        handler.end_headers()
        handler.wfile.write(part(jpeg(10)[:-2], 2_000_000_000 if stated == "part" else None)[:-2])
        for _ in range(700):
            handler.wfile.write(bytes(2**20))

    output = subprocess.run(
        [sys.executable, "-c", MEASURE, serve(send)], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    assert int(output.split()[0]) < 250_000, output


def test_credentials_by_digest(serve: Serve) -> None:
    def digest(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        given = handler.headers.get("Authorization", "")
        found = dict(re.findall(r'(\w+)="?([^",]+)"?', given))
        secret = digest("line:cam:p@ss/1")
        wanted = f"{secret}:{found.get('nonce')}:{found.get('nc')}:{found.get('cnonce')}:auth:"
        if found.get("response") != digest(wanted + digest("GET:/video")):
            handler.send_response(401)
            challenge = 'Digest realm="cam", nonce="abc", qop="auth", algorithm=MD5'
            handler.send_header("WWW-Authenticate", challenge)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        handler.wfile.write(part(jpeg(10)))

    address = serve(answer)
    with open_source(address.replace("//", "//line:p%40ss%2F1@")) as source:
        assert values(source, 1) == [10]
        assert "line" not in source.name
    for wrong in (address, address.replace("//", "//line:Zq7@")):
        with pytest.raises(CameraError, match="answered with the status 401") as caught:
            open_source(wrong)
        assert "Zq7" not in str(caught.value)


def test_what_is_no_stream_is_refused(serve: Serve) -> None:
    with pytest.raises(CameraError, match="answered with the status 404"):
        open_source(serve([], status=404))
    with pytest.raises(CameraError, match="single picture"):
        open_source(serve([jpeg(10)], kind="image/jpeg"))


@pytest.mark.parametrize("name", ["parts.avi", "parts.mp4"])
def test_a_video_over_http_is_read_by_ffmpeg(
    serve: Serve, write_video: WriteVideo, name: str
) -> None:
    data = write_video(name, [10, 20, 30]).read_bytes()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        start = int(re.findall(r"\d+", handler.headers.get("Range", "bytes=0-"))[0])
        handler.send_response(206)
        handler.send_header("Content-Type", "video/x-msvideo")
        handler.send_header("Accept-Ranges", "bytes")
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        handler.wfile.write(data[start:])

    with open_source(serve(answer)) as source:
        assert not isinstance(source, MjpegCamera)
        np.testing.assert_allclose(np.array(values(source, 3), float), [10, 20, 30], atol=4)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl for a certificate")
def test_a_certificate_that_the_camera_has_signed_itself(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=camera"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            self.wfile.write(part(jpeg(10)))

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with open_source(f"https://127.0.0.1:{server.server_address[1]}/video") as source:
            assert values(source, 1) == [10]
        server.shutdown()
        thread.join()


def dripping(before: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(before)
        for _ in range(1200):
            handler.wfile.write(b"x")
            time.sleep(0.1)

    return send


def test_one_byte_now_and_then_is_no_answer(serve: Serve) -> None:
    started = time.monotonic()
    with pytest.raises(CameraError, match="within 1 s"):
        open_source(serve(dripping(b"HTTP/1.1 200 OK\r\nX-")), CameraSettings(open_timeout=1))
    header = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace\r\n\r\n--frame\r\n\r\n"
    address = serve(dripping(header))
    with open_source(address, CameraSettings(read_timeout=1)) as source:
        with pytest.raises(CameraError, match="no whole picture within 1 s"):
            source.read()
    assert time.monotonic() - started < 60, "the bytes go on for two minutes"


@pytest.mark.parametrize(
    "start",
    [b"", b"5;", b"0\r\nX: "],
    ids=["length of a chunk", "extension of a chunk", "trailer behind the last chunk"],
)
def test_one_byte_now_and_then_between_chunks_is_no_picture(serve: Serve, start: bytes) -> None:
    """http.client reads them, and every byte would begin its timeout again."""
    header = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace\r\n"
    address = serve(dripping(header + b"Transfer-Encoding: chunked\r\n\r\n" + start))
    with open_source(address, CameraSettings(read_timeout=0.5)) as source:
        with pytest.raises(CameraError, match="no whole picture within"):
            source.read()


def test_a_redirect_leads_to_nothing_but_http(serve: Serve) -> None:
    """An FTP server that answers one byte now and then held the camera for hours."""
    ftp = socket.create_server(("127.0.0.1", 0))

    def lead_away(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", f"ftp://127.0.0.1:{ftp.getsockname()[1]}/video")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with pytest.raises(CameraError, match="answered with the status 302"):
        open_source(serve(lead_away))
    ftp.setblocking(False)
    with pytest.raises(BlockingIOError):
        ftp.accept()
    ftp.close()


@pytest.mark.parametrize("challenge", ["Digest a=", "Digest ,,=,", "Digest", 'Digest realm="', "x"])
def test_an_odd_way_to_ask_for_a_password_is_a_sentence(serve: Serve, challenge: str) -> None:
    def ask(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(401)
        handler.send_header("WWW-Authenticate", challenge)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with pytest.raises(CameraError, match="user and password"):
        open_source(serve(ask).replace("//", "//me:Zq7@"))


def test_cancel_ends_a_silent_connection(serve: Serve) -> None:
    release = threading.Event()
    header = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace\r\n\r\n"

    def silent(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(header)
        handler.wfile.flush()
        release.wait(60)

    source = open_source(serve(silent))
    errors = []

    def read() -> None:
        with source, pytest.raises(CameraError, match="stopped after 0 frames") as caught:
            source.read()
        errors.append(caught.value)

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.1)
    source.cancel()
    thread.join(60)
    assert not thread.is_alive() and len(errors) == 1
    release.set()


def test_no_socket_stays_open(serve: Serve) -> None:
    before = {path.name for path in Path("/proc/self/fd").iterdir()}
    address = serve([part(jpeg(10))])
    listening = {path.name for path in Path("/proc/self/fd").iterdir()} - before
    for _ in range(20):
        with open_source(address) as source:
            values(source, 1)
    deadline = time.monotonic() + 60
    while True:  # the server's threads close their ends in their own time
        left = {path.name for path in Path("/proc/self/fd").iterdir()} - before - listening
        if len(left) <= 1 or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert len(left) <= 1  # the folder that is being listed
    assert isinstance(socket.getdefaulttimeout(), type(None))
