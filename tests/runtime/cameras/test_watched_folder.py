"""A watched folder: every picture once, whatever else happens to the folder. Real folders."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_ad_runtime import DataError, FrameError, open_source
from edge_ad_runtime.cameras import WatchedFolder, folder


def wait(what: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_watched_folder_takes_complete_pictures_once(tmp_path: Path) -> None:
    def write(name: str, value: int) -> None:
        cv2.imwrite(str(tmp_path / name), np.full((40, 40, 3), value, np.uint8))

    write("old.png", 1)
    found: list[tuple[str, int]] = []
    source = open_source(str(tmp_path), watch=True)
    assert isinstance(source, WatchedFolder) and not source.live
    source._every = 0.05

    def read() -> None:
        while (captured := source.read()) is not None:
            assert captured.path is not None
            found.append((captured.path.name, int(captured.frame.mean())))

    thread = threading.Thread(target=read)
    thread.start()
    write("a.png", 10)
    wait(lambda: len(found) == 1)
    _, data = cv2.imencode(".png", np.full((300, 300, 3), 20, np.uint8))
    with (tmp_path / "slow.png").open("wb", buffering=0) as file:
        for start_at in range(0, data.nbytes, data.nbytes // 8 + 1):
            file.write(data.tobytes()[start_at : start_at + data.nbytes // 8 + 1])
            time.sleep(0.02)
    write(".hidden.tmp.png", 30)
    os.replace(tmp_path / ".hidden.tmp.png", tmp_path / "renamed.png")
    wait(lambda: len(found) == 3)
    source.cancel()
    thread.join(60)
    assert found[0] == ("a.png", 10)
    assert sorted(found[1:]) == [("renamed.png", 30), ("slow.png", 20)]
    with pytest.raises(DataError, match="cannot list the folder"):
        open_source(str(tmp_path / "missing"), watch=True)
    for camera in ("0", "http://127.0.0.1:1/", "/dev/video0"):
        with pytest.raises(DataError, match="expected a folder to watch"):
            open_source(camera, watch=True)


class Watcher:
    """Reads a watched folder in a thread, and remembers the names."""

    def __init__(self, path: Path, *, patience: float = 0.0) -> None:
        self.path = path
        self.names: list[str] = []
        self.errors: list[str] = []
        self.source = WatchedFolder(path, every=0.02, patience=patience)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                captured = self.source.read()
            except FrameError as error:
                self.errors.append(str(error))
                continue
            if captured is None:
                return
            assert captured.path is not None
            self.names.append(captured.path.name)

    def write(self, name: str, value: int = 1) -> None:
        cv2.imwrite(str(self.path / name), np.full((40, 40, 3), value, np.uint8))

    def looks(self) -> None:
        """Let it look a few times; a sentinel that arrives afterwards proves it."""
        name = f"sentinel-{time.monotonic_ns()}.png"
        time.sleep(0.1)
        self.write(name)
        wait(lambda: name in self.names)

    def parts(self) -> list[str]:
        return [name for name in self.names if not name.startswith("sentinel")]

    def close(self) -> None:
        self.source.cancel()
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture
def watcher(tmp_path: Path) -> Iterator[Watcher]:
    path = tmp_path / "share"
    path.mkdir()
    cv2.imwrite(str(path / "old.png"), np.zeros((40, 40, 3), np.uint8))
    found = Watcher(path)
    yield found
    found.close()


def test_a_share_that_looks_empty_for_a_while_has_nothing_judged_again(watcher: Watcher) -> None:
    for name in ("a.png", "b.png"):
        watcher.write(name)
    wait(lambda: len(watcher.names) == 2)
    kept = watcher.path.with_name("kept")
    kept.mkdir()
    for name in ("old.png", "a.png", "b.png"):
        (watcher.path / name).rename(kept / name)
    watcher.looks()
    for name in ("old.png", "a.png", "b.png"):
        (kept / name).rename(watcher.path / name)
    watcher.looks()
    assert sorted(watcher.parts()) == ["a.png", "b.png"]


def test_a_share_that_is_away_for_a_while_has_nothing_judged_again(watcher: Watcher) -> None:
    watcher.write("a.png")
    wait(lambda: watcher.names)
    away = watcher.path.with_name("away")
    watcher.path.rename(away)
    time.sleep(0.1)
    watcher.path.mkdir()  # the empty folder below a mount point
    time.sleep(0.1)
    watcher.path.rmdir()
    away.rename(watcher.path)
    watcher.looks()
    assert watcher.parts() == ["a.png"]


def test_a_picture_that_is_written_again_is_judged_again(watcher: Watcher) -> None:
    watcher.write("a.png")
    wait(lambda: watcher.names)
    (watcher.path / "a.png").unlink()
    watcher.looks()
    watcher.write("a.png", 99)
    watcher.looks()
    assert watcher.parts() == ["a.png", "a.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs links and pipes")
def test_links_pipes_and_folders_blind_nobody(watcher: Watcher, tmp_path: Path) -> None:
    (watcher.path / "self.png").symlink_to("self.png")
    (watcher.path / "gone.png").symlink_to("nowhere")
    (watcher.path / "zero.png").symlink_to("/dev/zero")
    (watcher.path / "folder.png").mkdir()
    os.mkfifo(watcher.path / "pipe.png")
    (tmp_path / "real.png").write_bytes((watcher.path / "old.png").read_bytes())
    (watcher.path / "link.png").symlink_to(tmp_path / "real.png")
    watcher.write("a.png")
    watcher.looks()
    assert sorted(watcher.parts()) == ["a.png", "link.png"] and watcher.errors == []


def test_a_folder_with_a_bad_link_can_be_watched_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "self.png").symlink_to("self.png")
    watcher = Watcher(tmp_path)
    watcher.write("a.png")
    wait(lambda: watcher.names == ["a.png"])
    watcher.close()


def test_a_damaged_picture_is_one_lost_frame(watcher: Watcher) -> None:
    (watcher.path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    watcher.looks()
    watcher.write("a.png")
    watcher.looks()
    assert watcher.parts() == ["a.png"] and len(watcher.errors) == 1


def test_a_copy_that_pauses_is_judged_once_and_fails_only_if_it_never_ends(tmp_path: Path) -> None:
    _, data = cv2.imencode(".png", np.full((40, 40, 3), 9, np.uint8))
    picture = data.tobytes()
    watcher = Watcher(tmp_path, patience=1000.0)
    with (tmp_path / "slow.png").open("wb", buffering=0) as file:
        for part in (b"", picture[:50], picture[50:100], picture[100:]):
            file.write(part)
            watcher.looks()
    (tmp_path / "broken.png").write_bytes(picture[:50])
    watcher.looks()
    assert watcher.parts() == ["slow.png"] and watcher.errors == []
    (tmp_path / "broken.png").unlink()  # it can no longer become complete
    wait(lambda: watcher.errors)
    watcher.close()
    assert len(watcher.errors) == 1 and "broken.png" in watcher.errors[0]


def test_memory_stays_bounded_where_pictures_are_removed(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "_REMEMBERED", 10)
    for number in range(60):
        watcher.write(f"{number:02}.png")
        wait(lambda: len(watcher.names) == number + 1)  # noqa: B023
        (watcher.path / f"{number:02}.png").unlink()
    assert len(watcher.source._done) <= 2 * watcher.source._most + 11
    assert watcher.names == [f"{number:02}.png" for number in range(60)]
