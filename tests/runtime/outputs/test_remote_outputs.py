"""MQTT against a real broker that stops and starts, a webhook that fails, the spool between."""

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edge_ad_runtime import CapturedFrame, Result
from edge_ad_runtime.events import Event
from edge_ad_runtime.outputs import Delivery, Output, remote
from edge_ad_runtime.outputs.mqtt import MqttConfig, MqttSender
from edge_ad_runtime.outputs.remote import Refused, Spooled
from edge_ad_runtime.outputs.spool import Spool, SpoolError
from edge_ad_runtime.outputs.webhook import WebhookConfig, WebhookSender
from edge_ad_runtime.supervisor import Supervisor
from tests.conftest import free_port

MakeVerdict = Callable[..., tuple[CapturedFrame, Result]]

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
needs_mosquitto = pytest.mark.skipif(
    MOSQUITTO is None, reason="no mosquitto: apt-get install mosquitto"
)


def wait(what: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Broker:
    """A mosquitto that keeps the subscriber's session on disk."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._config = folder / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        self._config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\n{user}"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait(self._listens)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    pytest.importorskip("paho.mqtt", reason="no paho-mqtt: pip install 'edge-ad[mqtt]'")
    found = Broker(tmp_path, free_port())
    found.start()
    yield found
    found.stop()


@pytest.fixture
def received(broker: Broker) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """What a subscriber with a lasting session has got."""
    client_module = pytest.importorskip("paho.mqtt.client")
    enums = pytest.importorskip("paho.mqtt.enums")
    client = client_module.Client(
        enums.CallbackAPIVersion.VERSION2, client_id="line", clean_session=False
    )
    messages: list[tuple[str, dict[str, Any]]] = []
    ready = threading.Event()

    def on_message(client: Any, data: Any, message: Any) -> None:
        text = message.payload.decode()
        messages.append((message.topic, json.loads(text) if text[0] == "{" else {"text": text}))

    client.on_message = on_message
    client.on_connect = lambda *_: client.subscribe("cell/#", qos=2)
    client.on_subscribe = lambda *_: ready.set()
    client.reconnect_delay_set(1, 1)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    assert ready.wait(60)
    yield messages
    client.disconnect()
    client.loop_stop()


@needs_mosquitto
def test_every_verdict_arrives_once_though_the_broker_stops(
    broker: Broker, received: list[tuple[str, dict[str, Any]]], tmp_path: Path, verdict: MakeVerdict
) -> None:
    from edge_ad_runtime.outputs.mqtt import MqttSender

    config = MqttConfig(host="127.0.0.1", port=broker.port, topic="cell")
    events: list[Event] = []
    spool = Spool(tmp_path / "spool", limit=10_000)
    output = Spooled(MqttSender(config), spool, events.append)

    def frames() -> list[int]:
        return [fields["frame"] for topic, fields in received if topic == "cell/left_/verdict"]

    for number in range(200):
        output.write(*verdict(number, anomalous=False, camera="left/+"))
        if number == 60:
            wait(lambda: len(frames()) > 20)
            broker.stop()
        if number == 130:
            broker.start()
    wait(lambda: len(frames()) >= 200)
    time.sleep(0.3)
    output.close()
    assert frames() == list(range(200))
    assert len({fields["id"] for topic, fields in received if topic.endswith("verdict")}) == 200
    wait(lambda: [f for topic, f in received if topic == "cell/status"][-1] == {"text": "offline"})
    assert {"text": "online"} in [fields for topic, fields in received if topic == "cell/status"]


@needs_mosquitto
def test_messages_are_triggers(broker: Broker, tmp_path: Path) -> None:
    from paho.mqtt.publish import single

    from edge_ad_runtime.outputs.mqtt import MqttSender

    config = MqttConfig(host="127.0.0.1", port=broker.port, topic="cell")
    asked: list[bytes] = []
    sender = MqttSender(config, {"cell/trigger": asked.append})
    output = Spooled(sender, Spool(tmp_path / "spool", limit=10), lambda event: None)
    wait(lambda: sender._connected)

    def asked_for() -> bool:
        # What is sent before the subscription has reached the broker gets lost.
        single("cell/trigger", "part-7 left", qos=1, hostname="127.0.0.1", port=broker.port)
        return bool(asked)

    wait(asked_for)
    output.close()
    assert set(asked) == {b"part-7 left"}


@needs_mosquitto
def test_an_outage_is_told_and_survives_a_restart(tmp_path: Path, verdict: MakeVerdict) -> None:
    from edge_ad_runtime.outputs import mqtt

    pytest.importorskip("paho.mqtt", reason="no paho-mqtt: pip install 'edge-ad[mqtt]'")
    events: list[Event] = []
    port = free_port()
    config = MqttConfig(host="127.0.0.1", port=port, topic="cell")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mqtt, "_SEND_SECONDS", 0.2)
        first = Spooled(mqtt.MqttSender(config), Spool(tmp_path / "s", limit=9), events.append)
        for number in range(5):
            first.write(*verdict(number, anomalous=False, camera="left/+"))
        wait(lambda: events)
        first.close()
    assert events[0].kind == "output failed"
    assert "cannot be reached (Connection refused): verdicts are spooled" in events[0].message
    spool = Spool(tmp_path / "s", limit=9)
    assert len(spool) == 5
    spool.close()


@needs_mosquitto
def test_a_retained_message_is_no_trigger_and_a_bad_one_ends_nothing(
    broker: Broker, tmp_path: Path
) -> None:
    from paho.mqtt.publish import single

    from edge_ad_runtime.outputs.mqtt import MqttSender

    def take(payload: bytes) -> None:
        asked.append(payload)
        if payload == b"bad":
            raise RecursionError("a trigger that nobody foresaw")

    asked: list[bytes] = []
    events: list[Event] = []
    send = partial(single, "cell/trigger", qos=1, hostname="127.0.0.1", port=broker.port)
    send("yesterday's part", retain=True)
    for _ in range(2):
        sender = MqttSender(
            MqttConfig(host="127.0.0.1", port=broker.port, topic="cell"),
            {"cell/trigger": take},
            events.append,
            Supervisor(events.append, first_delay=0.05),
        )
        wait(lambda: [event.kind for event in events].count("trigger failed") == 1)
        assert asked == []
        send("bad")
        send("part-7")
        wait(lambda: asked == [b"bad", b"part-7"])
        sender.close()
        kinds = [event.kind for event in events]
        assert sorted(kinds) == ["thread failed", "trigger failed"]
        asked.clear()
        events.clear()


def test_no_event_about_a_way_goes_that_way(tmp_path: Path, verdict: MakeVerdict) -> None:
    class Odd:
        """Fails as nobody foresaw, then as networks do, then refuses, then works."""

        name = "odd"
        errors: ClassVar[list[Exception]] = [
            ZeroDivisionError(),
            OSError("away"),
            Refused("never"),
        ]
        sent: ClassVar[list[dict[str, Any]]] = []

        def send(self, topic: str, payload: str) -> None:
            if self.errors:
                raise self.errors.pop(0)
            self.sent.append(json.loads(payload))

        def cancel(self) -> None:
            pass

        def close(self) -> None:
            pass

    class Recorder(Output):
        def __init__(self) -> None:
            self.events: list[str] = []

        def write(self, captured: CapturedFrame, result: Result) -> None:
            pass

        def event(self, event: Event) -> None:
            self.events.append(event.kind)

    recorder, delivery = Recorder(), Delivery()
    supervisor = Supervisor(delivery.event, first_delay=0.01)
    output = Spooled(Odd(), Spool(tmp_path / "s", limit=99), delivery.event, supervisor)
    delivery.add(recorder)
    delivery.add(output)
    for number in range(3):
        delivery.verdict(*verdict(number))
    wait(lambda: len(Odd.sent) == 2)
    delivery.event(Event(kind="alarm on", message=""))
    wait(lambda: len(Odd.sent) == 3)
    delivery.close()
    assert [message.get("event", message.get("frame")) for message in Odd.sent] == [
        1,
        2,
        "alarm on",
    ]
    assert recorder.events[0] == "thread failed" and recorder.events[-1] == "alarm on"
    assert recorder.events.count("output failed") == 2 and delivery.lost == 1


def test_a_spool_that_cannot_be_used_is_not_blamed_on_the_network(
    tmp_path: Path, verdict: MakeVerdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Network:
        name = "broker"
        sent: ClassVar[list[str]] = []

        def send(self, topic: str, payload: str) -> None:
            self.sent.append(payload)

        def cancel(self) -> None:
            pass

        def close(self) -> None:
            pass

    spool, full = Spool(tmp_path / "s", limit=9), threading.Event()
    events: list[Event] = []
    remove = spool.remove

    def remove_if_there_is_room(number: int) -> None:
        if full.is_set():
            raise SpoolError("cannot use the spool s: database or disk is full")
        remove(number)

    monkeypatch.setattr(spool, "remove", remove_if_there_is_room)
    full.set()
    output = Spooled(Network(), spool, events.append)
    output.write(*verdict(0))
    wait(lambda: events)
    assert events[0].message == (
        "broker sends nothing until its spool works again: "
        "cannot use the spool s: database or disk is full"
    )
    full.clear()
    wait(lambda: not len(spool))
    output.close()
    assert len(set(Network.sent)) == 1


class Hook(BaseHTTPRequestHandler):
    """Fails as often as told, then takes."""

    failures: list[int]
    taken: list[dict[str, Any]]
    tokens: set[str | None]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        code = type(self).failures.pop(0) if type(self).failures else 200
        if code == 200:
            type(self).taken.append(json.loads(body))
            type(self).tokens.add(self.headers["Authorization"])
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_webhook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: MakeVerdict) -> None:
    pytest.importorskip("httpx", reason="no httpx: pip install 'edge-ad[webhook]'")
    monkeypatch.setenv("EDGE_AD_WEBHOOK_TOKEN", "t0ken")
    monkeypatch.setattr(remote, "SETTLED_SECONDS", 0.0)
    Hook.failures, Hook.taken, Hook.tokens = [503, 503, 200, 400], [], set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    events: list[Event] = []
    url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    sender = WebhookSender(WebhookConfig(url=url, timeout=60))
    output = Spooled(sender, Spool(tmp_path / "spool", limit=100), events.append)
    try:
        for number in range(4):
            output.write(*verdict(number, anomalous=False, camera="left/+"))
        wait(lambda: len(Hook.taken) == 3)
    finally:
        output.close()
        server.shutdown()
        thread.join()
        server.server_close()
    assert [fields["frame"] for fields in Hook.taken] == [0, 2, 3]
    assert Hook.tokens == {"Bearer t0ken"}
    assert [event.kind for event in events] == ["output failed", "output back", "output failed"]
    assert "refused a message for good" in events[2].message


def test_a_webhook_that_is_cancelled_between_two_messages_sends_no_other() -> None:
    """The stream closes its spool after that."""
    pytest.importorskip("httpx", reason="no httpx: pip install 'edge-ad[webhook]'")
    sender = WebhookSender(WebhookConfig(url="http://127.0.0.1:9/", timeout=60))
    sender.cancel()
    with pytest.raises(OSError, match="the stream ends"):
        sender.send("left/verdict", "{}")
    sender.close()


@pytest.mark.parametrize(("error", "lost"), [(Refused("HTTP 400"), 3), (OSError("HTTP 503"), 0)])
def test_a_way_that_takes_every_other_message_is_told_once(
    tmp_path: Path, verdict: MakeVerdict, error: OSError, lost: int
) -> None:
    """Each change would be an event on every other output, for as long as it lasts."""

    class Sender:
        name = "receiver"
        calls = 0

        def send(self, topic: str, payload: str) -> None:
            self.calls += 1
            if self.calls % 2:
                raise error

        def cancel(self) -> None:
            pass

        def close(self) -> None:
            pass

    events: list[Event] = []
    spool = Spool(tmp_path / "spool", limit=100)
    output = Spooled(Sender(), spool, events.append)
    for number in range(6):
        output.write(*verdict(number))
    wait(lambda: len(spool) == 0)
    output.close()
    assert [event.kind for event in events] == ["output failed"]
    assert output.lost == lost


def test_a_broker_that_refuses_the_password_is_told_as_such() -> None:
    pytest.importorskip("paho.mqtt", reason="no paho-mqtt: pip install 'edge-ad[mqtt]'")
    not_authorized = bytes([0x20, 2, 0, 5])
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(not_authorized)

        refusing = threading.Thread(target=refuse)
        refusing.start()
        port = listener.getsockname()[1]
        sender = MqttSender(MqttConfig(host="127.0.0.1", port=port, topic="t", username="u"))
        with pytest.raises(OSError, match=r"Not authorized; check the user name and the password"):
            sender.send("left/verdict", "{}")
        refusing.join(60)
        sender.close()
