"""Sources: what a specification opens, that every frame comes once, and what is refused."""

import re
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_ad_runtime import (
    CameraError,
    ConfigError,
    DataError,
    FakeCamera,
    FrameError,
    FrameSource,
    open_source,
)
from edge_ad_runtime.cameras import CameraSettings, check_source
from edge_ad_runtime.cameras.opencv import Camera

WriteVideo = Callable[[str, Sequence[int]], Path]


def read_all(source: FrameSource) -> list[tuple[int, int]]:
    """Number and mean of every frame."""
    found = []
    with source:
        while (captured := source.read()) is not None:
            found.append((captured.number, round(float(captured.frame.mean()))))
    return found


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", [0, 50, 99, 150, 200]),
        ("/", [0, 50, 99, 150, 200]),
        ("/*.png", [0, 50, 99, 150, 200]),
        ("/0*.png", [0, 50, 99]),
        ("/150.png", [150]),
    ],
)
def test_pictures(pictures: Path, pattern: str, expected: list[int]) -> None:
    source = open_source(f"{pictures}{pattern}")
    assert not source.live
    assert read_all(source) == list(enumerate(expected))


def test_pictures_have_paths_and_times(pictures: Path) -> None:
    captured = open_source(str(pictures)).read()
    assert captured is not None
    assert captured.path == pictures / "000.png"
    assert captured.timestamp.tzinfo is not None


def test_a_corrupt_picture_is_one_lost_frame(pictures: Path) -> None:
    (pictures / "050.png").write_bytes(b"not a picture")
    source = open_source(str(pictures))
    numbers: list[int | str] = []
    for _ in range(5):
        try:
            captured = source.read()
        except FrameError as error:
            assert "050.png" in str(error)
            numbers.append("lost")
        else:
            assert captured is not None
            numbers.append(captured.number)
    assert numbers == [0, "lost", 2, 3, 4]
    assert source.read() is None


@pytest.mark.parametrize("name", ["parts.avi", "parts.mp4"])
def test_videos(write_video: WriteVideo, name: str) -> None:
    values = list(range(0, 240, 4))
    source = open_source(str(write_video(name, values)))
    assert not source.live
    found = read_all(source)
    assert [number for number, _ in found] == list(range(60))
    np.testing.assert_allclose([mean for _, mean in found], values, atol=4)


def test_a_video_with_damaged_frames_goes_on_behind_them(write_video: WriteVideo) -> None:
    path = write_video("parts.avi", [50] * 40)
    data = bytearray(path.read_bytes())
    headers = [match.start() for match in re.finditer(b"\xff\xc0", data)]
    for number in (0, 10, 11, 20):
        size = headers[number] + 5
        data[size : size + 4] = bytes(4)  # a JPEG of no pixels
    path.write_bytes(data)
    source = open_source(str(path))
    numbers, errors = [], []
    with source:
        while True:
            try:
                captured = source.read()
            except FrameError as error:
                errors.append(str(error))
                continue
            if captured is None:
                break
            numbers.append(captured.number)
    assert numbers == sorted({*range(40)} - {0, 10, 11, 20})
    assert [error.split(" of the video")[0] for error in errors] == [
        "1 frame",
        "2 frames",
        "1 frame",
    ]


def test_a_video_that_is_cut_off(write_video: WriteVideo) -> None:
    path = write_video("parts.avi", [50] * 40)
    path.write_bytes(path.read_bytes()[:-4000])
    source = open_source(str(path))
    seen = 0
    with source, pytest.raises(FrameError, match=f"{path} announces 40 frames, only"):
        while source.read() is not None:
            seen += 1
    assert 0 < seen < 40
    assert source.read() is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("missing", "found nothing at 'missing'"),
        ("missing/*.png", "no pictures"),
        ("empty", "no pictures"),
        ("text.txt", "neither a picture nor a video"),
    ],
)
def test_refuses_paths(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    spec: str,
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        open_source(spec)
    assert capfd.readouterr() == ("", "")


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    "spec",
    ["99", "/dev/video99", "rtsp://admin:s3cret@127.0.0.1:{port}/a", "http://127.0.0.1:{port}/a"],
)
def test_refuses_cameras(spec: str) -> None:
    with pytest.raises(CameraError, match="cannot open the camera") as caught:
        open_source(spec.format(port=closed_port()))
    message = str(caught.value)
    assert "s3cret" not in message and "admin" not in message and "\n" not in message


@pytest.mark.parametrize("spec", ["concat://a|b", "rtsp:/host/a", "htps://host", "rtsp:\\\\host"])
def test_refuses_schemes(spec: str) -> None:
    with pytest.raises(CameraError, match="expected a URL such as rtsp"):
        open_source(spec)


@pytest.mark.parametrize("spec", ["99999999999", "10000", "9" * 5000, "", " ", "a\0b", "x" * 5000])
def test_refuses_without_opening(spec: str) -> None:
    for refuse in (check_source, open_source):
        with pytest.raises(ConfigError, match="expected a camera index") as caught:
            refuse(spec)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"height": 70_000},
        {"fps": 0.0},
        {"fps": float("nan")},
        {"exposure": float("inf")},
        {"open_timeout": 1e10},
        {"read_timeout": 1e10},
        {"fourcc": "MJPEG"},
        {"fourcc": "M\0PG"},
    ],
)
def test_refuses_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"expected {next(iter(wrong))}"):
        CameraSettings(**wrong)


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        started = time.monotonic()
        with pytest.raises(CameraError, match="within 5 s"):
            open_source(f"rtsp://127.0.0.1:{server.getsockname()[1]}/a")
        assert time.monotonic() - started < 28  # OpenCV's own timeout is 30 s


class Compressed:
    """A capture that was joined in the middle of a stream."""

    def __init__(self, types: str) -> None:
        self._types = iter(types)
        self._type = ""

    def read(self) -> tuple[bool, Any]:
        self._type = next(self._types, "")
        return bool(self._type), np.zeros((4, 4, 3), np.uint8)

    def get(self, key: int) -> float:
        return float(ord(self._type)) if key == cv2.CAP_PROP_FRAME_TYPE else 0.0

    def release(self) -> None:
        pass


@pytest.mark.parametrize(
    ("types", "timeout", "left"),
    [("PBPIPPBI", 60, 5), ("IPP", 60, 3), ("???", 60, 3), ("PPP", 0, 3), ("PPP", 1e-9, 3)],
)
def test_frames_that_build_on_nothing_are_passed_over(
    types: str, timeout: float, left: int
) -> None:
    capture: Any = Compressed(types)
    camera = Camera(capture, name="joined", key_frame_timeout=timeout)
    numbers = []
    with pytest.raises(CameraError, match="stopped"):
        while (captured := camera.read()) is not None:
            numbers.append(captured.number)
    assert numbers == list(range(left))


def test_fake_camera() -> None:
    moment = datetime(2026, 1, 2, tzinfo=timezone.utc)
    frame = np.zeros((4, 4, 3), np.uint8)
    camera = FakeCamera([frame, CameraError("unplugged")], now=lambda: moment)
    captured = camera.read()
    assert captured is not None
    assert (captured.number, captured.timestamp, captured.frame is frame) == (0, moment, True)
    with pytest.raises(CameraError, match="unplugged"):
        camera.read()
    assert camera.read() is None


def test_grey_pictures_and_hidden_files(tmp_path: Path, pictures: Path) -> None:
    shutil.copy(pictures / "000.png", pictures / ".hidden.png")
    cv2.imwrite(str(pictures / "grey.png"), np.full((5, 6), 7, np.uint8))
    assert [mean for _, mean in read_all(open_source(str(pictures)))][-1] == 7
    assert len(read_all(open_source(str(pictures)))) == 6


def test_a_folder_of_another_kind_of_pictures_says_what_to_do(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.heic").write_bytes(b"")
    with pytest.raises(DataError, match=r"only 2 \.heic files: convert .* to PNG or JPEG"):
        open_source(str(tmp_path))


def test_a_source_may_be_a_path_or_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(
        "edge_ad_runtime.cameras.open_device", lambda device, settings: opened.append(device)
    )
    open_source(0)
    assert opened == [0]
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    with open_source(tmp_path) as source:
        assert source.name == str(tmp_path)
