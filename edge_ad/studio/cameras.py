"""Cameras on a page: that of the browser, and those of this machine or of the network."""

import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

from nicegui import ui

from edge_ad_runtime.cameras import CapturedFrame, FrameSource, open_source
from edge_ad_runtime.cameras.feed import Feed
from edge_ad_runtime.errors import EdgeAdError
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.stream.collect import Collection, collect
from edge_ad_runtime.stream.triggers import Triggers, accept
from edge_ad_runtime.supervisor import Supervisor

Answer = Callable[[dict[str, object]], Awaitable[None] | None]


class BrowserCamera(ui.element, component="static/browser_camera.js"):
    """The camera of the computer on which the browser runs; pictures go to an address."""

    def __init__(
        self, url: str, kind: str, on_answer: Answer, on_ready: Callable[[], None]
    ) -> None:
        """Show nothing before `start`.

        Args:
            url: where each picture is PUT.
            kind: `image/png`, without loss, or `image/jpeg`.
            on_answer: gets the JSON that the address answers.
            on_ready: is called when the camera runs.
        """
        super().__init__()
        self.props["url"], self.props["kind"], self.props["every"] = url, kind, 0
        self.on("answer", lambda event: on_answer(dict(event.args)))
        self.on("ready", on_ready, args=[])

    def start(self) -> None:
        """Ask for the camera and show it."""
        self.run_method("start")

    def stop(self) -> None:
        """Let go of the camera."""
        self.run_method("stop")

    def take(self) -> None:
        """Send one picture."""
        self.run_method("take")

    def every(self, milliseconds: int) -> None:
        """Send a picture so often; 0: only when `take` is called."""
        self.props["every"] = milliseconds
        self.update()

    def aim(self, url: str) -> None:
        """Send the pictures to another address from now on."""
        self.props["url"] = url
        self.update()


class _Seen(FrameSource):
    """A source that remembers its newest frame, for a page to show."""

    def __init__(self, source: FrameSource) -> None:
        self.name, self.live = source.name, source.live
        self.newest: Frame | None = None
        self.number = 0
        self._source = source

    def read(self) -> CapturedFrame | None:
        captured = self._source.read()
        if captured is not None:
            self.newest, self.number = captured.frame, captured.number
        return captured

    def cancel(self) -> None:
        self._source.cancel()

    def close(self) -> None:
        self._source.close()


class CameraCollection:
    """A camera from which a page takes pictures, as `edge-ad collect` does.

    Attributes:
        collection: what has been taken so far.
        said: the last sentence about it.
    """

    def __init__(self, spec: str, folder: Path, seconds: float | None) -> None:
        """Open the camera and start to take pictures.

        Args:
            spec: as for `edge-ad collect --camera`.
            folder: for the pictures, which is there.
            seconds: between two pictures; None: one for each `ask`.

        Raises:
            EdgeAdError: the camera cannot be opened.
        """
        self.collection, self.said, self.is_over = Collection(), "", False
        changed = threading.Condition()
        self._seen = _Seen(open_source(spec))
        self._feed = Feed(
            self._seen.name,
            self._seen,
            report=self._report,
            changed=changed,
        )
        self._stop = threading.Event()
        self._triggers = None if seconds else Triggers([self._feed.name], self._report)

        def work() -> None:
            collect(
                self._feed,
                folder,
                self.collection,
                changed=changed,
                every=seconds or 0.0,
                triggers=self._triggers,
                stop=self._stop,
                tell=self._say,
            )
            self._end(self.collection.complaint)

        Supervisor().start("collect", work, died=lambda error: self._end(_words(error)))

    @property
    def newest(self) -> tuple[int, Frame | None]:
        """The number of the newest frame, and the frame."""
        return self._seen.number, self._seen.newest

    def ask(self) -> None:
        """Take one picture from now on."""
        if self._triggers is not None:
            accept(self._triggers, b"picture", self._report)

    def close(self) -> None:
        """Take no more pictures and let go of the camera."""
        self._stop.set()
        self._feed.close()

    def _report(self, event: Event) -> None:
        self._say(event.message)

    def _say(self, sentence: str) -> None:
        self.said = sentence

    def _end(self, sentence: str) -> None:
        self.said, self.is_over = sentence or self.said, True


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, EdgeAdError) else "the camera broke off unexpectedly"
