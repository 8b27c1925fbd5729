"""Files that are whole or not there, also where another user can write."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from edge_ad_runtime import CapturedFrame, ModelInfo, OverlayFolder, Result, files
from edge_ad_runtime.errors import ConfigError, DataError, ModelFileError
from edge_ad_runtime.files import (
    folder_name,
    locked,
    make_writable,
    remove_leftovers,
    temporary_folder,
    write_whole,
)
from edge_ad_runtime.model.accepted import AcceptedVersions
from edge_ad_runtime.model.device_calibration import read_calibrations
from edge_ad_runtime.model.location import calibration_path, signature_path
from edge_ad_runtime.model.signature import read_signature
from edge_ad_runtime.outputs.json_file import JsonConfig, JsonFile
from edge_ad_runtime.outputs.pictures import Retention
from edge_ad_runtime.outputs.spool import Spool

MakeVerdict = Callable[..., tuple[CapturedFrame, Result]]

KILLED = """
import os, sys
from pathlib import Path
from edge_ad_runtime import files
files.os.replace = lambda *_: print("writing", flush=True) or sys.stdin.read()
with files.temporary_folder(Path()) as folder:
    (folder / "half").touch()
    files.write_whole(Path("picture.jpg"), b"data")
"""


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="full"):
        write_whole(tmp_path / "a.jpg", b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    for name in (".a.jpg.tmp", "a.jpg", ".edge-ad-0.tmp"):
        (tmp_path / name).symlink_to(victim)
    write_whole(tmp_path / "a.jpg", b"data")
    remove_leftovers(tmp_path)
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "a.jpg").is_symlink()


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], Path]:
    """Make a link as if another user had made it."""

    def plant(name: str, target: Path) -> Path:
        link = tmp_path / name
        link.symlink_to(target)
        if os.geteuid() == 0:
            os.chown(link, 65_534, 65_534, follow_symlinks=False)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        return link

    return plant


def test_a_link_of_another_user_leads_no_output_to_its_target(
    tmp_path: Path, planted: Callable[[str, Path], Path], info: ModelInfo
) -> None:
    victims = tmp_path / "victims"
    victims.mkdir()
    for name in ("verdicts.jsonl", "20200101T000000000000Z-000001.jpg"):
        (victims / name).write_bytes(b"precious")
    lines = planted("verdicts.jsonl", victims / "verdicts.jsonl")
    spool = planted("edge-ad-mqtt.spool", victims / "new.spool")
    pictures = planted("kept", victims)
    with pytest.raises(DataError, match="link that another user has made"):
        JsonFile(JsonConfig(path=lines))
    with pytest.raises(DataError, match="link that another user has made"):
        Spool(spool, limit=5)
    with pytest.raises(DataError, match="link that another user has made"):
        OverlayFolder(pictures, info)
    assert sorted(path.name for path in victims.iterdir()) == [
        "20200101T000000000000Z-000001.jpg",
        "verdicts.jsonl",
    ]
    assert {path.read_bytes() for path in victims.iterdir()} == {b"precious"}


def test_no_picture_behind_a_linked_subfolder_is_deleted(
    tmp_path: Path, planted: Callable[[str, Path], Path], verdict: MakeVerdict, info: ModelInfo
) -> None:
    """Its name is like ours, but it lies in somebody's archive."""
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "20200101T000000000000Z-000001.jpg").write_bytes(b"precious")
    (tmp_path / "kept").mkdir()
    planted("kept/left", archive)
    pictures = OverlayFolder(
        tmp_path / "kept", info, retention=Retention(max_count=1), by_camera=True
    )
    with pytest.raises(OSError, match="another user"):
        pictures.write(*verdict(1))
    pictures.write(*verdict(2, camera="right"))
    pictures.write(*verdict(3, camera="right"))
    assert [path.read_bytes() for path in archive.iterdir()] == [b"precious"]
    assert len(list((tmp_path / "kept/right").iterdir())) == 1


def test_own_links_are_followed_also_when_the_lines_are_rotated(
    tmp_path: Path, verdict: MakeVerdict
) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "verdicts.jsonl"
    link.symlink_to("disk/verdicts.jsonl")
    lines = JsonFile(JsonConfig(path=link, max_mb=0.001))
    for number in range(8):
        lines.write(*verdict(number))
    lines.close()
    assert link.is_symlink() and [path.name for path in tmp_path.iterdir() if path != link] == [
        "disk"
    ]
    assert (tmp_path / "disk/verdicts.jsonl.1").is_file()
    circle = tmp_path / "circle"
    circle.symlink_to("circle")
    with pytest.raises(DataError, match="cannot write the lines to"):
        JsonFile(JsonConfig(path=circle))


def test_temporary_names_cannot_be_guessed_nor_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def note(path: Path, flags: int, mode: int) -> int:
        opened.append((str(path), flags))
        return real(path, flags, mode)

    real = os.open
    monkeypatch.setattr("edge_ad_runtime.files.os.open", note)
    for _ in range(2):
        write_whole(tmp_path / "a.jpg", b"data")
    names = [name for name, _ in opened]
    assert len(set(names)) == 2 and all(len(Path(name).stem) > 32 for name in names)
    assert all(flags & os.O_EXCL and flags & os.O_NOFOLLOW for _, flags in opened)


def test_not_to_replace(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"first", replace=False)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a", b"second", replace=False)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]


def test_not_to_replace_what_comes_at_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"first")
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a", b"second", replace=False)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]


def test_not_to_replace_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_links(source: Path, name: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", without_links)
    test_not_to_replace(tmp_path)


def test_leftovers_of_the_killed_are_removed_but_not_those_of_the_living(tmp_path: Path) -> None:
    def temporary() -> list[Path]:
        return list(tmp_path.glob(".edge-ad-*.tmp"))

    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        remove_leftovers(tmp_path)
        assert len(temporary()) == 2
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    deadline = time.monotonic() + 60
    while temporary() and time.monotonic() < deadline:
        make_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_a_pipe_beside_a_model_blocks_nothing(tmp_path: Path) -> None:
    """As its calibration, its signature, or the accepted versions."""
    model = tmp_path / "m.onnx"
    for path in (calibration_path(model), signature_path(model), tmp_path / "accepted.json"):
        os.mkfifo(path)
    leftover = tmp_path / ".edge-ad-0.tmp"
    os.mkfifo(leftover)
    remove_leftovers(tmp_path)
    assert not leftover.exists()
    with pytest.raises(ModelFileError, match="not a regular file"):
        read_calibrations(model, "")
    with pytest.raises(ModelFileError, match="not a regular file"):
        read_signature(model)
    with pytest.raises(ConfigError, match="not a regular file"):
        AcceptedVersions(tmp_path / "accepted.json").least(model)


def test_whoever_tidies_up_takes_no_file_from_a_writer_that_has_just_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, begun = files._lock, list[int]()

    def late(descriptor: int, **options: bool) -> bool:
        begun.append(descriptor)
        if len(begun) == 1:  # the writer's: its file is there, and not locked yet
            remove_leftovers(tmp_path)
        return lock(descriptor, **options)

    monkeypatch.setattr(files, "_lock", late)
    write_whole(tmp_path / "a.json", b"{}")
    assert (tmp_path / "a.json").read_bytes() == b"{}"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("call", ["os.open", "edge_ad_runtime.files._lock"])
def test_whoever_tidies_up_takes_no_folder_from_a_writer_that_has_just_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Neither before the writer has opened its folder, nor before it has locked it."""
    module, name = call.rsplit(".", 1)
    real, begun = getattr(sys.modules[module], name), list[object]()

    def late(what: object, *arguments: object, **options: object) -> object:
        begun.append(what)
        if len(begun) == 1:
            remove_leftovers(tmp_path)
        return real(what, *arguments, **options)

    monkeypatch.setattr(call, late)
    with temporary_folder(tmp_path) as folder:
        assert len(begun) > 2 and folder.is_dir()
        remove_leftovers(tmp_path)
        (folder / "a").touch()
    assert list(tmp_path.iterdir()) == []


def test_without_locks_a_file_is_closed_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows renames no file that is open."""
    opened, rename = list[BinaryIO](), os.replace
    new = files._new_temporary

    def noted(folder: Path) -> tuple[Path, BinaryIO]:
        path, file = new(folder)
        opened.append(file)
        return path, file

    def as_on_windows(source: Path, target: Path) -> None:
        assert all(file.closed for file in opened)
        rename(source, target)

    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(files, "_new_temporary", noted)
    monkeypatch.setattr("os.replace", as_on_windows)
    write_whole(tmp_path / "a", b"data")
    assert opened and (tmp_path / "a").read_bytes() == b"data"
    with temporary_folder(tmp_path) as folder, locked(folder):
        assert folder.is_dir()
    assert not folder.exists()


def test_a_lock_on_a_folder_or_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(tmp_path), pytest.raises(BlockingIOError), locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with locked(tmp_path, needed=False):
        pass
    with pytest.raises(OSError, match="No locks"), locked(tmp_path):
        pass


def test_a_process_that_is_being_started_keeps_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a copy of every descriptor until it runs its program."""
    real, copies = os.open, list[int]()

    def copied(*arguments: object) -> int:
        descriptor = real(*arguments)  # type: ignore[arg-type]
        copies.append(os.dup(descriptor))
        return descriptor

    monkeypatch.setattr("os.open", copied)
    for _ in range(2):
        with locked(tmp_path / "lock"):
            pass
    assert len(copies) == 2
    for copy in copies:
        os.close(copy)


@pytest.mark.parametrize(
    ("category", "folder"),
    [
        ("Gehäuse (Linie 3) v1.2", "Gehäuse (Linie 3) v1.2"),
        ("../../etc", "__.._etc"),
        ("..", "_"),
        ("-rf", "_rf"),
        ("a. ", "a"),
        ("", "_"),
        ("a\0/b\\c:d", "a_b_c_d"),
    ],
)
def test_a_category_is_the_name_of_one_folder(category: str, folder: str) -> None:
    assert folder_name(category) == folder
