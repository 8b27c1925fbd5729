"""A model file of a stream: loaded, and read again when it or its limits change."""

import hashlib
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from edge_ad_runtime.errors import DataError, EdgeAdError, ModelFileError
from edge_ad_runtime.events import Event
from edge_ad_runtime.files import locked
from edge_ad_runtime.model.accelerator import AcceleratorConfig
from edge_ad_runtime.model.accepted import AcceptedVersions
from edge_ad_runtime.model.device_calibration import DeviceCalibration, read_calibrations
from edge_ad_runtime.model.location import install_lock, installed, other_slot
from edge_ad_runtime.model.scorer import Scorer
from edge_ad_runtime.model.signature import RequiredSignature
from edge_ad_runtime.stream.model_slot import NO_CALIBRATIONS, ModelSlot

logger = logging.getLogger(__name__)


class ModelFile:
    """A model file of a stream with its calibrations, and the slot in which it runs.

    Attributes:
        path: of the file.
        slot: what scores.
        fallen_back: says why the model before the installed one scores; None: it does not.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str,
        threads: int | None,
        threshold: float | None,
        min_region_area: float = 0.0,
        accelerator: AcceleratorConfig = AcceleratorConfig(),
        required: RequiredSignature | None = None,
        accepted: AcceptedVersions | None = None,
    ) -> None:
        """Load the model.

        Args:
            path: an `.onnx` file written by `edge-ad export`.
            device: as for `Scorer`.
            threads: as for `Scorer`.
            threshold: in place of the limits of the model and its calibrations; None: those.
            min_region_area: as for `Scorer`.
            accelerator: as for `Scorer`.
            required: the signature without which a file is refused; a file that replaces another
                may not have a lower signed version than that.
            accepted: keeps that version over a restart; None: it ends with the process.

        Raises:
            ModelFileError, DeviceError: it cannot be used.
            ConfigError: the threshold is not a finite number, or the accepted versions are damaged.
            DataError: the accepted version cannot be written.
        """
        self.path = path
        self.fallen_back: Event | None = None
        self._make = partial(
            Scorer,
            device=device,
            threads=threads,
            min_region_area=min_region_area,
            accelerator=accelerator,
        )
        self._reloading = threading.Lock()
        self._accepted = accepted
        self._required = required
        if required is not None and accepted is not None:
            least = max(required.least_version, accepted.least(path))
            self._required = replace(required, least_version=least)
        scorer = self._load_or_fall_back()
        self._accept(scorer)
        self.slot = ModelSlot(
            scorer,
            content=scorer.content,
            calibrations=self._calibrations(scorer.content),
            threshold=threshold,
        )

    def load(self, path: Path) -> Scorer:
        """Load another file as this one: for the same device, with the signature required here.

        Raises:
            ModelFileError, DeviceError: it cannot be used.
        """
        return self._make(path, required=self._required)

    def follow(self, threshold: float | None) -> Event | None:
        """Take over what `edge-ad install` has installed, if it was killed before it could ask.

        That is the case where the path has been led to a slot since the last look, and nobody holds
        the lock of the slots.

        Returns:
            As `reload`.
        """
        link = _link(self.path)
        if link is None or link == self._link or _being_installed(self.path):
            return None
        return self.reload(threshold)

    def _load_or_fall_back(self) -> Scorer:
        """Load the model, or else the one that `edge-ad install` keeps for a rollback.

        Raises:
            ModelFileError, DeviceError: neither can be used.
        """
        self._link, current = _link(self.path), installed(self.path)
        try:
            return self.load(current)
        except ModelFileError as error:
            before = other_slot(current) if current != self.path else None
            if before is None or not before.exists():
                raise
            try:
                scorer = self.load(before)
            except EdgeAdError:
                raise error from None
            self.fallen_back = Event(
                kind="model rolled back", message=f"{before} scores instead: {error}"
            )
            return scorer

    def reload(self, threshold: float | None) -> Event | None:
        """Take over what has changed: the file, its calibrations, the limit in the configuration.

        Returns:
            What to tell of it: the model was replaced, limits were changed, or it was refused and
            the old one goes on. None: nothing has changed.
        """
        try:
            with self._reloading:
                return self._reload(threshold)
        except EdgeAdError as error:
            message = f"{self.path} does not replace the running model: {error}"
            return Event(kind="model refused", message=message)

    def _reload(self, threshold: float | None) -> Event | None:
        self._link, current = _link(self.path), installed(self.path)
        if _content(current) != self.slot.content:
            scorer = self.load(current)
            # Not the hash from above: the file may have been replaced once more since.
            calibrations = self._calibrations(scorer.content)
            self.slot.exchange(scorer, scorer.content, calibrations, threshold)
            self._accept_running(scorer)
            info, limit = self.slot.scorer.info, self.slot.scorer.threshold
            return Event(
                kind="model replaced",
                message=f"{self.path} now scores: {info.method} on {info.category}, "
                f"limit {limit:.4g}",
            )
        changes = self.slot.set_limits(self._calibrations(self.slot.content), threshold)
        if not changes:
            return None
        who = "the configuration" if threshold is not None else "the model and its calibrations"
        old, new = next(iter(changes.values()))
        told = ", ".join(
            f"{now:.4g} instead of {before:.4g}" + (f" at {camera}" if camera else "")
            for camera, (before, now) in changes.items()
        )
        return Event(
            kind="threshold changed",
            message=f"{self.path}: the limit is now {told}, by {who}",
            details={"old": old, "new": new, "who": who},
        )

    def _accept(self, scorer: Scorer) -> None:
        """Refuse from now on what was signed before the model that runs.

        Raises:
            DataError: that cannot be kept over a restart.
        """
        if self._required is None or scorer.signed is None:
            return
        self._required = replace(self._required, least_version=scorer.signed.version)
        if self._accepted is not None:
            self._accepted.accept(self.path, scorer.signed.version)

    def _accept_running(self, scorer: Scorer) -> None:
        """As `_accept`, of a model that scores already: a full disk does not stop it."""
        try:
            self._accept(scorer)
        except DataError as error:
            logger.warning("%s", error)

    def _calibrations(self, content: str) -> Mapping[str, DeviceCalibration]:
        """Read the calibrations beside the model; those that cannot be used are named."""
        try:
            return read_calibrations(self.path, content)
        except ModelFileError as error:
            logger.warning("the limit of %s itself is in force: %s", self.path, error)
            return NO_CALIBRATIONS


def _link(path: Path) -> tuple[Path, int, int] | None:
    """Tell a link that `edge-ad install` has made from every other one; None: there is none."""
    slot = installed(path)
    if slot == path:
        return None
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return slot, status.st_ino, status.st_mtime_ns


def _being_installed(path: Path) -> bool:
    try:
        with locked(install_lock(path)):
            return False
    except BlockingIOError:
        return True
    except OSError:  # this user may not lock it; to take over too early does no harm
        return False


def _content(path: Path) -> str:
    """Return the sha256 of a file, or nothing where it cannot be read: loading says why."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
