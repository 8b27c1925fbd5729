"""ZIPs from anywhere: what is refused before a byte is unpacked, and how one entry is unpacked."""

import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from edge_ad_runtime.errors import DataError
from edge_ad_runtime.model.picture_file import LARGEST_PICTURE_BYTES

MOST_ZIP_FILES = 20_000
MOST_ZIP_BYTES = 8 * 2**30
"""Of a ZIP's content."""

MOST_RATIO, RATIO_FROM = 100, 100 * 2**20
"""Pictures hardly shrink in a ZIP: one that grows a hundredfold to over 100 MiB holds something
else."""

# What the module zipfile raises for damaged files; NotImplementedError is among the RuntimeErrors.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    MemoryError,
    OverflowError,
    RuntimeError,
    ValueError,
)


@contextmanager
def reading_zip(name: str) -> Iterator[None]:
    """Turn whatever a damaged ZIP makes the module zipfile raise into one sentence.

    Raises:
        DataError: it is damaged.
        OSError: the file system failed.
    """
    try:
        yield
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{name} is damaged or not a ZIP file: pack it again") from error


def check_zip(entries: list[zipfile.ZipInfo], source: Path) -> None:
    """Refuse a ZIP that leads out of its folder, is encrypted, or would fill the disk.

    Raises:
        DataError: with the first reason.
    """
    for entry in entries:
        parts = PurePosixPath(entry.filename.replace("\\", "/")).parts
        if not parts or entry.filename.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise DataError(
                f"{source.name} holds a path that leads out of it ({entry.filename[:80]}): it was "
                "refused as a whole, pack the folder of pictures again"
            )
        if entry.flag_bits & 1:
            raise DataError(f"{source.name} is encrypted: pack it without a password")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise DataError(
                f"{source.name} holds a link ({entry.filename[:80]}): pack the pictures"
            )
    total, packed = sum(entry.file_size for entry in entries), source.stat().st_size
    too_many = len(entries) > MOST_ZIP_FILES
    if too_many or total > MOST_ZIP_BYTES:
        raise DataError(
            f"{source.name} unpacks to {len(entries):,} files of {total / 2**30:.1f} GiB, expected "
            f"at most {MOST_ZIP_FILES:,} files of {MOST_ZIP_BYTES / 2**30:.0f} GiB: split it"
        )
    if total > RATIO_FROM and total > MOST_RATIO * packed:
        raise DataError(
            f"{source.name} has {packed / 2**20:.1f} MiB and unpacks to {total / 2**20:,.0f} MiB, "
            "which pictures never do: it was refused as a whole"
        )
    free = shutil.disk_usage(source.parent).free
    if total > 0.9 * free:
        raise DataError(
            f"{source.name} unpacks to {total / 2**30:.1f} GiB, the disk has "
            f"{free / 2**30:.1f} GiB left: free some space"
        )


def unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, to: Path) -> None:
    """Copy one entry to a file, never more of it than a picture may have.

    Raises:
        DataError: it is larger than that, or damaged.
        OSError: the file cannot be written.
    """
    if entry.file_size > LARGEST_PICTURE_BYTES:
        raise DataError(
            f"{entry.filename} has {entry.file_size / 2**20:.0f} MiB, more than the "
            f"{LARGEST_PICTURE_BYTES // 2**20} MiB that a picture may have: make it smaller"
        )
    with (
        reading_zip(f"{PurePosixPath(entry.filename).name} in the ZIP"),
        archive.open(entry) as source,
        to.open("wb") as target,
    ):
        shutil.copyfileobj(source, target, 2**20)
