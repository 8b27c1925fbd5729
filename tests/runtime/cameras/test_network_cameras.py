"""End to end over sockets: an RTSP server that dies and comes back, MJPEG over HTTP."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_ad_runtime import CapturedFrame, Result
from edge_ad_runtime.events import Event
from edge_ad_runtime.stream.config import parse_config
from edge_ad_runtime.stream.stream import Stream
from tests.conftest import free_port

WriteVideo = Callable[[str, Sequence[int]], Path]

needs_vlc = pytest.mark.skipif(
    shutil.which("cvlc") is None, reason="no cvlc: apt-get install vlc-bin vlc-plugin-base"
)


class Recorder:
    """An output that remembers, and wakes whoever waits."""

    def __init__(self) -> None:
        self.verdicts: list[tuple[str, int, float]] = []
        self.events: list[Event] = []
        self._changed = threading.Condition()

    def write(self, captured: CapturedFrame, result: Result) -> None:
        with self._changed:
            self.verdicts.append((captured.camera, captured.number, result.score))
            self._changed.notify_all()

    def event(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait(self, what: Callable[[], object], seconds: float = 60) -> None:
        with self._changed:
            assert self._changed.wait_for(what, seconds), (self.events, self.verdicts[-3:])

    def kinds(self, camera: str) -> list[str]:
        return [event.kind for event in self.events if event.camera == camera]


def start_rtsp(video: Path, port: int) -> subprocess.Popen[bytes]:
    target = f"#rtp{{sdp=rtsp://127.0.0.1:{port}/parts}}"
    # VLC refuses to run as root; the user changes nothing else.
    command = ["cvlc", "--quiet", "--loop", str(video), "--sout", target, "--sout-keep"]
    user = "nobody" if os.geteuid() == 0 else None
    return subprocess.Popen(
        command,
        user=user,
        env={**os.environ, "HOME": "/tmp"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_port(port: int) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the RTSP server does not listen")


@pytest.fixture
def readable_video(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A video that the user of the RTSP server may read."""
    folder = Path("/tmp") / f"edge-ad-test-{os.getpid()}"
    folder.mkdir(mode=0o755, exist_ok=True)
    path = folder / "parts.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (160, 96))
    rng = np.random.default_rng(0)
    for _ in range(100):
        writer.write(rng.integers(0, 255, (96, 160, 3), dtype=np.uint8))
    writer.release()
    yield path
    shutil.rmtree(folder)


@needs_vlc
@pytest.mark.slow
def test_an_rtsp_server_that_is_killed_and_restarted(
    model: Path, readable_video: Path, write_video: WriteVideo
) -> None:
    port = free_port()
    still_there = write_video("other.avi", [10, 20] * 20_00)
    server = start_rtsp(readable_video, port)
    recorder, stop = Recorder(), threading.Event()
    try:
        wait_port(port)
        time.sleep(1)
        stream = Stream(
            parse_config(
                {
                    "model": str(model),
                    "stall_timeout": 2,
                    "first_delay": 0.2,
                    "longest_delay": 1,
                    "camera": [
                        {
                            "name": "left",
                            "source": f"rtsp://127.0.0.1:{port}/parts",
                            "read_timeout": 2,
                        },
                        {"name": "file", "source": str(still_there)},
                    ],
                }
            )
        )
        stream.delivery.add(recorder)
        running = threading.Thread(target=stream.run, args=(stop,))
        running.start()
        recorder.wait(lambda: sum(camera == "left" for camera, _, _ in recorder.verdicts) > 5)
        server.kill()
        server.wait()
        killed = time.monotonic()
        recorder.wait(lambda: "camera lost" in recorder.kinds("left"))
        assert time.monotonic() - killed < 25  # FFmpeg's own timeout is 30 s
        server = start_rtsp(readable_video, port)
        recorder.wait(lambda: "camera back" in recorder.kinds("left"))
        seen = len(recorder.verdicts)
        recorder.wait(lambda: any(item[0] == "left" for item in recorder.verdicts[seen:]))
    finally:
        stop.set()
        server.kill()
        server.wait()
    running.join(60)
    numbers = [number for camera, number, _ in recorder.verdicts if camera == "left"]
    assert numbers == sorted(set(numbers)), "numbers go on behind the outage"
    files = [number for camera, number, _ in recorder.verdicts if camera == "file"]
    assert files == list(range(len(files))), "the other source lost nothing"


class Mjpeg(BaseHTTPRequestHandler):
    """A camera that sends ten pictures and hangs up, then ten more at the next call..."""

    rng = np.random.default_rng(0)

    def do_GET(self) -> None:
        if "Authorization" not in self.headers:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            for _ in range(10):
                frame = self.rng.integers(0, 255, (96, 160, 3), dtype=np.uint8)
                _, data = cv2.imencode(".jpg", frame)
                head = (
                    f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {data.nbytes}\r\n\r\n"
                )
                self.wfile.write(head.encode() + data.tobytes() + b"\r\n")
                time.sleep(0.05)
        except OSError:
            return

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def mjpeg() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mjpeg)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def test_mjpeg_over_http_with_credentials(
    model: Path, mjpeg: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EDGE_AD_CAMERA_USER", "line")
    monkeypatch.setenv("EDGE_AD_CAMERA_PASSWORD", "s3cret/@")
    recorder, stop = Recorder(), threading.Event()
    source = f"http://127.0.0.1:{mjpeg}/video"
    config = {"model": str(model), "first_delay": 0.1, "camera": [{"source": source}]}
    stream = Stream(parse_config(config))
    stream.delivery.add(recorder)
    running = threading.Thread(target=stream.run, args=(stop,))
    running.start()
    try:
        recorder.wait(lambda: "camera back" in recorder.kinds(source))
        recorder.wait(lambda: recorder.verdicts and recorder.verdicts[-1][1] > 10)
    finally:
        stop.set()
        running.join(60)
    assert recorder.kinds(source)[:2] == ["camera lost", "camera back"]
    assert "s3cret" not in caplog.text


class SlowCamera:
    """Sends a picture now and then to whoever is connected at the time."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._ticked = threading.Condition()
        self._sent = 0
        self._data = b""
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    camera._serve(self)
                except OSError:
                    return

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def send(self) -> None:
        frame = self._rng.integers(0, 255, (96, 160, 3), dtype=np.uint8)
        with self._ticked:
            self._data = cv2.imencode(".jpg", frame)[1].tobytes()
            self._sent += 1
            self._ticked.notify_all()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        seen = self._sent
        while True:
            with self._ticked:
                if not self._ticked.wait_for(lambda seen=seen: self._sent > seen, 30):  # type: ignore[misc]
                    return
                seen, data = self._sent, self._data
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            handler.wfile.write(head.encode() + data + b"\r\n")


@pytest.mark.slow
def test_a_camera_slower_than_the_stall_timeout(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    camera = SlowCamera()
    recorder, stop = Recorder(), threading.Event()
    source = f"http://127.0.0.1:{camera.server.server_address[1]}/video"
    config = {
        "model": str(model),
        "stall_timeout": 1.0,
        "first_delay": 0.05,
        "camera": [{"name": "slow", "source": source}],
    }
    stream = Stream(parse_config(config))
    stream.delivery.add(recorder)
    running = threading.Thread(target=stream.run, args=(stop,))
    running.start()
    stood_still = 0
    try:
        for _ in range(40):
            camera.send()
            before = time.monotonic()
            stop.wait(2.0)
            stood_still += time.monotonic() - before > 3.0
            if len(recorder.verdicts) >= 12:
                break
    finally:
        stop.set()
        running.join(60)
        camera.server.shutdown()
        camera.server.server_close()
    assert len(recorder.verdicts) >= 12
    assert recorder.kinds("slow").count("camera lost") <= 6 + stood_still
    assert "while stall_timeout is 1 s" in caplog.text


def test_one_dead_camera_of_two_is_lost_from_the_start(model: Path, pictures: Path) -> None:
    recorder, stop = Recorder(), threading.Event()
    cameras = [
        {"name": "dead", "source": f"http://127.0.0.1:{free_port()}/video"},
        {"name": "file", "source": str(pictures)},
    ]
    stream = Stream(parse_config({"model": str(model), "camera": cameras}))
    stream.delivery.add(recorder)
    running = threading.Thread(target=stream.run, args=(stop,))
    running.start()
    try:
        recorder.wait(lambda: len(recorder.verdicts) == 5)
    finally:
        stop.set()
        running.join(60)
    assert recorder.kinds("dead") == ["camera lost"]
