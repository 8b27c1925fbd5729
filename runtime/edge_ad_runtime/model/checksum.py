"""The checksum inside a model file: one flipped bit anywhere in the file is noticed.

A model file carries the SHA-256 of itself as the metadata entry `edge_ad.sha256`. The sum is taken
over the whole file with these 64 characters replaced by zeros, so that it covers the metadata as
well as the graph, and so that it can be checked before anything else interprets the bytes.
"""

import hashlib

from edge_ad_runtime.errors import ModelFileError

CHECKSUM_KEY = "edge_ad.sha256"
BLANK = "0" * 64
"""What the exporter writes first, and what stands in for the checksum while it is computed."""

_DIGITS = 64
# How protobuf stores the entry: the key, the tag of the value, the value's length.
_ENTRY = CHECKSUM_KEY.encode() + bytes([0x12, _DIGITS])


def stamp(model: bytes) -> bytes:
    """Return a model file whose blank checksum is filled in.

    Args:
        model: a model file with the metadata entry `edge_ad.sha256` = `BLANK`.

    Raises:
        ModelFileError: the entry is not there.
    """
    place = _place(model)
    if place is None:
        raise ModelFileError(f"expected the metadata '{CHECKSUM_KEY}' in the file, found none")
    digest = _digest(model, place)
    return model[:place] + digest.encode() + model[place + _DIGITS :]


def verify(model: bytes) -> str | None:
    """Check a model file against its own checksum.

    Returns:
        The checksum in hex; None: the file carries none, because an early version wrote it.

    Raises:
        ModelFileError: the file is not what the exporter wrote.
    """
    place = _place(model)
    if place is None:
        return None
    expected = model[place : place + _DIGITS].decode("ascii", errors="replace")
    if _digest(model, place) != expected:
        raise ModelFileError(
            "it is damaged, its checksum does not fit: copy it again or export the run again"
        )
    return expected


def _place(model: bytes) -> int | None:
    """Return where the checksum begins. Metadata ends a model file, so the last entry counts."""
    found = model.rfind(_ENTRY)
    return None if found < 0 else found + len(_ENTRY)


def _digest(model: bytes, place: int) -> str:
    digest = hashlib.sha256(memoryview(model)[:place])
    digest.update(BLANK.encode())
    digest.update(memoryview(model)[place + _DIGITS :])
    return digest.hexdigest()
