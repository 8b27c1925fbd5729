"""What the tools look at: a video file, and an HTTP camera that can be switched off."""

import itertools
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np

VIDEO_FRAMES = 1000
VIDEO_SIZE = (512, 512)
FRAME_INTERVAL_S = 0.05


class MjpegCamera:
    """An HTTP camera on this machine that can be switched off and on again."""

    def __init__(self) -> None:
        """Start on a free port."""
        self.connected = threading.Event()
        self._on = threading.Event()
        self._on.set()
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        picture = cv2.resize(noise, VIDEO_SIZE, interpolation=cv2.INTER_CUBIC)
        # It moves: the same frame again and again is a broken camera, which edge-ad reports.
        moving = (np.roll(picture, 8 * index, axis=1) for index in range(VIDEO_SIZE[0] // 8))
        self._jpegs = [cv2.imencode(".jpg", frame)[1].tobytes() for frame in moving]
        self._server = self._serve(0)
        self._port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self._port}/video.mjpg"

    def go_away(self) -> None:
        """Close all connections and the port."""
        self._on.clear()
        self._server.shutdown()
        self._server.server_close()

    def come_back(self) -> None:
        """Listen on the same port again."""
        self._on.set()
        self._server = self._serve(self._port)

    def __enter__(self) -> "MjpegCamera":
        """It runs already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Switch it off."""
        self.go_away()

    def _serve(self, port: int) -> ThreadingHTTPServer:
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                camera.connected.set()
                try:
                    for jpeg in itertools.cycle(camera._jpegs):
                        if not camera._on.is_set():
                            return
                        length = f"Content-Length: {len(jpeg)}\r\n\r\n"
                        head = f"--frame\r\nContent-Type: image/jpeg\r\n{length}"
                        self.wfile.write(head.encode() + jpeg + b"\r\n")
                        time.sleep(FRAME_INTERVAL_S)
                except (BrokenPipeError, ConnectionResetError):
                    return

            def log_message(self, *_: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


def write_video(path: Path) -> None:
    """Write a moving, noisy scene."""
    width, height = VIDEO_SIZE
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(120, 60, (height, 2 * width, 3)), (0, 0), 3)
    scene = np.clip(noise, 0, 255).astype(np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, VIDEO_SIZE)
    for index in range(VIDEO_FRAMES):
        offset = index % width
        writer.write(np.ascontiguousarray(scene[:, offset : offset + width]))
    writer.release()
