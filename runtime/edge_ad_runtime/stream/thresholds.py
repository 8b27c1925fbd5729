"""Limits that people set at cameras: reported on every output, and kept over a restart."""

import json
import os
import sys
import threading
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge_ad_runtime.errors import ConfigError
from edge_ad_runtime.events import Event, Report
from edge_ad_runtime.files import locked, make_writable, read_document, write_whole
from edge_ad_runtime.model.document import Document
from edge_ad_runtime.model.result import iso_time
from edge_ad_runtime.stream.model_slot import ModelSlot, Override

_VERSION = 1
_LARGEST_BYTES = 1_000_000
_LOCK_SECONDS = 10.0


class Thresholds:
    """Changes the limits of cameras, one change at a time.

    The state file is a small JSON document, written whole at each change:

        {"version": 1, "thresholds": {"left": {"threshold": 31.5, "who": "...", "since": "..."}}}

    Entries of cameras that are not in the configuration at present stay in it.
    """

    def __init__(self, slots: Mapping[str, ModelSlot], path: Path | None, report: Report) -> None:
        """Start with the models' own limits.

        Args:
            slots: the model of each camera.
            path: the state file, which need not exist yet; None: changes end with the stream.
            report: takes an event for each change.

        Raises:
            DataError: the state file could not be written into its folder.
        """
        if path is not None:
            make_writable(path.parent)
        self._slots = slots
        self._path = path
        self._report = report
        self._lock = threading.Lock()

    def restore(self) -> None:
        """Put the limits of the state file into force; what cannot be used is an event."""
        if self._path is None:
            return
        try:
            kept = _read(self._path)
        except ConfigError as error:
            self._report(Event(kind="state refused", message=str(error)))
            return
        for camera, override in kept.items():
            slot = self._slots.get(camera)
            if slot is None:
                continue
            slot.set_override(camera, override)
            self._report(_kept(camera, slot, override))

    def set(self, camera: str, threshold: float, who: str) -> None:
        """Set the limit of one camera.

        Raises:
            ConfigError: there is no such camera, or the limit is not a finite number.
        """
        override = Override(threshold=threshold, who=who, model=self._slot(camera).content)
        self._change(camera, override, who)

    def reset(self, camera: str, who: str) -> None:
        """Give a camera back the limit of its model, or of the configuration.

        Raises:
            ConfigError: there is no such camera.
        """
        self._slot(camera)
        self._change(camera, None, who)

    def report_kept(self) -> None:
        """Say which limits outlive a reload, or another model."""
        for camera, slot in self._slots.items():
            override = slot.overrides.get(camera)
            if override is not None:
                self._report(_kept(camera, slot, override))

    def _slot(self, camera: str) -> ModelSlot:
        if camera not in self._slots:
            raise ConfigError(
                f"there is no camera {camera[:80]!a}: expected one of {', '.join(self._slots)}"
            )
        return self._slots[camera]

    def _change(self, camera: str, override: Override | None, who: str) -> None:
        slot = self._slots[camera]
        # Held until it is told: the last of two changes must be the last one in the file and in the
        # events, too.
        with self._lock:
            before = slot.set_override(camera, override)
            now = slot.threshold(camera)
            problem = self._keep()
            text = f"the limit at {camera} is now {now:.4g} instead of {before:.4g}, set by {who}"
            if override is None:
                text = f"the limit at {camera} is the model's own again, {now:.4g}, reset by {who}"
            if problem:
                text += f"; it is not kept over a restart: {problem}"
            details = {"old": before, "new": now, "who": who}
            self._report(
                Event(kind="threshold changed", message=text, camera=camera, details=details)
            )

    def _keep(self) -> str:
        """Write the state file; return why that failed, or nothing."""
        if self._path is None:
            return ""
        try:
            # Another stream may change its own limits in the same file at the same moment.
            with locked(self._path.with_name(self._path.name + ".lock"), seconds=_LOCK_SECONDS):
                self._write(self._path)
        except (OSError, ConfigError) as error:
            return f"cannot write {self._path} ({error})"
        return ""

    def _write(self, path: Path) -> None:
        # What others wrote since, another stream or an earlier configuration, stays.
        kept = {name: item for name, item in _read(path).items() if name not in self._slots}
        for camera, slot in self._slots.items():
            if camera in slot.overrides:
                kept[camera] = slot.overrides[camera]
        thresholds = {name: _entry(item) for name, item in sorted(kept.items())}
        document = {"version": _VERSION, "thresholds": thresholds}
        write_whole(path, json.dumps(document, indent=2).encode() + b"\n")


def _kept(camera: str, slot: ModelSlot, override: Override) -> Event:
    since = iso_time(override.since)
    message = (
        f"the limit at {camera} stays {override.threshold:.4g}, set by {override.who} on {since}"
    )
    if override.model and override.model != slot.content:
        message += "; the model has changed since, so check whether it still fits"
    details = {"threshold": override.threshold, "who": override.who, "since": since}
    return Event(kind="threshold kept", message=message, camera=camera, details=details)


def _read(path: Path) -> dict[str, Override]:
    """Return the limits in the state file; none where there is no file.

    Raises:
        ConfigError: it cannot be read, or is damaged. A damaged one is renamed, so that the next
            change does not overwrite what may still be in it.
    """
    try:
        document = read_document(path, version=_VERSION, most_bytes=_LARGEST_BYTES)
        return {} if document is None else _parse(document)
    except OSError as error:
        raise ConfigError(
            f"cannot read the state file {path}: {error.strerror}: the limits that people have set "
            "are not in force"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ConfigError(
            f"the state file {path} is damaged ({error}): the limits that people have set are not "
            f"in force, set them again; the file is now {_set_aside(path)}"
        ) from error


def _set_aside(path: Path) -> Path:
    aside = path.with_name(path.name + ".damaged")
    try:
        os.replace(path, aside)
    except OSError:
        return path
    return aside


def _entry(override: Override) -> dict[str, object]:
    return {
        "threshold": override.threshold,
        "who": override.who,
        "since": iso_time(override.since),
        "model": override.model,
    }


def _parse(document: Mapping[str, Any]) -> dict[str, Override]:
    thresholds = document["thresholds"]
    if not isinstance(thresholds, dict):
        raise ValueError("'thresholds' is not an object")
    return {camera: _override(entry) for camera, entry in thresholds.items()}


def _override(entry: Any) -> Override:
    if not isinstance(entry, dict):
        raise ValueError(f"expected an object for each camera, found {type(entry).__name__}")
    threshold = Document(entry).number("threshold", -sys.float_info.max, sys.float_info.max)
    who, model = entry["who"], entry.get("model", "")
    if not isinstance(who, str) or not isinstance(model, str):
        raise ValueError("expected texts as 'who' and 'model'")
    since = datetime.fromisoformat(entry["since"].replace("Z", "+00:00"))
    if since.tzinfo is None:
        raise ValueError("expected a time zone in 'since'")
    since = since.astimezone(timezone.utc)
    return Override(threshold=threshold, who=who, since=since, model=model)
