"""Who asks `edge-ad collect` for pictures: a key, lines of standard input, a broker, HTTP."""

import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import click

from edge_ad.cli.stream_options import mqtt_fields, serve_fields
from edge_ad_runtime.config_table import read_table
from edge_ad_runtime.errors import ConfigError
from edge_ad_runtime.events import Report
from edge_ad_runtime.stream.config import ServeConfig, TriggerConfig
from edge_ad_runtime.stream.triggers import Triggers, accept, accept_lines, standard_input
from edge_ad_runtime.supervisor import Supervisor

Config = TypeVar("Config")
_KEYS = {"space": b" ", "enter": b"\n", "tab": b"\t"}


@contextmanager
def asked_by(
    triggers: Triggers | None,
    report: Report,
    *,
    key: str | None,
    mqtt: str | None,
    serve: str | None,
) -> Iterator[None]:
    """Let whoever the options name ask for pictures meanwhile.

    Args:
        triggers: take the requests; None: nobody asks.
        report: takes the events of requests that are refused.
        key: a key of the terminal.
        mqtt: the broker's URL.
        serve: the address at which to listen. Without any of the three, standard input asks.

    Raises:
        ConfigError: that is not possible here.
    """
    if triggers is None:
        yield
    elif key is not None:
        with _asked_by_key(triggers, report, key):
            yield
    elif mqtt is not None:
        with _asked_by_message(triggers, report, mqtt):
            yield
    elif serve is not None:
        with _asked_by_http(triggers, report, serve):
            yield
    else:
        Supervisor().start("trigger", partial(accept_lines, triggers, standard_input(), report))
        yield


@contextmanager
def _asked_by_message(triggers: Triggers, report: Report, url: str) -> Iterator[None]:
    from edge_ad_runtime.outputs.mqtt import MqttConfig, MqttSender

    # A topic of its own, so that a stream's status is not overwritten.
    config = _read(MqttConfig, mqtt_fields(url) | {"topic": "edge-ad-collect"}, "--mqtt")
    topic = TriggerConfig().topic
    sender = MqttSender(config, {topic: partial(accept, triggers, report=report)}, report)
    try:
        try:
            sender.send("status", "online")
        except OSError as error:
            raise ConfigError(
                f"cannot reach the broker {sender.name} ({error}): check --mqtt, and that it runs"
            ) from error
        click.echo(f"each message at {topic} takes a picture, Ctrl-C ends", err=True)
        yield
    finally:
        sender.close()


@contextmanager
def _asked_by_http(triggers: Triggers, report: Report, address: str) -> Iterator[None]:
    from edge_ad_runtime.page.server import local_url, trigger_server

    config = _read(ServeConfig, serve_fields(address), "--serve")
    server = trigger_server(triggers, config, Supervisor(report))
    try:
        where = f"{local_url(server.address)}/trigger"
        click.echo(f"each POST to {where} takes a picture, Ctrl-C ends", err=True)
        yield
    finally:
        server.close()


def _read(kind: type[Config], fields: dict[str, object], option: str) -> Config:
    """Return the configuration that an option describes.

    Raises:
        ConfigError: it cannot be used.
    """
    errors: list[str] = []
    config = read_table(kind, fields, errors)
    if config is None or errors:
        raise ConfigError(f"cannot use {option}: {'; '.join(errors)}")
    return config


@contextmanager
def _asked_by_key(triggers: Triggers, report: Report, key: str) -> Iterator[None]:
    wanted = _KEYS.get(key.lower(), key.encode())
    if len(key) != 1 and key.lower() not in _KEYS:
        raise ConfigError(f"expected --key {', '.join(_KEYS)} or one letter, got {key!r}")
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigError("--key needs a terminal as stdin: use --trigger stdin without one")
    with _unbuffered_keys() as read:
        closing, ask = threading.Event(), partial(accept, triggers, b"key", report)
        thread = Supervisor().start("keys", lambda: _read_keys(read, wanted, ask, closing))
        click.echo(f"press {key} for a picture, Ctrl-C to end", err=True)
        try:
            yield
        finally:
            closing.set()
            thread.join()


def _read_keys(
    read: Callable[[], bytes], wanted: bytes, ask: Callable[[], None], closing: threading.Event
) -> None:
    while not closing.is_set():
        if read() == wanted:
            ask()


@contextmanager
def _unbuffered_keys() -> Iterator[Callable[[], bytes]]:
    """Let the terminal hand over each key at once; Ctrl-C stays what it is.

    Raises:
        ConfigError: this system has no such terminals.
    """
    try:
        import termios
        import tty
    except ModuleNotFoundError as error:
        raise ConfigError("--key works on Linux and macOS only: use --trigger stdin") from error
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)

    def read() -> bytes:
        ready, _, _ = select.select([terminal], [], [], 0.2)
        return os.read(terminal, 1) if ready else b""

    try:
        yield read
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
