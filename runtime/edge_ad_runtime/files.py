"""Write files that are either whole or not there."""

import os
import tempfile
from pathlib import Path

from edge_ad_runtime.errors import DataError


def write_whole(path: Path, data: bytes) -> None:
    """Write beside the path first and rename then: no reader ever sees half a file.

    Raises:
        OSError: the file cannot be written; nothing of it remains.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def make_writable(folder: Path) -> None:
    """Create the folder and prove that files can be written into it.

    Raises:
        DataError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(
            f"cannot write into the output folder {folder}: {error.strerror}: "
            "choose another or change its permissions"
        ) from error
