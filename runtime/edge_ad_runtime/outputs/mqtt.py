"""An MQTT broker as the receiver of verdicts, and as the source of triggers."""

import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from edge_ad_runtime.config_table import ADDRESS, VARIABLE, Text, setting
from edge_ad_runtime.errors import ConfigError, MissingExtraError
from edge_ad_runtime.events import Event, Report
from edge_ad_runtime.outputs.remote import Refused
from edge_ad_runtime.supervisor import Supervisor

TOPIC = Text(
    r"(?!\$)[^+#\0]{1,1000}", "a topic of up to 1,000 characters without + and #, not below $"
)
_SEND_SECONDS = 10.0
_KEEP_ALIVE = 15


@dataclass(frozen=True, kw_only=True)
class MqttConfig:
    """An MQTT broker; the password is the content of an environment variable.

    Quality of service 2 by default: with 1 the broker itself hands messages to a subscriber twice
    when one of the two restarts. A port of 0 stands for 1883, or 8883 with TLS.
    """

    host: str = setting(text=ADDRESS, expected="the broker's name or address")
    port: int = setting(0, low=1, high=65_535)
    topic: str = setting("edge-ad", text=TOPIC)
    client_id: str = setting("", text=Text(r"[^\0]{0,1000}", "a text of up to 1,000 characters"))
    username: str | None = setting(None)
    password_env: str = setting("EDGE_AD_MQTT_PASSWORD", text=VARIABLE)
    tls: bool = setting(False)
    ca: Path | None = setting(None)
    certificate: Path | None = setting(None)
    key: Path | None = setting(None)
    qos: int = setting(2, low=0, high=2)
    spool: Path = setting(Path("edge-ad-mqtt.spool"))
    spool_limit: int = setting(100_000, low=1, high=10**7)

    def __post_init__(self) -> None:
        """Choose the port that belongs to the protocol."""
        if not self.port:
            object.__setattr__(self, "port", 8883 if self.tls else 1883)


class MqttSender:
    """Publishes below one topic: `TOPIC/CAMERA/verdict`, `TOPIC/CAMERA/event`, `TOPIC/event`.

    `TOPIC/status` is `online` while the stream runs and `offline` after it ended or vanished, as a
    retained message.
    """

    def __init__(
        self,
        config: MqttConfig,
        subscribe: Mapping[str, Callable[[bytes], None]] | None = None,
        report: Report = lambda event: None,
        supervisor: Supervisor | None = None,
    ) -> None:
        """Start to connect, in the background and for as long as it takes.

        Args:
            config: the broker.
            subscribe: functions that take the payloads of the messages of a topic, in a thread.
            report: takes the event of a message that is not taken as a trigger.
            supervisor: starts that thread, again when it failed.

        Raises:
            MissingExtraError: paho-mqtt is not installed.
            ConfigError: a certificate cannot be read.
        """
        self.name = f"mqtt://{config.host}:{config.port}"
        self._topic = config.topic.rstrip("/")
        self._qos = config.qos
        self._subscribe = subscribe or {}
        self._report = report
        self._retained: set[str] = set()
        self._received: SimpleQueue[Any] = SimpleQueue()
        if subscribe:
            (supervisor or Supervisor()).start(f"{self.name} triggers", self._hand_on)
        self._changed = threading.Condition()
        self._connected = False
        self._refusal = self._unreachable = ""
        self._closing = False
        self._pending: int | None = None
        self._confirmed: set[int] = set()
        self._client = _client(config)
        self._client.will_set(f"{self._topic}/status", "offline", qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        # What somebody else's message makes of our code must not end the client's own thread.
        self._client.on_message = lambda client, data, message: self._received.put(message)
        self._client.connect_async(config.host, config.port, keepalive=_KEEP_ALIVE)
        self._client.loop_start()

    def send(self, topic: str, payload: str) -> None:
        """Publish and wait for the broker's acknowledgement.

        A message that is not acknowledged in time stays with the client, which repeats it after a
        reconnection; calling again goes on waiting for the same one.

        Raises:
            OSError: there is no connection, or no acknowledgement yet.
        """
        with self._changed:
            if self._pending is None:
                answered = self._changed.wait_for(
                    lambda: self._connected or self._refusal or self._closing, _SEND_SECONDS
                )
                if not answered:
                    # Does nothing, unless an error that nobody foresaw ended the client's thread.
                    self._client.loop_start()
                    raise OSError(self._unreachable or "no connection")
                if self._closing:
                    raise OSError(self._unreachable or "the stream ends")
                if not self._connected:
                    raise OSError(f"the broker refuses the connection: {self._refusal}")
        if self._pending is None:
            self._publish(topic, payload)
        with self._changed:
            arrived = self._changed.wait_for(
                lambda: self._pending in self._confirmed or self._closing, _SEND_SECONDS
            )
            if self._pending not in self._confirmed:
                raise OSError("the stream ends" if arrived else "the broker does not acknowledge")
            self._confirmed.clear()
            self._pending = None

    def cancel(self) -> None:
        """Let a `send` under way in another thread raise `OSError` at once, and every later one."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self) -> None:
        """Sign off."""
        self.cancel()
        if self._connected:
            status = self._client.publish(f"{self._topic}/status", "offline", qos=1, retain=True)
            with self._changed:
                self._changed.wait_for(lambda: status.mid in self._confirmed, 1.0)
        self._client.disconnect()
        self._client.loop_stop()
        self._received.put(None)

    def _publish(self, topic: str, payload: str) -> None:
        full = f"{self._topic}/{_safe(topic)}"
        try:
            message = self._client.publish(full, payload, qos=self._qos)
        except ValueError as error:
            raise Refused(str(error)) from error
        if self._qos == 0 and message.rc != 0:
            raise OSError("no connection")  # only messages of a higher quality are kept
        self._pending = message.mid

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            with self._changed:
                self._refusal = f"{reason}; check the user name and the password"
                self._changed.notify_all()
            return
        client.publish(f"{self._topic}/status", "online", qos=1, retain=True)
        for topic in self._subscribe:
            client.subscribe(topic, qos=2)
        with self._changed:
            self._connected, self._refusal, self._unreachable = True, "", ""
            self._changed.notify_all()

    def _on_connect_fail(self, *_: Any) -> None:
        # paho says no more than that it failed, but calls this while it handles the error.
        error = sys.exc_info()[1]
        self._unreachable = str(getattr(error, "strerror", None) or error or "")

    def _on_disconnect(self, *_: Any) -> None:
        with self._changed:
            self._connected = False

    def _on_publish(self, client: Any, data: Any, mid: int, *_: Any) -> None:
        with self._changed:
            self._confirmed.add(mid)
            self._changed.notify_all()

    def _hand_on(self) -> None:
        while (message := self._received.get()) is not None:
            try:
                take = self._subscribe.get(message.topic)
            except UnicodeDecodeError:
                continue  # what no broker should send is at no topic of ours
            if message.retain:
                self._refuse(message)
            elif take is not None:
                take(message.payload)

    def _refuse(self, message: Any) -> None:
        """Tell once for each topic that what the broker repeats at every connection is ignored."""
        if message.topic in self._retained:
            return
        self._retained.add(message.topic)
        text = (
            f"the message retained at {message.topic} does not count, since the broker repeats it "
            "at every connection: publish triggers without the retain flag"
        )
        trigger = message.payload[:80].decode(errors="replace")
        self._report(Event(kind="trigger failed", message=text, details={"trigger": trigger}))


def _client(config: MqttConfig) -> Any:
    try:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "MQTT needs the package 'paho-mqtt', which is not installed: "
            "pip install 'edge-ad[mqtt]'"
        ) from error
    client: Any = Client(CallbackAPIVersion.VERSION2, client_id=config.client_id)
    client.reconnect_delay_set(min_delay=1, max_delay=30)
    if config.username is not None:
        client.username_pw_set(config.username, os.environ.get(config.password_env))
    if config.tls:
        _use_tls(client, config)
    return client


def _use_tls(client: Any, config: MqttConfig) -> None:
    files = (config.ca, config.certificate, config.key)
    try:
        client.tls_set(*(None if path is None else str(path) for path in files))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot use the certificates of MQTT ({error}): check ca, certificate and key"
        ) from error


def _safe(topic: str) -> str:
    """Keep what a camera is called from changing the depth of the topic or being a wildcard."""
    *camera, kind = topic.rsplit("/", 1)
    return "/".join([*(re.sub(r"[+#/\s\0$]+", "_", part) for part in camera), kind])
