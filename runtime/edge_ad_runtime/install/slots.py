"""Two slots for the model file behind one path, of which a symbolic link chooses one.

    cable.onnx -> cable.onnx.slots/a/cable.onnx     what streams are given
    cable.onnx.slots/a/cable.onnx, cable.onnx.sig, cable.onnx.calibration.json
    cable.onnx.slots/b/...                          the model before, for a rollback
    cable.onnx.slots/new/...                        a candidate, until it has passed its check

The link is replaced by renaming another one over it. So whoever reads the path, at any moment and
after a power cut, finds the whole old model or the whole new one, with the signature of its own.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

from edge_ad_runtime.errors import ConfigError, EdgeAdError, ModelFileError
from edge_ad_runtime.files import locked, read_regular, sync_folder, write_whole
from edge_ad_runtime.model.location import (
    calibration_path,
    install_lock,
    installed,
    signature_path,
    slots_folder,
)
from edge_ad_runtime.model.scorer import read_model

try:
    import fcntl
except ModuleNotFoundError:  # Windows, where links need a privilege as well
    fcntl = None  # type: ignore[assignment]

Slot = Literal["a", "b"]

_NEW = "new"
_LARGEST_COMPANION = 20_000_000


class BusyError(EdgeAdError):
    """Another installation behind the same path is running; nothing was changed."""


class Slots:
    """The slots behind one path.

    Attributes:
        path: that streams are given.
    """

    def __init__(self, path: Path) -> None:
        """Look at the slots of a path; nothing is changed, and nothing need be there yet."""
        self.path = path
        self._folder = slots_folder(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other installation away from these slots.

        Raises:
            BusyError: another one is running.
            ConfigError: the folder cannot be written to, or the system has no such locks.
        """
        if fcntl is None:
            raise ConfigError("`edge-ad install` needs Linux or macOS: copy the model file instead")
        with ExitStack() as stack:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                if self._folder.is_symlink():  # what lies there would be deleted
                    raise OSError(errno.ELOOP, "a link in place of a folder")
                stack.enter_context(locked(install_lock(self.path)))
            except BlockingIOError as error:
                raise BusyError(
                    f"another installation of {self.path} is running: try again when it has ended"
                ) from error
            except OSError as error:
                raise ConfigError(
                    f"cannot write into {self._folder} ({error.strerror}): run the command as a "
                    "user who may, or choose another path with --to"
                ) from error
            yield

    @property
    def current(self) -> Slot | None:
        """The slot to which the path leads; None: it is not a link into a slot."""
        target = installed(self.path)
        if target == self.path:
            return None
        return "a" if target.parent.name == "a" else "b"

    @property
    def spare(self) -> Slot:
        """The other slot: that of the model before, and of the next one."""
        return "b" if self.current == "a" else "a"

    def file(self, slot: Slot) -> Path:
        """Return where the model file of a slot lies."""
        return self._folder / slot / self.path.name

    def holds(self, slot: Slot, model: bytes, signature: bytes | None) -> bool:
        """Whether a slot has this very content already.

        Raises:
            ModelFileError: it cannot be read.
        """
        file = self.file(slot)
        return read_model(file) == model and _content(signature_path(file)) == signature

    def adopt(self) -> None:
        """Move what lies under the path itself into a slot, and lead the path there.

        Raises:
            ModelFileError: it cannot be read.
            ConfigError: it cannot be moved.
        """
        if self.current is not None or not self.path.exists():
            return
        companions = [signature_path(self.path), calibration_path(self.path)]
        with _writing(self._folder):
            self._write("a", read_model(self.path), {file: _content(file) for file in companions})
        self.switch("a")
        for file in companions:  # those in the slot count from now on
            with suppress(OSError):
                file.unlink()

    def stage(self, model: bytes, signature: bytes | None) -> Path:
        """Write a candidate beside the slots; return where it lies.

        Raises:
            ConfigError: it cannot be written.
        """
        with _writing(self._folder):
            path = self._folder / _NEW / self.path.name
            self._write(_NEW, model, {signature_path(path): signature})
        return path

    def keep_candidate(self) -> Slot:
        """Make the candidate the content of the spare slot, in place of the model before.

        Raises:
            ConfigError: it cannot be moved.
        """
        slot = self.spare
        with _writing(self._folder):
            _remove(self._folder / slot)
            os.rename(self._folder / _NEW, self._folder / slot)
            sync_folder(self._folder)
        return slot

    def drop_candidate(self) -> None:
        """Forget the candidate, if there is one."""
        with suppress(OSError):
            _remove(self._folder / _NEW)

    def switch(self, slot: Slot) -> None:
        """Lead the path to a slot, at once and for good.

        Raises:
            ConfigError: the link cannot be written.
        """
        # Among the slots, which are locked: what a killed command leaves is replaced the next time.
        link = self._folder / "link"
        with _writing(self.path.parent):
            link.unlink(missing_ok=True)
            os.symlink(Path(self._folder.name, slot, self.path.name), link)
            try:
                os.replace(link, self.path)
            except OSError:
                link.unlink()
                raise
            sync_folder(self.path.parent)

    def _write(self, name: str, model: bytes, companions: dict[Path, bytes | None]) -> None:
        folder = self._folder / name
        _remove(folder)
        folder.mkdir()
        write_whole(folder / self.path.name, model, durable=True)
        for file, content in companions.items():
            if content is not None:
                write_whole(folder / file.name, content, durable=True)
        sync_folder(self._folder)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"cannot write into {folder} ({error.strerror or error}): the model in use stays; "
            "free some space, change the permissions, or use a file system with symbolic links"
        ) from error


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _content(path: Path) -> bytes | None:
    """Return a signature or a calibration, if there is one.

    Raises:
        ModelFileError: it cannot be read.
    """
    try:
        return read_regular(path, _LARGEST_COMPANION)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
