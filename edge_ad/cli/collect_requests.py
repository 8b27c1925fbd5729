"""Who asks `edge-ad collect` for pictures: a key, lines on standard input, messages of a broker."""

import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from edge_ad.cli.stream_options import mqtt_fields
from edge_ad_runtime.errors import ConfigError
from edge_ad_runtime.supervisor import Supervisor

if TYPE_CHECKING:
    from edge_ad_runtime.stream.collect import Pace

_KEYS = {"space": b" ", "enter": b"\n", "tab": b"\t"}


@contextmanager
def asked_by_message(url: str | None, pace: "Pace", tell: Callable[[str], None]) -> Iterator[None]:
    """Let messages of a broker ask for pictures meanwhile, at the topic of a stream's triggers.

    Raises:
        ConfigError: the broker cannot be used, or not be reached.
    """
    if url is None:
        yield
        return
    from edge_ad_runtime.config_table import read_table
    from edge_ad_runtime.outputs.mqtt import MqttConfig, MqttSender
    from edge_ad_runtime.stream.config import TriggerConfig

    # A topic of its own, so that a stream's status is not overwritten.
    errors: list[str] = []
    config = read_table(MqttConfig, mqtt_fields(url) | {"topic": "edge-ad-collect"}, errors)
    if config is None or errors:
        raise ConfigError(f"cannot use --mqtt: {'; '.join(errors)}")
    topic = TriggerConfig().topic
    sender = MqttSender(config, {topic: lambda payload: pace.ask()}, lambda e: tell(e.message))
    try:
        try:
            sender.send("status", "online")
        except OSError as error:
            raise ConfigError(
                f"cannot reach the broker {sender.name} ({error}): check --mqtt, and that it runs"
            ) from error
        click.echo(f"a message at {topic} asks for a picture, Ctrl-C ends", err=True)
        yield
    finally:
        sender.close()


@contextmanager
def asked_by(key: str | None, trigger: str | None, pace: "Pace") -> Iterator[None]:
    """Let a key or the lines of stdin ask for pictures meanwhile."""
    if trigger == "stdin" and sys.stdin is not None:
        Supervisor().start("trigger", lambda: _read_lines(pace))
    if key is None:
        yield
        return
    wanted = _KEYS.get(key.lower(), key.encode())
    if len(key) != 1 and key.lower() not in _KEYS:
        raise ConfigError(f"expected --key {', '.join(_KEYS)} or one letter, got {key!r}")
    if not sys.stdin.isatty():
        raise ConfigError("--key needs a terminal as stdin: use --trigger stdin without one")
    with _unbuffered_keys() as read:
        closing = threading.Event()
        thread = Supervisor().start("keys", lambda: _read_keys(read, wanted, pace, closing))
        click.echo(f"press {key} for a picture, Ctrl-C to end", err=True)
        try:
            yield
        finally:
            closing.set()
            thread.join()


def _read_lines(pace: "Pace") -> None:
    # Without Python's buffer, whose lock a thread that waits would hold when the program ends.
    unfinished = False
    while data := os.read(sys.stdin.fileno(), 4096):
        for _ in range(data.count(b"\n")):
            pace.ask()
        unfinished = not data.endswith(b"\n")
    if unfinished:
        pace.ask()
    pace.finish()


def _read_keys(
    read: Callable[[], bytes], wanted: bytes, pace: "Pace", closing: threading.Event
) -> None:
    while not closing.is_set():
        if read() == wanted:
            pace.ask()


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
