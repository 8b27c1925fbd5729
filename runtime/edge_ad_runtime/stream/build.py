"""Make the outputs that a configuration asks for."""

import io
import sys
from collections.abc import Callable
from functools import partial

from edge_ad_runtime.errors import EdgeAdError
from edge_ad_runtime.outputs import Delivery, JsonLines, Output, OverlayFolder
from edge_ad_runtime.outputs.gpio import Digital, open_line
from edge_ad_runtime.outputs.json_lines import JsonFile
from edge_ad_runtime.outputs.mqtt import MqttConfig, MqttSender
from edge_ad_runtime.outputs.pictures import InfoOf
from edge_ad_runtime.outputs.queued import Background, LiveLines
from edge_ad_runtime.outputs.remote import Sender, Spooled
from edge_ad_runtime.outputs.spool import Spool
from edge_ad_runtime.outputs.webhook import WebhookConfig, WebhookSender
from edge_ad_runtime.stream.config import StreamConfig
from edge_ad_runtime.stream.triggers import Triggers, accept
from edge_ad_runtime.supervisor import Supervisor


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
