"""Parts whose verdict a person calls wrong: saved as pictures that can be learnt from."""

import json
import re
from datetime import datetime, timezone
from pathlib import Path

import cv2

from edge_ad_runtime.errors import DataError
from edge_ad_runtime.files import folder_name, write_whole
from edge_ad_runtime.model.result import iso_time, time_in_names
from edge_ad_runtime.page.parts import Part

MARKS = {"false alarm": ("train", "good"), "missed": ("test", "missed")}
"""What a part can be marked as, and the folder of a category that such pictures belong to."""


class Marks:
    """A folder of marked parts, laid out as `edge-ad train --data-root FOLDER` reads it.

    A false alarm is a good part: `CATEGORY/train/good/NAME.png`. A missed defect is one to test
    with: `CATEGORY/test/missed/NAME.png`. Beside each lies `NAME.json` with the verdict and who did
    not agree with it.
    """

    def __init__(self, folder: Path) -> None:
        """Nothing is created before the first mark."""
        self._folder = folder

    def put(self, part: Part, mark: str | None, who: str) -> Path | None:
        """Write the frame as it was captured, in place of an earlier mark of the same part.

        Args:
            part: with its frame still there.
            mark: one of `MARKS`; None only takes the earlier one back.
            who: made the mark.

        Returns:
            The path of the picture, if there is one now.

        Raises:
            DataError: the frame has gone, or the files cannot be written.
        """
        raw = part.raw
        if raw is None and mark is not None:
            raise DataError(
                f"frame {part.captured.number} of {part.captured.camera} is no longer in memory: "
                "mark a part soon after its verdict"
            )
        try:
            for other in MARKS:
                path = self._path(part, other)
                path.unlink(missing_ok=True)
                path.with_suffix(".json").unlink(missing_ok=True)
            if raw is None or mark is None:
                return None
            path = self._path(part, mark)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, cv2.imencode(".png", raw[0].frame)[1].tobytes())
            text = json.dumps(_document(part, mark, who), indent=2, allow_nan=False)
            write_whole(path.with_suffix(".json"), text.encode())
        except OSError as error:
            raise DataError(
                f"cannot save the picture in {self._folder}: {error.strerror}: "
                "check the folder and the space on the disk"
            ) from error
        return path

    def _path(self, part: Part, mark: str) -> Path:
        captured = part.captured
        camera = re.sub(r"[^\w-]+", "_", captured.camera)
        name = f"{time_in_names(captured.timestamp)}-{camera}-{captured.number:06d}.png"
        return self._folder.joinpath(folder_name(part.info.category), *MARKS[mark], name)


def _document(part: Part, mark: str, who: str) -> dict[str, object]:
    return {
        "mark": mark,
        "label": "good" if mark == "false alarm" else "anomalous",
        "who": who,
        "marked_at": iso_time(datetime.now(timezone.utc)),
        **part.verdict,
        "method": part.info.method,
        "category": part.info.category,
        "model_created_at": part.info.created_at,
    }
