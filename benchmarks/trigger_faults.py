"""Triggers under random faults: each must give exactly one verdict or one explicit failure.

    python -m benchmarks.trigger_faults --triggers 100000 --seed 0

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
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faulty_surroundings import (
    CAMERAS,
    Broker,
    Faults,
    Ledger,
    Webhook,
    prepare,
    subscribe,
)

ROOT = Path(__file__).parents[1]
ALL_CAMERAS_SHARE = 0.02
ODD_SHARE = 0.01
MOST_OPEN = 60
MOST_BEHIND = 3000
CLIENTS = 6


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
