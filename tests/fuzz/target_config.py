"""Configurations: TOML documents with wrong values, keys, tables and bytes."""

import random
import re
from collections.abc import Sequence
from pathlib import Path

from edge_ad_runtime.outputs.pictures import folder_name
from edge_ad_runtime.outputs.webhook import WebhookSender
from edge_ad_runtime.stream.config import StreamConfig, parse_config, read_document
from edge_ad_runtime.stream.watchers import Alarm
from tests.fuzz.harness import ROOT, Target, mutate_bytes

_VALUES = (
    *("0", "1", "-1", "0.0", "-0.0", "1e308", "-1e308", "nan", "inf", "-inf", "0.3", "3"),
    *("100000000000000000000", "0x" + "f" * 4000, "9" * 5000, "99999999999", "true", "false"),
    *('""', '" "', '"\\u0000"', '"a\\nb"', '"é"', '"a/#"', '"+"', '"$SYS"', '".."', '"/"'),
    *('"http://"', '"http://[::1"', '"http://a:99999"', '"rtsp://me:pw@a"', '"' + "x" * 9000 + '"'),
    *(
        "[]",
        "[[]]",
        "[1, 2]",
        '["a", "b"]',
        "{}",
        "{a = 1}",
        "[{}]",
        '[{source = "0"}]',
        "'''a\n'''",
    ),
    *("1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "[" * 50 + "]" * 50, '"99999999999"'),
)
_LINES = (
    "[alarm]",
    "[[camera]]",
    "[camera]",
    "[mqtt]",
    "[serve]",
    "[serve.a.b]",
    "[[json]]",
    "a.b.c = 1",
)


class Fuzz(Target[bytes]):
    """Read and check a configuration, and make of it what needs no network and no camera."""

    def seeds(self, folder: Path) -> Sequence[bytes]:
        """Return the whole configuration of the documentation, and a short one."""
        short = (
            b'model = "a.onnx"\n[[camera]]\nsource = "0"\n[alarm]\nframes = 2\n[json]\npath = "a"\n'
        )
        return [(ROOT / "tests/golden/line.toml").read_bytes(), short]

    def mutate(self, rng: random.Random, seed: bytes) -> bytes:
        """Change lines, mostly their values; sometimes bytes."""
        lines = seed.decode().splitlines()
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            place = rng.randrange(len(lines))
            kind = rng.randrange(8)
            if kind < 4 and "=" in lines[place]:
                key = lines[place].partition("=")[0]
                lines[place] = f"{key}= {rng.choice(_VALUES)}"
            elif kind == 4:
                lines.insert(rng.randrange(len(lines)), lines[place])
            elif kind == 5:
                del lines[place]
                lines = lines or [""]
            elif kind == 6:
                lines.insert(place, rng.choice(_LINES))
            else:
                lines[place] = re.sub(r"\w(?=\w* =)", rng.choice("xyz_"), lines[place], count=1)
        data = "\n".join(lines).encode()
        return mutate_bytes(rng, data) if rng.random() < 0.25 else data

    def run(self, data: bytes, folder: Path) -> None:
        """Do what `edge-ad stream --check` does, and then what a start would do with the values."""
        path = folder / "stream.toml"
        path.write_bytes(data)
        _use(parse_config(read_document(path)))


def _use(config: StreamConfig) -> None:
    if config.alarm is not None:
        Alarm(config.alarm, lambda: 0.0)
    config.recovery.delay(3)
    for camera in config.cameras:
        name = folder_name(camera.name)
        if name in ("", ".", "..") or "/" in name or len(name.encode()) > 200:
            raise AssertionError(f"{camera.name!r} gives the folder {name!r}")
    if config.outputs.json is not None:
        round(config.outputs.json.max_mb * 1e6)
    if config.outputs.webhook is not None:
        WebhookSender(config.outputs.webhook).close()
