"""Network cameras that send pictures over HTTP one after the other (MJPEG), with bounded memory.

FFmpeg reads such streams too, but believes the length that the server states: a camera that is
broken or hostile makes it take gigabytes.
"""

import http.client
from contextlib import nullcontext
from email.message import Message
from email.parser import BytesHeaderParser
from time import monotonic
from urllib.error import HTTPError, URLError

from edge_ad_runtime.cameras.base import CameraSettings, CapturedFrame, FrameSource
from edge_ad_runtime.cameras.wire import Wire
from edge_ad_runtime.errors import CameraError, DataError, FrameError, counted, redact
from edge_ad_runtime.model.picture_file import decode_picture, read_header

_LARGEST_PART_BYTES = 2**26
"""A JPEG of 64 MiB has over 100 megapixels."""

_LONGEST_LINE_BYTES = 2**14
_MOST_HEADER_LINES = 50
_CHUNK_BYTES = 2**16


class MjpegCamera(FrameSource):
    """A camera that answers one HTTP request with an endless row of pictures.

    The answer is `multipart/x-mixed-replace` (RFC 2046, section 5.1, without an end).
    """

    live = True

    def __init__(
        self,
        response: http.client.HTTPResponse,
        *,
        name: str,
        read_timeout: float,
        wire: Wire,
    ) -> None:
        """Take over an answer whose header has been read.

        Args:
            response: the answer.
            name: the camera's address without credentials.
            read_timeout: seconds that one picture may take.
            wire: the connection.
        """
        self.name = name
        self._response = response
        self._read_timeout = read_timeout
        self._wire = wire
        self._buffer = bytearray()
        self._delimiter = b""
        self._next = 0
        self._deadline = 0.0

    def read(self) -> CapturedFrame | None:
        """Wait for the next picture.

        Raises:
            FrameError: this picture cannot be decoded.
            CameraError: the camera no longer delivers pictures, or pictures without bounds.
        """
        self._deadline = monotonic() + self._read_timeout
        # http.client reads what lies between chunks, and for as long as a byte comes now and then.
        chunked = self._response.chunked
        with self._wire.given_up_after(self._read_timeout) if chunked else nullcontext():
            data = self._part()
            while data is None:
                data = self._part()
        number = self._next
        self._next += 1
        try:
            frame = decode_picture(data, self.name)
        except DataError as error:
            raise FrameError(str(error)) from error
        return CapturedFrame(number=number, frame=frame)

    def cancel(self) -> None:
        """End the connection, so that a waiting `read` returns."""
        self._wire.give_up()

    def close(self) -> None:
        """Release the connection."""
        self._wire.close()

    def _part(self) -> bytes | None:
        """Return the content of the next part; None: it is not a picture."""
        self._skip_to_boundary()
        header = self._header()
        length = str(header.get("Content-Length", "")).strip()
        # Python refuses to read numbers of thousands of digits; twenty are absurd enough.
        data = self._exactly(int(length[:20])) if length.isdecimal() else self._up_to_boundary()
        is_picture = "Content-Type" not in header or header.get_content_maintype() == "image"
        return data if is_picture else None

    def _skip_to_boundary(self) -> None:
        """Pass the end of a part, and what a camera with wrong lengths left behind it."""
        passed = 0
        while True:
            line = self._line()
            if self._delimiter:
                if line.startswith(self._delimiter):
                    return
            elif line.startswith(b"--"):
                self._delimiter = line.rstrip()
                return
            passed += len(line)
            if passed > _LARGEST_PART_BYTES:
                raise CameraError(f"the camera {self.name} sends no boundary between its pictures")

    def _header(self) -> Message:
        lines = [self._line()]
        while lines[-1].strip():
            lines.append(self._line())
            if len(lines) > _MOST_HEADER_LINES:
                raise CameraError(f"the camera {self.name} sends a header without an end")
        return BytesHeaderParser().parsebytes(b"".join(lines))

    def _line(self) -> bytes:
        """Return a line with its end; a longer one than any header in pieces."""
        while (end := self._buffer.find(b"\n", 0, _LONGEST_LINE_BYTES)) < 0:
            if len(self._buffer) >= _LONGEST_LINE_BYTES:
                end = _LONGEST_LINE_BYTES - 1
                break
            self._fill()
        return self._cut(end + 1)

    def _exactly(self, length: int) -> bytes:
        if length > _LARGEST_PART_BYTES:
            raise self._too_large(length)
        while len(self._buffer) < length:
            self._fill()
        return self._cut(length)

    def _up_to_boundary(self) -> bytes:
        """Return a picture without a stated length, as soon as it is complete.

        The next boundary may come with the next picture only, seconds later.
        """
        searched = 0
        while (end := self._buffer.find(b"\n" + self._delimiter, searched)) < 0:
            if self._buffer[-8:].rstrip().endswith(b"\xff\xd9"):
                header = read_header(bytes(self._buffer))
                if header is not None and header.complete:
                    end = len(self._buffer) - 1
                    break
            searched = max(0, len(self._buffer) - len(self._delimiter))
            if len(self._buffer) > _LARGEST_PART_BYTES:
                raise self._too_large(len(self._buffer))
            self._fill()
        return self._cut(end + 1)

    def _cut(self, length: int) -> bytes:
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data

    def _fill(self) -> None:
        cause: Exception | None = None
        data, reason = b"", "it ended the connection"
        if monotonic() <= self._deadline:
            try:
                data = self._response.read1(_CHUNK_BYTES)
            except (OSError, http.client.HTTPException, ValueError) as error:
                cause, reason = error, f"{error or type(error).__name__}"
        if not data:
            if monotonic() > self._deadline:
                reason = f"it sent no whole picture within {self._read_timeout:g} s"
            raise self._stopped(reason) from cause
        self._buffer += data

    def _stopped(self, reason: str) -> CameraError:
        return CameraError(
            f"the camera {self.name} stopped after {counted(self._next, 'frame')} ({reason}): "
            "check its power and network"
        )

    def _too_large(self, length: int) -> CameraError:
        return CameraError(
            f"the camera {self.name} announces a picture of {length / 2**20:.0f} MiB, more than "
            f"{_LARGEST_PART_BYTES // 2**20} MiB: check that this is a camera"
        )


def open_mjpeg(url: str, settings: CameraSettings) -> MjpegCamera | None:
    """Open a camera by its HTTP address; None: it sends no MJPEG but, perhaps, a video.

    User and password in the URL are used for Basic and Digest authentication. Certificates are not
    checked, as FFmpeg does not: cameras sign their own.

    Raises:
        CameraError: it does not answer in time, refuses, or sends single pictures.
    """
    name = redact(url)
    wire = Wire()
    try:
        # A timeout of the socket is for each byte; this one is for the whole answer.
        with wire.given_up_after(settings.open_timeout):
            response = wire.get(url, settings.open_timeout)
    except HTTPError as error:
        wire.close()
        error.close()
        raise CameraError(
            f"cannot open the camera {name}: it answered with the status {error.code}, "
            "check address, user and password"
        ) from None
    except (URLError, OSError, http.client.HTTPException, ValueError, LookupError):
        # LookupError: urllib cannot read how the camera asks for a password.
        wire.close()
        raise CameraError(
            f"cannot open the camera {name}: it did not answer with a video within "
            f"{settings.open_timeout:g} s, check address, network, user and password"
        ) from None  # the cause may name a part of the address that is a password
    kind = response.headers.get_content_maintype()
    if kind == "multipart":
        wire.set_timeout(settings.read_timeout)
        return MjpegCamera(response, name=name, read_timeout=settings.read_timeout, wire=wire)
    wire.close()
    if kind == "image":
        raise CameraError(
            f"the camera {name} sends a single picture ({response.headers.get_content_type()}): "
            "use the address of its MJPEG or RTSP stream"
        )
    return None
