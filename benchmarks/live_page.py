"""What viewers of the live page cost the inspection: verdicts a second with and without them.

    python benchmarks/live_page.py --model results/bottle/padim/bottle-padim.onnx

One stream runs all the time, from a camera that always has a new picture ready. Phases
without and with viewers alternate, since other work on the machine slows both alike only over short
times; the ratio is the median over the rounds. The viewers are one further process on the same
machine, which reads every message and fetches the pictures that it names, as the page does; what
that process costs is counted against the page. With `--kind slow` the viewers read a kilobyte a
second instead, with `--kind greedy` they ask for all numbers again and again, without waiting
for news; what they have been answered is counted as pictures.
"""

import argparse
import http.client
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import numpy as np

from edge_ad_runtime import CapturedFrame, FakeCamera, Frame, Result
from edge_ad_runtime.page.server import PageServer
from edge_ad_runtime.stream import build
from edge_ad_runtime.stream.config import ServeConfig, parse_config
from edge_ad_runtime.stream.stream import Stream


def main() -> None:
    """Print one table row for each number of viewers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a phase")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--viewers", type=int, action="append", help="may be repeated")
    parser.add_argument("--size", nargs=2, type=int, default=(1280, 720), metavar=("W", "H"))
    parser.add_argument("--kind", choices=VIEWS, default="page")
    parser.add_argument("--look", nargs=2, type=int, metavar=("PORT", "VIEWERS"))
    arguments = parser.parse_args()
    if arguments.look:
        look(arguments.look[0], arguments.look[1], arguments.kind)
        return
    if arguments.model is None:
        parser.error("expected --model")
    vars(build)["open_source"] = lambda *_, **__: FakeCamera(
        pictures(*arguments.size), name="camera"
    )
    document = {
        "model": str(arguments.model),
        "stdout": False,
        "threads": arguments.threads,
        "camera": [{"name": "camera", "source": "0"}],
    }
    with Stream(parse_config(document)) as stream:
        count = Count()
        stream.delivery.add(count)
        server, stop = PageServer(stream, ServeConfig(port=0)), threading.Event()
        running = threading.Thread(target=stream.run, args=(stop,))
        running.start()
        print(f"{os.cpu_count()} cores, {arguments.threads} threads, load {os.getloadavg()[0]:.1f}")
        print("\n| viewers | verdicts without | with | ratio | pictures per viewer |")
        print("|---|---|---|---|---|")
        for viewers in arguments.viewers or [1, 4, 16]:
            print(row(count, server.address[1], viewers, arguments), flush=True)
        stop.set()
        server.close()
        running.join()


def pictures(width: int, height: int) -> Iterator[Frame]:
    """Yield pictures without end, as fast as they are taken."""
    rng = np.random.default_rng(0)
    made = [rng.integers(60, 90, (height, width, 3), dtype=np.uint8) for _ in range(8)]
    for picture in itertools.cycle(made):
        sleep(0.005)
        yield picture


class Count:
    """Counts the verdicts."""

    def __init__(self) -> None:
        """Start at 0."""
        self.verdicts = 0

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Count one."""
        self.verdicts += 1


def row(count: Count, port: int, viewers: int, arguments: argparse.Namespace) -> str:
    """Alternate phases without and with viewers."""
    seconds = arguments.seconds
    without, along, seen = [], [], []
    for _ in range(arguments.rounds):
        without.append(rate(count, seconds))
        command = [sys.executable, __file__, "--look", str(port), str(viewers)]
        command += ["--kind", arguments.kind]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
            if process.stdout is None or process.stdin is None:
                raise RuntimeError("expected pipes to the viewers")
            process.stdout.readline()
            along.append(rate(count, seconds))
            process.stdin.close()
            seen.append(int(process.stdout.readline()) / viewers / seconds)
        sleep(0.5)
    ratio = statistics.median(new / old for new, old in zip(along, without, strict=True))
    return (
        f"| {viewers} | {statistics.median(without):.1f} per s | {statistics.median(along):.1f} "
        f"per s | **{ratio:.2f}** | {statistics.median(seen):.1f} per s |"
    )


def rate(count: Count, seconds: float) -> float:
    """Return the verdicts a second."""
    before, started = count.verdicts, monotonic()
    sleep(seconds)
    return (count.verdicts - before) / (monotonic() - started)


def look(port: int, viewers: int, kind: str) -> None:
    """Be so many open pages until stdin ends; print how many pictures they have seen."""
    seen = itertools.count()
    for _ in range(viewers):
        threading.Thread(target=VIEWS[kind], args=(port, seen), daemon=True).start()
    sleep(1)
    before = next(seen)
    print("ready", flush=True)
    sys.stdin.read()
    print(next(seen) - before - 1, flush=True)


def view(port: int, seen: "itertools.count[int]") -> None:
    """Read the messages, and fetch the pictures of each verdict."""
    events = http.client.HTTPConnection("127.0.0.1", port)
    parts = http.client.HTTPConnection("127.0.0.1", port)
    events.request("GET", "/events")
    answer = events.getresponse()
    name = ""
    while line := answer.readline().decode():
        if line.startswith("event: "):
            name = line[7:].strip()
        elif line.startswith("data: ") and name == "verdict":
            identity = json.loads(line[6:])["id"]
            codes = []
            for picture in ("plain.jpg", "heat.png"):
                parts.request("GET", f"/part/{identity}/{picture}")
                found = parts.getresponse()
                found.read()
                codes.append(found.status)
            if codes == [200, 200]:
                next(seen)
        elif line == "\n":
            name = ""


def crawl(port: int, seen: "itertools.count[int]") -> None:
    """Read messages and numbers, a kilobyte a second, on two connections."""
    for path in ("/events", "/status"):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        threading.Thread(target=drip, args=(connection, seen), daemon=True).start()


def drip(connection: socket.socket, seen: "itertools.count[int]") -> None:
    while connection.recv(1024):
        sleep(1)


def grab(port: int, seen: "itertools.count[int]") -> None:
    """Ask for all numbers again and again."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    while True:
        connection.request("GET", "/status")
        connection.getresponse().read()
        next(seen)


VIEWS = {"page": view, "slow": crawl, "greedy": grab}


if __name__ == "__main__":
    main()
