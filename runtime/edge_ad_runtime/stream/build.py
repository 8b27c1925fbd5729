"""Make the outputs that a configuration asks for."""

import io
import sys
from functools import partial

from edge_ad_runtime.outputs import JsonLines, Output, OverlayFolder
from edge_ad_runtime.outputs.background import Background
from edge_ad_runtime.outputs.gpio import Digital, open_line
from edge_ad_runtime.outputs.json_lines import JsonConfig
from edge_ad_runtime.outputs.live_lines import LiveLines
from edge_ad_runtime.outputs.mqtt import MqttConfig, MqttSender
from edge_ad_runtime.outputs.pictures import PicturesConfig
from edge_ad_runtime.outputs.remote import Spooled
from edge_ad_runtime.outputs.retention import Limits
from edge_ad_runtime.outputs.rotating import RotatingFile
from edge_ad_runtime.outputs.spool import Spool
from edge_ad_runtime.outputs.webhook import WebhookConfig, WebhookSender
from edge_ad_runtime.stream.stream import Line
from edge_ad_runtime.stream.trigger_inputs import accept


def add_outputs(line: Line) -> None:
    """Give a line its outputs, those first that somebody waits for.

    Raises:
        EdgeAdError: one of them cannot be used.
    """
    config = line.config.outputs
    add = line.delivery.add
    if config.digital is not None:
        digital = config.digital
        add(Digital(open_line(digital), on=digital.on, pulse_ms=digital.pulse_ms))
    if config.stdout:
        add(_standard_output(line))
    if config.json is not None:
        add(_lines(config.json))
    if config.mqtt is not None:
        add(_mqtt(line, config.mqtt))
    if config.webhook is not None:
        add(_webhook(line, config.webhook))
    if config.pictures is not None:
        add(Background(_pictures(line, config.pictures), wait=line.files_only))


def _standard_output(line: Line) -> Output:
    """Files wait for a slow reader, cameras do not."""
    try:
        return JsonLines(sys.stdout) if line.files_only else LiveLines(sys.stdout.fileno())
    except io.UnsupportedOperation:
        # A notebook's, for example: it is in memory, where nobody waits.
        return JsonLines(sys.stdout)


def _lines(config: JsonConfig) -> Output:
    max_bytes = round(config.max_mb * 1e6)
    return JsonLines(RotatingFile(config.path, max_bytes=max_bytes, files=config.files))


def _pictures(line: Line, config: PicturesConfig) -> Output:
    limits = Limits(count=config.max_count, days=config.max_days, megabytes=config.max_mb)
    several = len(line.config.cameras) > 1
    return OverlayFolder(
        config.folder, line.info_of, keep=config.keep, limits=limits, by_camera=several
    )


def _mqtt(line: Line, config: MqttConfig) -> Output:
    subscribe = {}
    trigger, triggers = line.config.trigger, line.triggers
    if trigger.mode == "mqtt" and triggers is not None:
        subscribe[trigger.topic] = partial(_take, line)
    spool = Spool(config.spool, limit=config.spool_limit)
    return Spooled(MqttSender(config, subscribe), spool, line.delivery.event)


def _take(line: Line, text: str) -> None:
    if line.triggers is not None:
        accept(line.triggers, text, line.delivery.event)


def _webhook(line: Line, config: WebhookConfig) -> Output:
    spool = Spool(config.spool, limit=config.spool_limit)
    return Spooled(WebhookSender(config), spool, line.delivery.event)
