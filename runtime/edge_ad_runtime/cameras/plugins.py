"""Sources from other packages: GenICam, vendor SDKs."""

import re
from collections.abc import Callable
from importlib.metadata import entry_points

from edge_ad_runtime.cameras.base import FrameSource
from edge_ad_runtime.errors import CameraError

GROUP = "edge_ad.sources"
"""Entry-point group. The name is the word before the colon; the object is a function that takes the
text after the colon and returns a `FrameSource`."""

_SPEC = re.compile(r"([A-Za-z][\w-]+):(.*)", re.DOTALL)


def find_plugin(spec: str) -> Callable[[], FrameSource] | None:
    """Return what opens `name:text` if a package registers the name; else None.

    The returned function raises:
        CameraError: the plug-in cannot be loaded, or gives no source.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        return None
    name, text = match.groups()
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if not found:
        return None

    def open_plugin() -> FrameSource:
        try:
            source = found[0].load()(text)
        except ImportError as error:
            raise CameraError(
                f"the source plug-in '{name}' cannot be loaded ({error}): install it again"
            ) from error
        if not isinstance(source, FrameSource):
            raise CameraError(
                f"the source plug-in '{name}' returned {type(source).__name__}, not a "
                "FrameSource: report it to its authors"
            )
        return source

    return open_plugin
