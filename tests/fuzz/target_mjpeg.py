"""MJPEG streams over HTTP: pictures, boundaries and lengths that are wrong in any way."""

import io
import random
from collections.abc import Sequence
from http.client import HTTPResponse
from pathlib import Path
from typing import cast

import cv2
import numpy as np

from edge_ad_runtime.cameras.mjpeg import MjpegCamera
from edge_ad_runtime.cameras.wire import Wire
from edge_ad_runtime.errors import CameraError, FrameError
from tests.fuzz.harness import Target, mutate_bytes

_LENGTHS = (b"0", b"1", b"-1", b"64", b"99999", b"2000000000", b"9" * 5000, b"1e3", b"", b"0x10")


class Answer(io.BytesIO):
    """Stands for an HTTP answer, of which the camera reads the content."""

    chunked = False


class Fuzz(Target[bytes]):
    """What follows the header of the answer."""

    def seeds(self, folder: Path) -> Sequence[bytes]:
        """Return streams of three pictures, with and without lengths."""
        rng = np.random.default_rng(0)
        found = []
        for stated in (True, False):
            stream = b""
            for _ in range(3):
                frame = rng.integers(0, 255, (16, 24, 3), dtype=np.uint8)
                data = cv2.imencode(".jpg", frame)[1].tobytes()
                length = f"Content-Length: {len(data)}\r\n" if stated else ""
                head = f"--frame\r\nContent-Type: image/jpeg\r\n{length}\r\n"
                stream += head.encode() + data + b"\r\n"
            found.append(stream)
        return found

    def mutate(self, rng: random.Random, seed: bytes) -> bytes:
        """Change any bytes, or state another length."""
        if rng.random() < 0.7:
            return mutate_bytes(rng, seed)
        head, found, tail = seed.partition(b"Content-Length: ")
        if not found:
            return seed.replace(b"--frame", rng.choice((b"--", b"--frame--", b"", b"frame")))
        return head + found + rng.choice(_LENGTHS) + tail[tail.index(b"\r") :]

    def run(self, data: bytes, folder: Path) -> None:
        """Read to the end."""
        answer = cast(HTTPResponse, Answer(data))
        with MjpegCamera(answer, name="camera", read_timeout=5.0, wire=Wire()) as camera:
            for _ in range(data.count(b"--") + 1):  # a boundary before each picture
                try:
                    camera.read()
                except FrameError:
                    continue
                except CameraError:
                    return
        raise AssertionError("the stream gave more pictures than it has boundaries")
