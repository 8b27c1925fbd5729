"""Which signed versions a device has accepted, so that it accepts no older one after a restart."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_ad_runtime.errors import ConfigError, DataError
from edge_ad_runtime.files import locked, make_writable, read_document, write_whole

_VERSION = 1
_LARGEST_BYTES = 1_000_000
_LOCK_SECONDS = 10.0


class AcceptedVersions:
    """The highest signed version that was accepted under each path of a model file.

    The file is a small JSON document, written whole at each change:

        {"version": 1, "accepted": {"/var/lib/edge-ad/cable.onnx": 1764000000}}

    A damaged one is an error, not an empty one: whoever can damage it could otherwise bring an old
    model back. It belongs where those who copy model files cannot write.
    """

    def __init__(self, path: Path) -> None:
        """Use this file, which need not exist yet.

        Raises:
            DataError: it could not be written into its folder.
        """
        make_writable(path.parent)
        self._path = path

    def least(self, model: Path) -> int:
        """Return the highest version that was accepted under this path; 0: none yet.

        Raises:
            ConfigError: the file cannot be read, or is damaged.
        """
        return self._read().get(_key(model), 0)

    def accept(self, model: Path, version: int) -> None:
        """Refuse lower versions under this path from now on.

        Raises:
            DataError: the file cannot be read or written.
        """
        try:
            # Streams and installations of other models may accept one at the same moment.
            with locked(self._path.with_name(self._path.name + ".lock"), seconds=_LOCK_SECONDS):
                accepted = self._read()
                if version <= accepted.get(_key(model), 0):
                    return
                document = {"version": _VERSION, "accepted": accepted | {_key(model): version}}
                text = json.dumps(document, indent=1, sort_keys=True) + "\n"
                write_whole(self._path, text.encode(), durable=True)
        except OSError as error:
            raise DataError(
                f"cannot write the accepted versions {self._path} ({error.strerror}): after a "
                f"restart, {model} could be replaced by an older file"
            ) from error

    def _read(self) -> dict[str, int]:
        try:
            document = read_document(self._path, version=_VERSION, most_bytes=_LARGEST_BYTES)
            return {} if document is None else _accepted(document)
        except OSError as error:
            raise ConfigError(
                f"cannot read the accepted versions {self._path} ({error.strerror})"
            ) from error
        except ValueError as error:
            raise ConfigError(
                f"the accepted versions {self._path} are damaged ({error}): make sure that the "
                "model files are those that you want, and delete the file"
            ) from error


def _key(model: Path) -> str:
    return str(model.absolute())


def _accepted(document: Mapping[str, Any]) -> dict[str, int]:
    accepted = document.get("accepted")
    if not isinstance(accepted, dict):
        raise ValueError("no object 'accepted'")
    for version in accepted.values():
        if isinstance(version, bool) or not isinstance(version, int):
            raise ValueError("a version is not a whole number")
    return accepted
