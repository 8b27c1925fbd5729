"""Triggers under random faults: each must give exactly one verdict or one explicit failure.

    python benchmarks/trigger_faults.py --triggers 100000 --seed 0

A real `edge-ad stream` with four cameras, a broker (mosquitto), a webhook, pictures and the live
page. While triggers come in by standard input and by HTTP, half of them each, everything around the
stream fails at random: cameras stop, hang, freeze, raise and send garbage; broker and webhook go
away, refuse, redirect and stall; folders vanish; good and damaged models and configurations are
reloaded; browsers open, stall, break off and move limits. The ledger is kept three times: from
standard output, from the broker and from the webhook, where a message may come twice under one id.
"""

import argparse
import http.client
import json
import os
import platform
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
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

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests/golden"
CAMERAS = ("north", "east", "south", "west")
ALL_CAMERAS_SHARE = 0.02
ODD_SHARE = 0.01
MOST_OPEN = 60
MOST_BEHIND = 3000
CLIENTS = 6

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


class Asked:
    """Which outcomes are owed; refused ones have failed explicitly already."""

    def __init__(self) -> None:
        self.owed: set[tuple[str, str]] = set()
        self.uncertain: set[tuple[str, str]] = set()
        self.refused = 0
        self.lock = threading.Lock()

    def add(self, identity: str, camera: str) -> None:
        with self.lock:
            self.owed |= {(identity, name) for name in ([camera] if camera else CAMERAS)}

    def doubt(self, identity: str, camera: str) -> None:
        """The answer got lost: the asker was told of a failure, and a verdict may come as well."""
        with self.lock:
            keys = {(identity, name) for name in ([camera] if camera else CAMERAS)}
            self.owed -= keys
            self.uncertain |= keys

    def refuse(self) -> None:
        with self.lock:
            self.refused += 1


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


def next_trigger(number: int, chance: random.Random) -> tuple[str, str, bytes]:
    """Return identity, camera (empty: all) and the text of a trigger."""
    identity = f"part-{number}"
    camera = "" if chance.random() < ALL_CAMERAS_SHARE else chance.choice(CAMERAS)
    if camera and chance.random() < 0.5:
        return identity, camera, f"{identity} {camera}".encode()
    return identity, camera, json.dumps({"id": identity, "camera": camera}).encode()


def odd_trigger(number: int, chance: random.Random) -> bytes:
    """Return what no trigger is; it begins so that its failure can be told from others."""
    ends = (b"\xff\xfe", b" nowhere", b"\x00", b'": {"id": ' + b"[" * 2000, b" " + b"y" * 5000)
    return f"odd-{number}".encode() + chance.choice(ends)


def by_stdin(
    process: "subprocess.Popen[bytes]", numbers: range, asked: Asked, ready: Callable[[], None]
) -> None:
    """Write each trigger as a line."""
    assert process.stdin is not None
    chance = random.Random(numbers.start)
    for number in numbers:
        ready()
        if chance.random() < ODD_SHARE:
            process.stdin.write(odd_trigger(number, chance) + b"\n")
            with asked.lock:
                asked.owed.add((f"odd-{number}", ""))
        else:
            identity, camera, text = next_trigger(number, chance)
            asked.add(identity, camera)
            process.stdin.write(text + b"\n")
        process.stdin.flush()


def by_http(port: int, numbers: range, asked: Asked, ready: Callable[[], None]) -> None:
    """Post each trigger; several clients at a time."""
    waiting, lock = iter(numbers), threading.Lock()

    def post_all(client: int) -> None:
        chance = random.Random(numbers.start + client)
        while True:
            with lock:
                number = next(waiting, None)
            if number is None:
                return
            ready()
            odd = chance.random() < ODD_SHARE
            identity, camera, text = next_trigger(number, chance)
            if odd:
                text = odd_trigger(number, chance)
            else:
                asked.add(identity, camera)
            code = post(port, text)
            if code == 202:
                continue
            if odd or code is not None:
                asked.refuse()
            if not odd:
                asked.doubt(identity, camera)

    clients = [threading.Thread(target=post_all, args=(index,)) for index in range(CLIENTS)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()


def post(port: int, text: bytes) -> int | None:
    """Return the code of the answer; None: there was none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/trigger", text, {"Content-Type": "application/json"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def free_port() -> int:
    """Return a port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


def run(mode: str, numbers: range, seed: int, folder: Path) -> dict[str, Any]:
    """Stream with triggers by one way, and return what was found."""
    ledgers = {"stdout": Ledger(), "mqtt": Ledger(), "webhook": Ledger()}
    broker = Broker(folder, free_port())
    broker.start()
    webhook, port = Webhook(ledgers["webhook"]), free_port()
    subscriber = subscribe(broker.port, ledgers["mqtt"])
    prepare(folder, mode, broker.port, webhook, port)
    paths = [str(folder / "site"), str(ROOT), str(ROOT / "runtime"), str(ROOT / "export")]
    log = (folder / "log.txt").open("wb")
    command = [sys.executable, "-c", "from edge_ad.cli import main; main()"]
    process = subprocess.Popen(
        [*command, "stream", "--config", str(folder / "stream.toml")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "FAULT_SEED": str(seed)},
    )
    reading = threading.Thread(target=_read, args=(process, ledgers["stdout"]), daemon=True)
    reading.start()
    while process.poll() is None and post(port, b"first") is None:
        time.sleep(0.2)
    asked, told, started = Asked(), ledgers["stdout"], time.monotonic()

    def ready() -> None:
        """Wait while too many triggers are open or an output is too far behind."""
        told.wait(lambda: len(asked.owed) - len(told) < MOST_OPEN, 60)
        for name in ("mqtt", "webhook"):
            ledger = ledgers[name]
            if len(told) - len(ledger) > MOST_BEHIND:
                ledger.wait(lambda: len(told) - len(ledger) < MOST_BEHIND / 2, 600)  # noqa: B023
        if process.poll() is not None:
            raise SystemExit(f"the stream ended with code {process.returncode}: {folder}/log.txt")

    faults = Faults(folder, seed, broker, webhook)
    with faults.raging(process, port):
        if mode == "stdin":
            by_stdin(process, numbers, asked, ready)
        else:
            by_http(port, numbers, asked, ready)
    for ledger in ledgers.values():
        ledger.wait(lambda: asked.owed <= ledger.outcomes.keys(), 300)  # noqa: B023
    seconds = time.monotonic() - started
    process.send_signal(signal.SIGTERM)
    code = process.wait(60)
    reading.join(10)
    subscriber.loop_stop()
    webhook.shutdown()
    broker.stop()
    return {
        "mode": mode,
        "asked": asked,
        "ledgers": ledgers,
        "faults": faults.counts,
        "seconds": seconds,
        "code": code,
    }


def _read(process: "subprocess.Popen[bytes]", ledger: Ledger) -> None:
    for line in process.stdout or ():
        ledger.take(json.loads(line))


def report(found: dict[str, Any]) -> bool:
    """Print the rows of one run; return whether every trigger had exactly one outcome."""
    asked, events = found["asked"], found["ledgers"]["stdout"].events
    whole = True
    for name, ledger in found["ledgers"].items():
        kinds = Counter(kind for key in asked.owed for kind in ledger.outcomes.get(key, ()))
        none = sum(key not in ledger.outcomes for key in asked.owed)
        several = sum(len(results) > 1 for results in ledger.outcomes.values())
        whole = whole and none == several == 0
        counts = (len(asked.owed), kinds["verdict"], kinds["failed"], none, several, ledger.doubled)
        print("|", found["mode"], "|", name, "|", " | ".join(str(count) for count in counts), "|")
    cameras = events["camera lost"] + events["frame failed"]
    faults = found["faults"]
    print(
        f"\n{found['mode']}: {found['seconds']:.0f} s, exit code {found['code']}; "
        f"{asked.refused} triggers refused by an answer, {len(asked.uncertain)} without an answer; "
        f"{cameras} camera faults told ({events['camera lost']} losses), broker restarted "
        f"{faults['broker']} times, webhook broken {faults['webhook']} times, a folder gone "
        f"{faults['disk']} times, {faults['reload']} reloads ({events['model refused']} refused), "
        f"{faults['page']} bursts of page clients, {events['threshold changed']} limits moved\n"
    )
    return whole


def main() -> None:
    """Run both ways and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--triggers", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="keep logs and spools in this new folder")
    parser.add_argument("--mode", choices=["stdin", "http", "both"], default="both")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores {platform.machine()}, seed {arguments.seed}\n")
    head = "| triggers by | told by | owed | verdicts | failures | without | several | repeated |"
    print(f"{head}\n|---|---|---|---|---|---|---|---|", flush=True)
    modes = ("stdin", "http") if arguments.mode == "both" else (arguments.mode,)
    share = arguments.triggers // len(modes)
    whole = True
    for index, mode in enumerate(modes):
        numbers = range(index * share, (index + 1) * share)
        with tempfile.TemporaryDirectory(prefix="trigger-faults-") as temporary:
            folder = arguments.keep / mode if arguments.keep else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            found = run(mode, numbers, arguments.seed + index, folder)
            whole = report(found) and whole
    raise SystemExit(0 if whole else 1)


if __name__ == "__main__":
    main()
