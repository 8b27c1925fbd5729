"""The surroundings of the stream in `trigger_faults`: cameras, broker, webhook, disk, browsers."""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

GOLDEN = Path(__file__).parents[1] / "tests/golden"
CAMERAS = ("north", "east", "south", "west")

# A camera that fails by itself, as a package with an entry point would bring it.
PLUGIN = """
import os, random, time
import numpy as np
from edge_ad_runtime import CameraError, CapturedFrame, FrameError, FrameSource

class Faulty(FrameSource):
    live = True

    def __init__(self, name):
        self.name = name
        self._random = random.Random(f"{name} {os.environ['FAULT_SEED']} {time.time_ns()}")
        self._pixels = np.random.default_rng(self._random.getrandbits(32))
        self._number = 0
        self._until = 0.0
        if self._random.random() < 0.2:
            raise CameraError("it does not answer")

    def read(self):
        time.sleep(0.004)
        self._number += 1
        chance = self._random.random()
        if chance < 0.0001:
            raise CameraError("unplugged")
        if chance < 0.0002:
            time.sleep(self._random.choice((0.3, 1.5)))
        if chance < 0.0003:
            raise RuntimeError("a fault in the driver")
        if chance < 0.0005:
            raise FrameError("a torn frame")
        if chance < 0.0006:
            return CapturedFrame(number=self._number, frame=np.zeros((3, 3)))
        if chance < 0.0007:
            self._until = time.monotonic() + self._random.choice((0.2, 1.4))
        size = (96, 128, 3) if chance < 0.9 else (64, 64, 3)
        if time.monotonic() < self._until:
            return CapturedFrame(number=self._number, frame=np.full((96, 128, 3), 7, np.uint8))
        frame = self._pixels.integers(0, 255, size, dtype=np.uint8)
        return CapturedFrame(number=self._number, frame=frame)
"""


def _key(trigger: str, camera: str) -> tuple[str, str]:
    """Return what an outcome is entered under; of an odd text only the head is told."""
    odd = re.match(r"odd-([0-9]+)", trigger)
    return (odd[0], "") if odd else (trigger, camera)


class Ledger:
    """What became of each trigger at each camera, as one channel tells it."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], list[str]] = {}
        self.events: Counter[str] = Counter()
        self.doubled = 0
        self._seen: set[str] = set()
        self._changed = threading.Condition()

    def take(self, fields: dict[str, Any]) -> None:
        """Enter a verdict or an event; a message under a known id is the same message."""
        with self._changed:
            message = fields.get("id", "")
            if message and message in self._seen:
                self.doubled += 1
                return
            self._seen.add(message)
            kind = fields.get("event")
            self.events[kind or "verdict"] += 1
            if "trigger" in fields and kind in (None, "trigger failed"):
                key = _key(fields["trigger"], fields["camera"])
                self.outcomes.setdefault(key, []).append("failed" if kind else "verdict")
                self._changed.notify_all()

    def __len__(self) -> int:
        return len(self.outcomes)

    def wait(self, what: Callable[[], bool], seconds: float) -> bool:
        """Wait until something holds that depends on the outcomes."""
        with self._changed:
            return self._changed.wait_for(what, seconds)


class Broker:
    """mosquitto, which keeps sessions on disk."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._config = folder / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        self._config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\nmax_queued_messages 0\n{user}"
        )

    def start(self) -> None:
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self._process = subprocess.Popen(
            [program, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError("the broker does not start")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)


def subscribe(port: int, ledger: Ledger) -> Client:
    """Return a subscriber whose session outlives the broker."""
    client = Client(CallbackAPIVersion.VERSION2, client_id="ledger", clean_session=False)

    def on_message(_: Any, __: Any, message: Any) -> None:
        if message.payload[:1] == b"{":
            ledger.take(json.loads(message.payload))

    client.on_message = on_message

    def on_connect(*_: Any) -> None:
        client.subscribe("cell/#", qos=2)

    client.on_connect = on_connect
    client.reconnect_delay_set(1, 1)
    client.connect("127.0.0.1", port)
    client.loop_start()
    return client


class Webhook(ThreadingHTTPServer):
    """Takes messages, or fails in one of several ways."""

    daemon_threads = True
    mode = "good"

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        super().__init__(("127.0.0.1", 0), _Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Answer(BaseHTTPRequestHandler):
    server: Webhook
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        mode, body = self.server.mode, self.rfile.read(int(self.headers["Content-Length"]))
        if mode == "stall":
            time.sleep(1.5)
        if mode == "reset":
            self.close_connection = True
            return
        # One of these faults comes after the message was taken: it will come again.
        if mode in ("good", "stall", "taken, then 503"):
            self.server.ledger.take(json.loads(body))
        codes = {"500": 500, "taken, then 503": 503, "redirect": 301, "busy": 429, "404": 404}
        self.send_response(codes.get(mode, 204))
        if mode == "redirect":
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Faults:
    """Breaks one thing after another, and mends it."""

    def __init__(self, folder: Path, seed: int, broker: Broker, webhook: Webhook) -> None:
        self.counts: Counter[str] = Counter()
        self._folder = folder
        self._random = random.Random(seed)
        self._broker = broker
        self._webhook = webhook
        self._stop = threading.Event()
        self._models = [
            (GOLDEN / name).read_bytes()
            for name in ("padim/chip-padim.onnx", "patchcore/chip-patchcore.onnx")
        ]
        self._config = (folder / "stream.toml").read_text()
        self._faults: dict[str, Callable[[], None]] = {
            "broker": self._break_broker,
            "webhook": self._break_webhook,
            "disk": self._break_disk,
            "reload": self._reload,
            "page": self._browse,
        }

    @contextmanager
    def raging(self, process: "subprocess.Popen[bytes]", port: int) -> Iterator[None]:
        """Run until the block ends; then everything is whole again."""
        self._process, self._port = process, port
        self._stop.clear()
        threads = [
            threading.Thread(target=self._rage, args=(name, fault), daemon=True)
            for name, fault in self._faults.items()
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(60)

    def _rage(self, name: str, fault: Callable[[], None]) -> None:
        while not self._stop.wait(self._random.uniform(0.2, 3)):
            fault()
            self.counts[name] += 1

    def _break_broker(self) -> None:
        self._stop.wait(4)
        self._broker.stop()
        self._stop.wait(self._random.uniform(0, 2))
        self._broker.start()

    def _break_webhook(self) -> None:
        modes = ("500", "taken, then 503", "redirect", "busy", "404", "stall", "reset")
        self._webhook.mode = self._random.choice(modes)
        self._stop.wait(self._random.uniform(0.1, 1))
        self._webhook.mode = "good"

    def _break_disk(self) -> None:
        """The folder of the pictures or of the lines vanishes, and a file stands in its place."""
        victim = self._folder / self._random.choice(("kept", "lines"))
        away = victim.with_suffix(".away")
        os.rename(victim, away)
        victim.touch()
        self._stop.wait(self._random.uniform(0.1, 2))
        victim.unlink()
        os.rename(away, victim)

    def _reload(self) -> None:
        model, config = self._folder / "model.onnx", self._folder / "stream.toml"
        data = bytearray(self._random.choice(self._models))
        kind = self._random.randrange(4)
        if kind == 1:
            data = data[: self._random.randrange(len(data))]
        elif kind == 2:
            data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        elif kind == 3:
            config.write_text(self._random.choice(("", "[[", "threshold = 'x'", "a = 1\n")))
        temporary = model.with_suffix(".tmp")
        temporary.write_bytes(data)
        os.replace(temporary, model)
        for _ in range(self._random.choice((1, 1, 5, 50))):
            self._process.send_signal(signal.SIGHUP)
        self._stop.wait(0.5)
        config.write_text(self._config)
        temporary.write_bytes(self._models[0])
        os.replace(temporary, model)
        self._process.send_signal(signal.SIGHUP)

    def _browse(self) -> None:
        limit = json.dumps({"camera": self._random.choice(CAMERAS), "threshold": 5.0})
        requests = [
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            b"GET /camera/0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            b"POST /trigger HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999\r\n\r\n{",
            b"GET /" + b"9" * 5000,
            os.urandom(200),
            b"POST /threshold HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            + f"Content-Length: {len(limit)}\r\n\r\n{limit}".encode(),
        ]
        connections = []
        for _ in range(self._random.choice((1, 3, 12))):
            with suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", self._port), 2)
                connection.sendall(self._random.choice(requests))
                connections.append(connection)
        self._stop.wait(self._random.uniform(0, 1.5))
        for connection in connections:
            connection.close()


def prepare(folder: Path, mode: str, broker_port: int, webhook: Webhook, port: int) -> None:
    """Write the plug-in, the model and the configuration."""
    site = folder / "site"
    metadata = site / "faulty-1.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (site / "faulty.py").write_text(PLUGIN)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[edge_ad.sources]\nfaulty = faulty:Faulty\n")
    for name in ("kept", "lines"):
        (folder / name).mkdir(exist_ok=True)
    shutil.copy(GOLDEN / "padim/chip-padim.onnx", folder / "model.onnx")
    cameras = "".join(
        f"[[camera]]\nname = '{name}'\nsource = 'faulty:{name}'\n" for name in CAMERAS
    )
    (folder / "stream.toml").write_text(
        f"model = '{folder}/model.onnx'\nthreads = 1\nstall_timeout = 1\nfirst_delay = 0.1\n"
        f"longest_delay = 0.5\nstate_file = '{folder}/state.json'\n{cameras}"
        f"[trigger]\nmode = '{mode}'\ntimeout = 2\n"
        f"[json]\npath = '{folder}/lines/verdicts.jsonl'\nmax_mb = 0.2\n"
        f"[pictures]\nfolder = '{folder}/kept'\nkeep = 'all'\nmax_count = 200\n"
        f"[mqtt]\nhost = '127.0.0.1'\nport = {broker_port}\ntopic = 'cell'\n"
        f"spool = '{folder}/mqtt.spool'\n"
        f"[webhook]\nurl = 'http://127.0.0.1:{webhook.server_address[1]}/'\ntimeout = 1\n"
        f"spool = '{folder}/webhook.spool'\n"
        f"[serve]\nport = {port}\n"
    )
