"""What picture files contain: their hash, and which of them are copies."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Contents:
    """The content of some files, each read once.

    Attributes:
        digests: path and SHA-256 of each file, in order.
    """

    digests: tuple[tuple[Path, bytes], ...]

    def hash(self) -> str:
        """Return the SHA-256, in hex, of file names and contents in order; the folder is free."""
        total = hashlib.sha256()
        for path, digest in self.digests:
            # A hash of fixed length and a NUL: no two lists of files give the same bytes.
            total.update(os.fsencode(path.name) + b"\0" + digest)
        return total.hexdigest()

    def copies(self) -> dict[Path, Path]:
        """Return the files with the content of an earlier one, and that one."""
        first: dict[bytes, Path] = {}
        originals = ((path, first.setdefault(digest, path)) for path, digest in self.digests)
        return {path: original for path, original in originals if path != original}
