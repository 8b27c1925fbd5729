"""Step 5, Try live: a camera or a video through the exported file, with verdicts."""

import asyncio
import secrets
import threading
from pathlib import Path

from nicegui import ui

from edge_ad.project.job import Job
from edge_ad.project.thumbnails import shrunk
from edge_ad.studio.cameras import BrowserCamera
from edge_ad.studio.deploy import choose_training, export_first
from edge_ad.studio.layout import complain, go_on, step_address, words_of
from edge_ad.studio.state import Studio, model_job, model_path
from edge_ad_runtime import CapturedFrame, Result, Scorer, draw_overlay, open_source, run_stream
from edge_ad_runtime.errors import EdgeAdError
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.model.overlay import encode_jpeg
from edge_ad_runtime.supervisor import Supervisor

_SHOWN_SIDE = 1000
_PICTURE_SECONDS = 0.12
"""Of files, a page sees at most so many parts a second; a camera has its own pace."""

_BROWSER_MS = 400


class Session:
    """One trial: the newest verdict, and how many there were of each kind.

    Attributes:
        id: in the address of its pictures.
        n: verdicts so far.
        n_stopped: anomalous ones.
        said: the last sentence about the source.
        is_over: whether the source has ended.
    """

    name = "studio"

    def __init__(self, scorer: Scorer) -> None:
        """Wait for frames."""
        self.id = secrets.token_hex(8)
        self.n = self.n_stopped = 0
        self.said, self.is_over = "", False
        self._scorer = scorer
        self._part: tuple[Frame, Result] | None = None
        self._counting = threading.Lock()
        self._stop = threading.Event()
        self._wait = 0.0

    @property
    def newest(self) -> Result | None:
        """The last verdict; None: none yet."""
        return None if self._part is None else self._part[1]

    def start(self, spec: str) -> None:
        """Score a camera, a video or pictures in a thread, until `close`.

        Raises:
            EdgeAdError: the source cannot be opened.
        """
        source = open_source(spec)
        self._wait = 0.0 if source.live else _PICTURE_SECONDS

        def work() -> None:
            run_stream(source, self._scorer, [self], stop=self._stop)
            self._end("The source has ended.")

        Supervisor().start("try live", work, died=lambda error: self._end(_words(error)))

    def score(self, frame: Frame) -> Result:
        """Score one frame that came otherwise."""
        result = self._scorer.score(frame)
        self._keep(frame, result)
        return result

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Take a verdict of the stream."""
        self._keep(captured.frame, result)
        self._stop.wait(self._wait)

    def event(self, event: Event) -> None:
        """Take an event of the stream."""
        self.said = event.message

    def picture(self) -> bytes:
        """Return the newest part under its heat map, as JPEG; empty: none yet."""
        part = self._part
        if part is None:
            return b""
        frame, result = part
        overlay = draw_overlay(frame, result, self._scorer.info)
        return encode_jpeg(shrunk(overlay, _SHOWN_SIDE), quality=85)

    def close(self) -> None:
        """End it."""
        self._stop.set()

    def _keep(self, frame: Frame, result: Result) -> None:
        with self._counting:  # a browser may send two pictures at once
            self._part = frame, result
            self.n += 1
            self.n_stopped += result.anomalous

    def _end(self, sentence: str) -> None:
        self.said, self.is_over = sentence, True


def draw(studio: Studio, category: str, training: str) -> None:
    """Draw the page about a training, or the newest one."""
    job = choose_training(
        studio,
        category,
        training,
        "live",
        "Try it live",
        "Show good and defective parts to the camera and watch the verdicts of the exported file.",
    )
    if job is None:
        return
    export = model_job(studio, job)
    if export is None:
        export_first(studio, job, "The trial runs the exported model file. There is none yet.")
        return
    try:
        Live(studio, category, job, model_path(export))
    except EdgeAdError as error:
        complain(str(error))


class Live:
    """One open page."""

    def __init__(self, studio: Studio, category: str, job: Job, model: Path) -> None:
        """Draw it; the model file is loaded by the button."""
        self._studio, self._model = studio, model
        self._session: Session | None = None
        self._shown, self._is_gone = 0, False
        with ui.element("div").classes("columns"):
            with ui.column().classes("wide panel"):
                self._hint = ui.label("Choose a source and press Start.").classes("empty")
                self._picture = ui.interactive_image().classes("live")
                self._browser_box = ui.column().classes("w-full")
            with ui.column().classes("side panel"):
                self._kind = ui.radio(
                    {"machine": "Camera, URL or file", "browser": "Camera of this browser"},
                    value="machine",
                )
                self._source = ui.input(
                    "Camera, URL, video or folder", value="0", placeholder="rtsp://10.0.0.5/a"
                ).props("dense outlined")
                self._source.classes("w-full").bind_visibility_from(
                    self._kind, "value", value="machine"
                )
                with ui.row():
                    self._start = ui.button("Start", on_click=self._on_start).props("unelevated")
                    self._end = ui.button("Stop", on_click=self._on_stop).props("outline")
                self._end.disable()
                self._counts = ui.label().classes("small")
                self._words = ui.label().classes("small")
                self._said = ui.label().classes("small warn")
                ui.label(f"Model file: {model.name}").classes("small")
                go_on("Next: deploy", step_address(category, "deploy", run=job.id))
        ui.timer(0.15, self._show)
        # A page that is closed, or loaded anew, holds no camera.
        ui.context.client.on_delete(self._on_gone)

    async def _on_start(self) -> None:
        self._forget()
        browser = self._kind.value == "browser"
        spec = str(self._source.value or "").strip()

        def begin() -> Session:
            session = Session(self._studio.scorer(self._model))
            if not browser:
                session.start(spec)
            return session

        self._start.disable()
        try:
            session = await asyncio.to_thread(begin)
        except (EdgeAdError, OSError) as error:
            complain(words_of(error))
            self._start.enable()
            return
        if self._is_gone:  # the page was closed while the source was being opened
            session.close()
            return
        self._session, self._shown = session, 0
        self._studio.sessions[session.id] = session
        self._browser_box.clear()
        if browser:
            with self._browser_box:
                camera = BrowserCamera(
                    f"/studio/score/{session.id}", "image/jpeg", self._on_answer, lambda: None
                )
                camera.every(_BROWSER_MS)
                camera.style("max-width: 320px")
                ui.timer(0.1, camera.start, once=True)
        self._end.enable()

    def _on_stop(self) -> None:
        self._close()
        self._browser_box.clear()
        self._start.enable()
        self._end.disable()

    def _on_answer(self, answer: dict[str, object]) -> None:
        if "error" in answer and self._session is not None:
            self._session.said = str(answer["error"])

    def _close(self) -> None:
        """End the trial; its last picture stays."""
        if self._session is not None:
            self._session.close()

    def _on_gone(self) -> None:
        self._is_gone = True
        self._forget()

    def _forget(self) -> None:
        self._close()
        if self._session is not None:
            self._studio.sessions.pop(self._session.id, None)

    def _show(self) -> None:
        session = self._session
        if session is None:
            return
        result = session.newest
        if session.n != self._shown and result is not None:
            self._shown = session.n
            self._picture.set_source(f"/studio/live/{session.id}.jpg?n={session.n}")
            self._hint.set_visibility(False)
            good = session.n - session.n_stopped
            self._counts.set_text(f"{session.n} parts: {good} good, {session.n_stopped} anomalous")
            self._words.set_text(f"{result.latency_ms:.0f} ms for a part on this machine")
        self._said.set_text(session.said)
        if session.is_over and not self._start.enabled:
            self._start.enable()
            self._end.disable()


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, EdgeAdError) else "the trial broke off unexpectedly"
