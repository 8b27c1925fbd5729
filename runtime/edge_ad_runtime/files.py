"""Write files that are either whole or not there, also where others may write; read them back."""

import errno
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, BinaryIO

from edge_ad_runtime.errors import DataError

try:
    import fcntl
except ModuleNotFoundError:  # Windows, where a file that is open cannot be deleted anyway
    fcntl = None  # type: ignore[assignment]

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
"""With it, opening a pipe that somebody has put in place of a file does not block."""
_TEMPORARY = ".edge-ad-*.tmp"
_LOCK_LOOK_SECONDS = 0.02
_MOST_LINKS = 40
"""One behind the other, as in Linux."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EBADF)
"""Of file systems without locks; EBADF of NFS, which locks only what may be written to."""


def write_whole(path: Path, data: bytes, *, replace: bool = True, durable: bool = False) -> None:
    """Write a temporary file in the same folder and rename it: no reader ever sees half a file.

    The temporary name cannot be guessed, and nothing that exists under it is opened or followed,
    since another user may be able to write into the folder.

    Args:
        path: of the file.
        data: what it holds.
        replace: a file that is already there.
        durable: return only once it would outlive a power cut.

    Raises:
        FileExistsError: the file is there, and must not be replaced.
        OSError: the file cannot be written; nothing of it remains.
    """
    temporary, file = _new_temporary(path.parent)
    try:
        with file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows renames no file that is open
            if replace:
                os.replace(temporary, path)
            else:
                _take_free_name(temporary, path)
        if durable:
            sync_folder(path.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _take_free_name(temporary: Path, path: Path) -> None:
    """Rename a file to a name that must be free, also if others try to take it at this moment.

    Raises:
        FileExistsError: it is not free.
        OSError: the file cannot be renamed.
    """
    try:
        os.link(temporary, path)  # fails where the name is taken; a rename would replace that file
    except FileExistsError:
        raise
    except OSError as error:  # a file system without hard links, as on many USB sticks
        if os.path.lexists(path):
            raise FileExistsError(f"{path} is already there") from error
        os.replace(temporary, path)
    else:
        temporary.unlink()


def _temporary_name(folder: Path) -> Path:
    return folder / _TEMPORARY.replace("*", secrets.token_hex(16))


def _new_temporary(folder: Path) -> tuple[Path, BinaryIO]:
    """Make a file under a name of its own, and lock it: whoever tidies up then knows of its writer.

    Raises:
        OSError: it cannot be made.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW
    while True:
        path = _temporary_name(folder)
        file = open(os.open(path, flags, 0o666), "wb")
        _lock(file.fileno(), wait=True)
        if path.exists():
            return path, file
        file.close()  # `remove_leftovers` came before the lock, and took it for a dead writer's


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Make a folder for files that are not ready yet, and remove it with what is left in it.

    That of a process that was killed goes with `remove_leftovers`.

    Raises:
        OSError: it cannot be made.
    """
    with ExitStack() as opened:
        while True:
            path = _temporary_name(parent)
            path.mkdir()
            if fcntl is None:
                break
            try:
                descriptor = os.open(path, os.O_RDONLY | _NOFOLLOW)
            except FileNotFoundError:
                continue  # `remove_leftovers` came first, and took it for a dead writer's
            opened.callback(os.close, descriptor)
            _lock(descriptor, wait=True)
            if path.exists():
                break  # else it came before the lock
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make new names in a folder outlive a power cut; Windows has no way to ask for it.

    Raises:
        OSError: it cannot be done.
    """
    if fcntl is None:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def own_path(path: Path) -> Path:
    """Return where a path leads, through links that this user or root has made.

    Raises:
        PermissionError: it is a link of another user, who may lead to files of this one.
        OSError: links in a circle, or a folder that cannot be read.
    """
    followed = 0
    while True:
        try:
            state = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return path
        if not stat.S_ISLNK(state.st_mode):
            return path
        if hasattr(os, "geteuid") and state.st_uid not in (0, os.geteuid()):
            raise PermissionError(errno.EACCES, "it is a link that another user has made")
        followed += 1
        if followed > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        path = path.parent / os.readlink(path)


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Read at most `most_bytes` of a file; a pipe that somebody has put there does not block.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    flags = os.O_RDONLY | _NONBLOCK | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return file.read(most_bytes)


def read_document(path: Path, *, version: int, most_bytes: int) -> dict[str, Any] | None:
    """Read a JSON object with the entry `version`; None: there is no file.

    Args:
        path: of the file.
        version: that the object must have.
        most_bytes: of a file that is read at all.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer, not a JSON object, or of another version.
    """
    try:
        data = read_regular(path, most_bytes + 1)
    except FileNotFoundError:
        return None
    if len(data) > most_bytes:
        raise ValueError(f"longer than {most_bytes} bytes")
    try:
        document = json.loads(data)
    except RecursionError as error:
        raise ValueError("lists or objects too deep inside one another") from error
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    if document.get("version") != version:
        raise ValueError(f"version {document.get('version')!r:.20} instead of {version}")
    return document


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files and folders of processes that were killed while they wrote.

    Those that somebody still writes, or that this user may not delete, stay.
    """
    for path in folder.glob(_TEMPORARY):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | _NOFOLLOW | _NONBLOCK)
            try:
                if _lock(descriptor):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(descriptor)


def _lock(descriptor: int, *, wait: bool = False) -> bool:
    """Lock a file until it is closed: as long as it is locked, its writer lives.

    Args:
        descriptor: of the file.
        wait: until nobody else holds the lock.

    Returns:
        Whether it worked: nobody else holds the lock, and the file system knows locks.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def lock_open_file(descriptor: int) -> None:
    """Lock a file until it is closed, where the system and the file system know locks.

    Raises:
        BlockingIOError: somebody else holds the lock.
        OSError: there can be no lock on it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


@contextmanager
def locked(
    path: Path, *, seconds: float = 0.0, needed: bool = True, shared: bool = False
) -> Iterator[None]:
    """Keep every other process that asks for the same lock away.

    A file is made if need be, and what it holds is never touched. A link or a pipe that another
    user has put there is not followed.

    Args:
        path: of a lock file, which stays, or of a folder.
        seconds: to wait for the other process.
        needed: False: go on without where the file system knows no locks, as some of networks.
        shared: keep away only those whose lock is not shared: for readers.

    Raises:
        BlockingIOError: another process still holds it.
        OSError: there can be no such file, or no lock on it.
    """
    if fcntl is None:
        yield
        return
    flags = os.O_RDONLY | _NOFOLLOW | _NONBLOCK | (0 if path.is_dir() else os.O_CREAT)
    descriptor = os.open(path, flags, 0o666)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise OSError(errno.EINVAL, f"{path.name} is neither a file nor a folder")
        deadline = monotonic() + seconds
        while True:
            try:
                kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if monotonic() > deadline:
                    raise
                sleep(_LOCK_LOOK_SECONDS)
            except OSError as error:
                if needed or error.errno not in _NO_LOCKS:
                    raise
                break
        try:
            yield
        finally:
            # Closing is not enough: a process that another thread starts at this moment has a copy.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def folder_name(category: str) -> str:
    """Return a category as the name of one folder: as it is, unless that could lead elsewhere.

    `edge-ad train` takes categories of any name from any folder; pictures that are kept under this
    name join those of the training by copying the folder.
    """
    return re.sub(r"^[. -]+|[^\w .,()\[\]+-]+", "_", category).rstrip(" .") or "_"


def make_writable(folder: Path) -> None:
    """Create the folder, prove that files can be written into it, and tidy it up.

    Raises:
        DataError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        remove_leftovers(folder)
    except OSError as error:
        raise DataError(
            f"cannot write into the folder {folder}: {error.strerror}: choose another one, or "
            "change its permissions"
        ) from error
