"""Open the cameras and make the outputs that a configuration asks for."""

import io
import logging
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial

from edge_ad_runtime.cameras import FrameSource, open_source
from edge_ad_runtime.errors import CameraError, EdgeAdError
from edge_ad_runtime.outputs import Delivery, JsonLines, Output, OverlayFolder
from edge_ad_runtime.outputs.gpio import Digital, open_line
from edge_ad_runtime.outputs.json_file import JsonFile
from edge_ad_runtime.outputs.mqtt import MqttConfig, MqttSender
from edge_ad_runtime.outputs.pictures import InfoOf
from edge_ad_runtime.outputs.queued import Background, LiveLines
from edge_ad_runtime.outputs.remote import Sender, Spooled
from edge_ad_runtime.outputs.spool import Spool
from edge_ad_runtime.outputs.webhook import WebhookConfig, WebhookSender
from edge_ad_runtime.stream.config import CameraConfig, StreamConfig
from edge_ad_runtime.stream.triggers import Triggers, accept
from edge_ad_runtime.supervisor import Supervisor

logger = logging.getLogger(__name__)


def open_camera(camera: CameraConfig) -> FrameSource:
    """Open the source of one camera.

    Raises:
        CameraError: it cannot be opened.
        DataError: its file or folder cannot be used.
    """
    return open_source(camera.source, camera.settings, watch=camera.watch)


def open_all(cameras: Sequence[CameraConfig], supervisor: Supervisor) -> list[FrameSource | None]:
    """Open all at the same time, since each may take as long as a network's timeout.

    Raises:
        CameraError: none could be opened.
        DataError: a file or folder cannot be used.
    """
    opening: list[Future[FrameSource]] = [Future() for _ in cameras]
    with ExitStack() as opened:
        for camera, future in zip(cameras, opening, strict=True):
            opened.callback(future.add_done_callback, _close_opened)
            work = partial(_open_into, future, camera)
            supervisor.start(f"opening {camera.name}", work, died=future.set_exception)
        errors = [future.exception() for future in opening]
        for error in errors:
            if error is not None and (not isinstance(error, CameraError) or all(errors)):
                raise error
        opened.pop_all()
    for camera, error in zip(cameras, errors, strict=True):
        if error is not None:
            logger.warning("%s: %s", camera.name, error)
    return [None if future.exception() else future.result() for future in opening]


def _open_into(future: "Future[FrameSource]", camera: CameraConfig) -> None:
    try:
        future.set_result(open_camera(camera))
    except EdgeAdError as error:
        future.set_exception(error)


def _close_opened(future: "Future[FrameSource]") -> None:
    if future.exception() is None:
        future.result().close()


def add_outputs(
    delivery: Delivery,
    config: StreamConfig,
    *,
    info_of: InfoOf,
    files_only: bool,
    triggers: Triggers | None,
    supervisor: Supervisor,
) -> None:
    """Build the outputs of a stream and add them to its delivery, the most urgent ones first.

    Args:
        delivery: takes each output as soon as it is built, and closes them all.
        config: of the whole stream.
        info_of: gives the model in use at a camera.
        files_only: no source is live, so the stream may wait for a slow output.
        triggers: take the requests that come by MQTT; None where every frame is scored.
        supervisor: starts the threads of the outputs.

    Raises:
        EdgeAdError: one of them cannot be used.
    """
    outputs = config.outputs
    add = delivery.add
    if outputs.digital is not None:
        digital = outputs.digital
        add(Digital(open_line(digital), on=digital.on, pulse_ms=digital.pulse_ms))
    # Python has none where it was closed at the start, as a service may do.
    if outputs.stdout and sys.stdout is not None:
        add(_standard_output(files_only, supervisor))
    if outputs.json is not None:
        add(JsonFile(outputs.json))
    if outputs.mqtt is not None:
        mqtt = outputs.mqtt
        subscribe = {}
        if config.trigger.mode == "mqtt" and triggers is not None:
            take = partial(accept, triggers, report=delivery.event)
            subscribe[config.trigger.topic] = take
        make = partial(MqttSender, mqtt, subscribe, delivery.event, supervisor)
        add(_spooled(mqtt, make, delivery, supervisor))
    if outputs.webhook is not None:
        make_webhook = partial(WebhookSender, outputs.webhook)
        add(_spooled(outputs.webhook, make_webhook, delivery, supervisor))
    if outputs.pictures is not None:
        pictures = OverlayFolder(
            outputs.pictures.folder,
            info_of,
            keep=outputs.pictures.keep,
            retention=outputs.pictures.retention,
            by_camera=len(config.cameras) > 1,
        )
        add(Background(pictures, wait=files_only, supervisor=supervisor))


def _standard_output(files_only: bool, supervisor: Supervisor) -> Output:
    """Files wait for a slow reader, cameras do not."""
    try:
        if not files_only:
            return LiveLines(sys.stdout.fileno(), supervisor=supervisor)
    except io.UnsupportedOperation:
        pass  # a notebook's, for example: it is in memory, where nobody waits
    return JsonLines(sys.stdout)


def _spooled(
    config: MqttConfig | WebhookConfig,
    make_sender: Callable[[], Sender],
    delivery: Delivery,
    supervisor: Supervisor,
) -> Output:
    # The spool first: it tells whether another stream uses it, before anything is sent.
    spool = Spool(config.spool, limit=config.spool_limit)
    try:
        sender = make_sender()
    except EdgeAdError:
        spool.close()
        raise
    return Spooled(sender, spool, delivery.event, supervisor)
