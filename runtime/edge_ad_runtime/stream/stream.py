"""A whole stream, from configuration to summary: cameras, models, triggers, alarms, outputs."""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Protocol

from edge_ad_runtime.cameras import CapturedFrame, FrameSource
from edge_ad_runtime.errors import ConfigError, StuckError
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.accepted import AcceptedVersions
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.model.info import ModelInfo
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.model.scorer import Scorer
from edge_ad_runtime.model.signature import RequiredSignature
from edge_ad_runtime.outputs import Delivery, Writer
from edge_ad_runtime.stream.build import add_outputs, open_all, open_camera
from edge_ad_runtime.stream.config import CameraConfig, StreamConfig
from edge_ad_runtime.stream.drift import Drift
from edge_ad_runtime.stream.installs import Installs, InstallSocket
from edge_ad_runtime.stream.loop import Loop
from edge_ad_runtime.stream.loops import StreamSummary, notify, run_loops, sum_up
from edge_ad_runtime.stream.model_file import ModelFile
from edge_ad_runtime.stream.model_slot import ModelSlot, Override
from edge_ad_runtime.stream.thresholds import Thresholds
from edge_ad_runtime.stream.triggers import Triggers, accept_lines, standard_input
from edge_ad_runtime.stream.watchers import Alarm, Overload
from edge_ad_runtime.supervisor import Supervisor


class Stream:
    """Everything that runs in one `edge-ad stream`, but for the live page.

        with Stream(read_config("line1.toml")) as stream:
            summary = stream.run(threading.Event())

    Attributes:
        config: what was asked for.
        models: the model files.
        triggers: take requests; None where every frame is scored.
        delivery: takes verdicts and events.
        supervisor: starts the threads.
    """

    def __init__(self, config: StreamConfig) -> None:
        """Load the model files, open the cameras and the outputs; no frame is scored yet.

        A camera that cannot be opened while another one can is lost and tried again. What has been
        opened is closed again when something else cannot be used.

        Raises:
            ModelFileError, DeviceError: a model file cannot be used.
            CameraError: no camera can be opened.
            DataError: a file, a folder or standard input cannot be used.
            EdgeAdError: an output cannot be used.
        """
        self.config = config
        self._threshold = config.threshold
        self.delivery = Delivery()
        self.supervisor = Supervisor(self.delivery.event)
        self.triggers = self._triggers()
        self._lines = standard_input() if self.config.trigger.mode == "stdin" else None
        with ExitStack() as owned:
            owned.callback(self.delivery.close)
            owned.callback(self.supervisor.close)
            paths = dict.fromkeys(camera.model for camera in config.cameras)
            self.models = [self._load(path) for path in paths]
            slots = {model.path: model.slot for model in self.models}
            self._slots = {camera.name: slots[camera.model] for camera in config.cameras}
            self._sources = open_all(config.cameras, self.supervisor)
            # From the start of `run` on, the readers own and close the sources.
            self._unread = owned.enter_context(ExitStack())
            for source in self._sources:
                if source is not None:
                    self._unread.callback(source.close)
            add_outputs(
                self.delivery,
                config,
                info_of=self.info_of,
                files_only=self.files_only,
                triggers=self.triggers,
                supervisor=self.supervisor,
            )
            self._thresholds = Thresholds(self._slots, config.state_file, self.delivery.event)
            self._thresholds.restore()
            for model in self.models:
                if model.fallen_back is not None:
                    self.delivery.event(model.fallen_back)
            self._installs = Installs(self.models, lambda: self._threshold, self._installed)
            if config.install is not None:
                path = config.install.socket
                owned.callback(InstallSocket(path, self._installs, self.supervisor).close)
            self._owned = owned.pop_all()

    def __enter__(self) -> "Stream":
        """Return the stream itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let the outputs finish, and close what is open; a second call does nothing."""
        self._owned.close()

    @property
    def files_only(self) -> bool:
        """Whether no source is live, so that nothing is urgent."""
        return not any(source is None or source.live for source in self._sources)

    def info_of(self, camera: str) -> ModelInfo:
        """Return what the model in use at a camera says, with the limit in force there."""
        return self._slots[camera].info(camera)

    def override_of(self, camera: str) -> Override | None:
        """Return the limit that somebody has set at a camera; None: its own limit applies."""
        return self._slots[camera].overrides.get(camera)

    def own_threshold_of(self, camera: str) -> float:
        """Return the limit of a camera while nobody has set another.

        That is the model's, or of a calibration on this device, or of the configuration.
        """
        return self._slots[camera].own_threshold(camera)

    def set_threshold(self, camera: str, threshold: float, *, who: str = "the program") -> None:
        """Change the decision limit at one camera; an event on every output reports it.

        Args:
            camera: its name; other cameras keep their limits, also those with the same model.
            threshold: a finite number, in the unit of the model's score.
            who: changes it.

        Raises:
            ConfigError: there is no such camera, or the threshold is not a finite number.
        """
        self._thresholds.set(camera, threshold, who)

    def reset_threshold(self, camera: str, *, who: str = "the program") -> None:
        """Give a camera back the limit of its model, or of the configuration.

        Raises:
            ConfigError: there is no such camera.
        """
        self._thresholds.reset(camera, who)

    def reload(self, config: StreamConfig) -> None:
        """Take over the threshold of a new configuration, and model files that have changed.

        The limits that people have set at cameras stay. What cannot be used is an event, and the
        old model goes on.
        """
        self._threshold = config.threshold
        for model in self.models:
            event = model.reload(config.threshold)
            if event is not None:
                self.delivery.event(event)
        self._thresholds.report_kept()

    def _installed(self, event: Event) -> None:
        """Report what `edge-ad install` did, and which limits of people outlive it."""
        self.delivery.event(event)
        if event.kind in ("model installed", "model rolled back", "model replaced"):
            self._thresholds.report_kept()

    def run(self, stop: threading.Event) -> StreamSummary:
        """Score until all sources have ended or `stop` is set, and close everything.

        Raises:
            DeviceError: a device can no longer run its model.
            StuckError: a loop did not end in time after a stop, perhaps because an output never
                returns. Nothing is closed then: leave the process.
            EdgeAdError: a loop broke off by a fault in the program.
        """
        try:
            loops = self._loops()
            if self.triggers is not None and self._lines is not None:
                work = partial(accept_lines, self.triggers, self._lines, self.delivery.event)
                self.supervisor.start("trigger input", work)
            notify("READY=1")
            try:
                run_loops(loops, stop, self.supervisor, max_frames=self.config.max_frames)
            except StuckError:
                self._owned.pop_all()  # closing an output in which a thread hangs would hang, too
                raise
        finally:
            notify("STOPPING=1")
            self.close()
        return sum_up([loop.tally for loop in loops], self.delivery.lost)

    def _triggers(self) -> Triggers | None:
        if self.config.trigger.mode == "free":
            return None
        names = [camera.name for camera in self.config.cameras]
        return Triggers(names, self.delivery.event, timeout=self.config.trigger.timeout)

    def _load(self, path: Path) -> ModelFile:
        config = self.config
        signature = config.signature
        return ModelFile(
            path,
            device=config.device,
            threads=config.threads,
            threshold=config.threshold,
            min_region_area=config.min_region_area,
            accelerator=config.accelerator,
            required=self._required_signature(),
            accepted=None if signature is None else AcceptedVersions(signature.state_file),
        )

    def _required_signature(self) -> RequiredSignature | None:
        signature = self.config.signature
        if signature is None:
            return None
        try:
            public_key = signature.key.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"cannot read the public key {signature.key} ({error.strerror}): check its path"
            ) from error
        return RequiredSignature(public_key=public_key, least_version=signature.least_version)

    def _loops(self) -> list[Loop]:
        """Return one loop for each model, with its cameras being read."""
        self._unread.pop_all()
        loops = {
            model.path: Loop(model.slot, self.delivery, self.triggers, self.supervisor)
            for model in self.models
        }
        for camera, source in zip(self.config.cameras, self._sources, strict=True):
            self._add_camera(loops[camera.model], camera, source)
        return list(loops.values())

    def _add_camera(self, loop: Loop, camera: CameraConfig, source: FrameSource | None) -> None:
        feed = loop.add_camera(
            camera.name,
            source,
            reopen=partial(open_camera, camera),
            recovery=self.config.recovery,
            every=camera.every,
        )
        info = partial(self._slots[camera.name].info, camera.name)
        loop.add_monitor(camera.name, Drift(info))
        if self.config.install is not None:
            loop.add_monitor(camera.name, self._installs.shadows[camera.model])
        # With triggers, frames that nobody asked for are passed over all the time.
        if self.triggers is None and (source is None or source.live or camera.watch):
            loop.add_monitor(camera.name, Overload(lambda: feed.skipped))
        if self.config.alarm is not None:
            alarm = Alarm(self.config.alarm, lambda: info().map_threshold)
            loop.add_monitor(camera.name, alarm)


def run_stream(
    source: FrameSource,
    scorer: "FrameScorer",
    outputs: Sequence[Writer] = (),
    *,
    max_frames: int | None = None,
    stop: threading.Event | None = None,
    reopen: Callable[[], FrameSource] | None = None,
) -> StreamSummary:
    """Score the frames of one source until it ends, and hand each verdict to every output.

    Files: every frame once, in order. Live: the newest frame each time; skipped ones are counted.
    A frame that cannot be read or scored is an event and counted, and the stream goes on; an output
    that fails likewise. The source is closed at the end.

    Args:
        source: where frames come from.
        scorer: a `Scorer`, or anything with its `score`.
        outputs: where verdicts go; those with an `event` get the events too.
        max_frames: end after this many frames, failed ones included.
        stop: set it, from a signal handler or another thread, to end after the current frame.
        reopen: opens a live source again when it is lost; None: then the stream ends.

    Raises:
        DeviceError: the device can no longer run the model.
        ConfigError: the source is not open, or an output cannot be written to.
    """
    if not isinstance(source, FrameSource):
        raise ConfigError(
            f"expected an open source, got {type(source).__name__}: open it with open_source"
        )
    for output in outputs:
        if not callable(getattr(output, "write", None)):
            raise ConfigError(
                f"expected outputs with a method write(captured, result), got {output!r:.80}"
            )
    delivery = Delivery(outputs)
    model = ModelSlot(scorer) if isinstance(scorer, Scorer) else _OneByOne(scorer)
    loop = Loop(model, delivery)
    loop.add_camera(source.name, source, reopen=reopen)
    try:
        loop.run(stop or threading.Event(), max_frames=max_frames)
    finally:
        delivery.close()
    return sum_up([loop.tally], delivery.lost)


class FrameScorer(Protocol):
    """What `run_stream` needs of a scorer."""

    def score(self, frame: Frame) -> Result:
        """Score one frame: uint8, H x W x 3, BGR."""


class _OneByOne:
    """Somebody's own scorer as the model of a loop."""

    prepare = None

    def __init__(self, scorer: FrameScorer) -> None:
        self._scorer = scorer

    def score(self, batch: Sequence[CapturedFrame]) -> list[Result]:
        return [self._scorer.score(captured.frame) for captured in batch]

    def gains_by_batching(self, size: int) -> bool:
        return False
