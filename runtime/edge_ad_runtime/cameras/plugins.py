"""Sources from other packages: GenICam, vendor SDKs."""

import logging
import re
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TypeVar

from edge_ad_runtime.cameras.base import CapturedFrame, FrameSource
from edge_ad_runtime.errors import CameraError, EdgeAdError, redact

logger = logging.getLogger(__name__)

T = TypeVar("T")

GROUP = "edge_ad.sources"
"""Entry-point group. The name is the word before the colon; the object is a function that takes the
text after the colon and returns a `FrameSource`."""

_SPEC = re.compile(r"([A-Za-z][\w-]+):(.*)", re.DOTALL)


def find_plugin(spec: str) -> Callable[[], FrameSource] | None:
    """Return what opens `name:text` if a package registers the name; else None.

    The returned function raises:
        CameraError: the plug-in cannot be loaded, fails, or gives no source.
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
            source = _guarded(name, lambda: found[0].load()(text))
        except ImportError as error:
            raise CameraError(
                f"the source plug-in '{name}' cannot be loaded ({error}): install it again"
            ) from error
        if not isinstance(source, FrameSource):
            raise CameraError(
                f"the source plug-in '{name}' returned {type(source).__name__}, not a "
                "FrameSource: report it to its authors"
            )
        return _PluginSource(name, source)

    return open_plugin


class _PluginSource(FrameSource):
    """A source from another package, whose unexpected errors count as a lost camera."""

    def __init__(self, plugin: str, source: FrameSource) -> None:
        self._plugin = plugin
        self._source = source
        self.name = redact(str(_guarded(plugin, lambda: source.name)))
        self.live = bool(_guarded(plugin, lambda: source.live))

    def read(self) -> CapturedFrame | None:
        captured = _guarded(self._plugin, self._source.read)
        if captured is not None and not isinstance(captured, CapturedFrame):
            raise CameraError(
                f"the source plug-in '{self._plugin}' delivered {type(captured).__name__}, not a "
                "CapturedFrame: report it to its authors"
            )
        return captured

    def cancel(self) -> None:
        self._attempt(self._source.cancel)

    def close(self) -> None:
        self._attempt(self._source.close)

    def _attempt(self, work: Callable[[], None]) -> None:
        """Call what nobody waits for: its failure changes nothing any more."""
        try:
            _guarded(self._plugin, work)
        except (EdgeAdError, ImportError) as error:
            logger.warning("%s", error)


def _guarded(plugin: str, work: Callable[[], T]) -> T:
    """Call a plug-in, the one place where code of others runs that may raise anything.

    Raises:
        CameraError: the plug-in failed in a way that it does not explain.
        EdgeAdError, ImportError: as the plug-in raised it.
    """
    try:
        return work()
    except (EdgeAdError, ImportError):
        raise
    except Exception as error:
        # The text of the error may hold an address with a password; the log has it.
        logger.error("the source plug-in '%s' failed", plugin, exc_info=error)
        raise CameraError(
            f"the source plug-in '{plugin}' failed with an unexpected {type(error).__name__}: "
            "the log has the traceback, report it to its authors"
        ) from error
