"""Pictures of every format with flipped, cut, repeated and inserted bytes, and absurd sizes."""

import io
import random
import struct
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from edge_ad_runtime.model.image import check_frame
from edge_ad_runtime.model.picture_file import read_frame, read_mask
from tests.fuzz.harness import Target, mutate_bytes

_SIDES = (0, 1, 2, 255, 4096, 13_377, 16_383, 30_000, 65_535, 2**20, 2**31 - 1, 2**31, 2**32 - 1)


class Fuzz(Target[bytes]):
    """The bytes of a picture file."""

    def seeds(self, folder: Path) -> Sequence[bytes]:
        """Return pictures of 57 x 33 pixels in all formats that are read."""
        pixels = np.random.default_rng(0).integers(0, 255, (33, 57, 3), dtype=np.uint8)
        found = [
            cv2.imencode(suffix, pixels)[1].tobytes()
            for suffix in (".png", ".jpg", ".bmp", ".tif", ".webp")
        ]
        deep = pixels.astype(np.uint16) * 257
        found += [cv2.imencode(suffix, deep)[1].tobytes() for suffix in (".png", ".tif")]
        picture = Image.fromarray(pixels)
        for kind, options in (
            ("JPEG", {"progressive": True, "comment": b"x" * 300}),
            ("PNG", {"optimize": True}),
            ("TIFF", {"compression": "tiff_lzw"}),
            ("TIFF", {"compression": "jpeg"}),
            ("TIFF", {"big_tiff": True}),
            ("WEBP", {"lossless": True}),
            ("WEBP", {"icc_profile": b"x" * 100}),
        ):
            written = io.BytesIO()
            picture.save(written, kind, **options)
            found.append(written.getvalue())
        for mode in ("P", "LA", "RGBA", "1"):
            written = io.BytesIO()
            picture.convert(mode).save(written, "PNG")
            found.append(written.getvalue())
        return found

    def mutate(self, rng: random.Random, seed: bytes) -> bytes:
        """Change any bytes, or write an absurd number over a size in the header."""
        if rng.random() < 0.6:
            return mutate_bytes(rng, seed)
        data = bytearray(seed)
        for _ in range(rng.choice((1, 2))):
            form = rng.choice(("<H", ">H", "<I", ">I"))
            side = rng.choice(_SIDES) % 2 ** (8 * struct.calcsize(form))
            sizes = [struct.pack(form, 57), struct.pack(form, 33), struct.pack(form, 56)]
            places = [place for size in sizes if (place := seed.find(size)) >= 0]
            place = rng.choice(places) if places else rng.randrange(min(200, len(data) - 8))
            struct.pack_into(form, data, place, side)
        return bytes(data)

    def run(self, data: bytes, folder: Path) -> None:
        """Read the file as a picture and as a mask."""
        path = folder / "picture.png"
        path.write_bytes(data)
        check_frame(read_frame(path))
        read_mask(path)
