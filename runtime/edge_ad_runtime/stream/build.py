"""Make the outputs that a configuration asks for."""

import io
import sys
from functools import partial

from edge_ad_runtime.outputs import Delivery, JsonLines, Output, OverlayFolder
from edge_ad_runtime.outputs.background import Background
from edge_ad_runtime.outputs.gpio import Digital, open_line
from edge_ad_runtime.outputs.json_lines import JsonConfig
from edge_ad_runtime.outputs.live_lines import LiveLines
from edge_ad_runtime.outputs.mqtt import MqttConfig, MqttSender
from edge_ad_runtime.outputs.pictures import InfoOf, PicturesConfig
from edge_ad_runtime.outputs.remote import Spooled
from edge_ad_runtime.outputs.retention import Limits
from edge_ad_runtime.outputs.rotating import RotatingFile
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
    if outputs.stdout:
        add(_standard_output(files_only))
    if outputs.json is not None:
        add(_lines(outputs.json))
    if outputs.mqtt is not None:
        add(_mqtt(outputs.mqtt, config, triggers, delivery))
    if outputs.webhook is not None:
        add(_webhook(outputs.webhook, delivery))
    if outputs.pictures is not None:
        several = len(config.cameras) > 1
        add(Background(_pictures(outputs.pictures, info_of, several), wait=files_only))


def _standard_output(files_only: bool) -> Output:
    """Files wait for a slow reader, cameras do not."""
    try:
        return JsonLines(sys.stdout) if files_only else LiveLines(sys.stdout.fileno())
    except io.UnsupportedOperation:
        # A notebook's, for example: it is in memory, where nobody waits.
        return JsonLines(sys.stdout)


def _lines(config: JsonConfig) -> Output:
    max_bytes = round(config.max_mb * 1e6)
    return JsonLines(RotatingFile(config.path, max_bytes=max_bytes, files=config.files))


def _pictures(config: PicturesConfig, info_of: InfoOf, several: bool) -> Output:
    limits = Limits(count=config.max_count, days=config.max_days, megabytes=config.max_mb)
    return OverlayFolder(config.folder, info_of, keep=config.keep, limits=limits, by_camera=several)


def _mqtt(
    config: MqttConfig, stream: StreamConfig, triggers: Triggers | None, delivery: Delivery
) -> Output:
    subscribe = {}
    if stream.trigger.mode == "mqtt" and triggers is not None:
        subscribe[stream.trigger.topic] = partial(_take, triggers, delivery)
    spool = Spool(config.spool, limit=config.spool_limit)
    return Spooled(MqttSender(config, subscribe), spool, delivery.event)


def _take(triggers: Triggers, delivery: Delivery, text: str) -> None:
    accept(triggers, text.encode(errors="replace"), delivery.event)


def _webhook(config: WebhookConfig, delivery: Delivery) -> Output:
    spool = Spool(config.spool, limit=config.spool_limit)
    return Spooled(WebhookSender(config), spool, delivery.event)
