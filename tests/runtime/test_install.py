"""`edge-ad install`: what is refused and what is taken over beside a stream, what a kill leaves."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from edge_ad.cli import main
from edge_ad_runtime import ModelInfo, Scorer
from edge_ad_runtime.errors import EdgeAdError
from edge_ad_runtime.events import Event
from edge_ad_runtime.install.check import CheckRule, check
from edge_ad_runtime.model.accelerator import AcceleratorConfig
from edge_ad_runtime.model.accepted import AcceptedVersions
from edge_ad_runtime.model.golden import GOLDEN_KEY, Golden
from edge_ad_runtime.model.info import MODEL_KEY, VERSION_KEY, stamp
from edge_ad_runtime.model.location import installed, signature_path
from edge_ad_runtime.stream import installs
from edge_ad_runtime.stream.installs import Installs, InstallSocket, ask
from edge_ad_runtime.stream.model_file import ModelFile
from edge_ad_runtime.supervisor import Supervisor

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs POSIX")


class Killed(BaseException):
    """Nothing of ours catches it, so nothing is tidied up."""


RUN = "from edge_ad.cli import main; main()"
WriteModel = Callable[..., Path]


def install(*arguments: object) -> Result:
    command = ["install", *map(str, arguments), "--threads", "1"]
    done = CliRunner().invoke(main, command)
    assert "Traceback" not in done.output
    return done


@pytest.fixture
def golden(write_model: WriteModel, info: ModelInfo) -> Callable[..., Path]:
    """Write a model file with a checksum and golden frames, which are right unless said."""

    def write(name: str, *, divisor: float = 1.0, promised: float = 0.0, **change: Any) -> Path:
        plain = write_model("plain.onnx", divisor=promised or divisor)
        frame = np.random.default_rng(0).integers(0, 256, (32, 64, 3)).astype(np.uint8)
        frames = Golden.record(Scorer(plain, device="cpu"), [frame], 0.002)
        metadata = frames.to_metadata() | info.to_metadata(checksum=True)
        document = json.loads(metadata[MODEL_KEY])
        document |= {key: value for key, value in change.items() if key in document}
        metadata[MODEL_KEY] = json.dumps(document)
        metadata |= {key: value for key, value in change.items() if key in metadata}
        others = {key: value for key, value in change.items() if key not in document}
        others = {key: value for key, value in others.items() if key not in metadata}
        path = write_model(name, divisor=divisor, metadata=metadata, **others)
        path.write_bytes(stamp(path.read_bytes()))
        return path

    return write


@contextmanager
def streaming(
    model: Path, tmp_path: Path, *options: object
) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """A stream over pictures that keep arriving; afterwards each of them has one verdict."""
    arriving = tmp_path / "arriving"
    arriving.mkdir()
    picture = tmp_path / "part.png"
    cv2.imwrite(str(picture), np.full((48, 96, 3), 90, np.uint8))
    control = tmp_path / "s"
    command = [sys.executable, "-c", RUN, "stream", "--camera", arriving, "--watch"]
    command += ["--model", model, "--threads", "1", "--install-socket", control, *options]
    lines: list[dict[str, Any]] = []
    stop = threading.Event()
    count = 0

    def arrive() -> None:
        nonlocal count
        while not stop.wait(0.02):
            if count - len(verdicts(lines)) < 10:  # no more than a busy machine can score
                os.link(picture, arriving / f"{count:06}.png")
                count += 1

    with subprocess.Popen(
        [str(item) for item in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            out, log = process.stdout, process.stderr
            reading = threading.Thread(target=lambda: lines.extend(map(json.loads, out)))
            logging = threading.Thread(target=log.read)
            feeding = threading.Thread(target=arrive)
            reading.start()
            logging.start()
            until(control.exists)  # pictures that lie there before the start are not scored
            feeding.start()
            until(lambda: len(verdicts(lines)) > 0)
            yield control, lines
            stop.set()
            feeding.join()
            until(lambda: len(verdicts(lines)) == count)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            reading.join(60)
        finally:
            stop.set()
            process.kill()
            if feeding.is_alive():
                feeding.join()
    assert [line["frame"] for line in verdicts(lines)] == list(range(count))


def verdicts(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in list(lines) if "event" not in line]


def events(lines: list[dict[str, Any]]) -> list[str]:
    return [line["event"] for line in list(lines) if "event" in line]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited for 60 s"
        time.sleep(0.01)


def config(tmp_path: Path, model: Path, control: Path, extra: str = "") -> Path:
    path = tmp_path / "line.toml"
    path.write_text(
        f'model = "{model}"\n[[camera]]\nsource = "0"\n[install]\nsocket = "{control}"\n{extra}'
    )
    return path


def bad_models(golden: Callable[..., Path], info: ModelInfo) -> Iterator[tuple[str, Path]]:
    """Yield what is wrong, and the file."""
    good = golden("good.onnx")
    content = good.read_bytes()
    for share in (0, 1, 10, 50, 90, 99):
        path = good.with_name(f"cut{share}.onnx")
        path.write_bytes(content[: len(content) * share // 100])
        yield f"cut to {share} %", path
    places = np.random.default_rng(1).integers(0, len(content), 20)
    for place in places.tolist():
        path = good.with_name(f"bit{place}.onnx")
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        yield f"bit at {place}", path
    folder = good.with_name("folder.onnx")
    folder.mkdir()
    yield "a folder", folder
    yield "nothing", good.with_name("missing.onnx")
    text = good.with_name("text.onnx")
    text.write_text("not a model\n" * 1000)
    yield "text", text
    yield "another input", golden("input.onnx", input_name="image")
    yield "another size", golden("size.onnx", input_size=[64, 64])
    yield "another output", golden("output.onnx", map_name="map")
    yield "newer", golden("newer.onnx", **{VERSION_KEY: "99"})
    yield "no limit", golden("limit.onnx", threshold=float("nan"))
    yield "a huge limit", golden("huge.onnx", threshold=1e300)
    yield "other scores", golden("scores.onnx", divisor=1.01, promised=1.0)
    yield "NaN", golden("nan.onnx", divisor=float("nan"), promised=1.0)
    yield "no golden pictures", golden("frames.onnx", **{GOLDEN_KEY: '{"frames": []}'})
    yield "another product", golden("product.onnx", category="bottle")


@pytest.mark.slow
def test_bad_models_beside_a_running_stream(
    golden: Callable[..., Path], info: ModelInfo, tmp_path: Path
) -> None:
    """Each is refused and told; the stream loses no frame and keeps its model."""
    model = tmp_path / "line" / "model.onnx"
    model.parent.mkdir()
    shutil.copy(golden("first.onnx", divisor=2.0), model)
    with streaming(model, tmp_path) as (control, lines):
        settings = config(tmp_path, model, control)
        offered = 0
        for what, bad in bad_models(golden, info):
            done = install(bad, "--config", settings)
            assert done.exit_code == 3, (what, done.output)
            assert done.stderr.startswith("Error: ") and not done.stdout
            offered += 1
        slow = install(golden("slow.onnx"), "--config", settings, "--max-latency", 1e-6)
        assert slow.exit_code == 3 and "one inference takes" in slow.stderr
        assert offered == 39
        until(lambda: events(lines).count("model refused") == offered + 1)
        assert not model.is_symlink(), "nothing was changed"
        changed = install(golden("new.onnx"), "--config", settings, "--shadow", 5)
        assert changed.exit_code == 0, "90 instead of 45 is still below the limit of 100"
        until(lambda: verdicts(lines)[-1]["score"] == 90.0)
        back = install("--rollback", "--config", settings, "--json")
        assert back.exit_code == 0 and json.loads(back.stdout)["event"] == "model rolled back"
        until(lambda: verdicts(lines)[-1]["score"] == 45.0)
    told = [name for name in events(lines) if name in ("model installed", "model rolled back")]
    assert told == ["model installed", "model rolled back"]
    assert {line["score"] for line in verdicts(lines)} == {45.0, 90.0}


def test_a_trial_that_would_change_verdicts_leaves_the_old_model(
    golden: Callable[..., Path], tmp_path: Path
) -> None:
    model = golden("model.onnx")
    first = model.read_bytes()
    with streaming(model, tmp_path) as (control, lines):
        settings = config(tmp_path, model, control)
        strict = golden("strict.onnx", threshold=80.0)
        done = install(strict, "--config", settings, "--shadow", 4, "--json")
        assert done.exit_code == 4, done.output
        assert json.loads(done.stdout)["event"] == "model rolled back"
        assert "4 of 4 verdicts would change" in done.stderr
        assert model.read_bytes() == first
        until(lambda: events(lines) == ["model refused"])
        for request in ({}, {"ask": "try", "model": str(model)}, {"ask": "no", "model": "x"}):
            answer = ask(control, request, 20)
            assert answer is not None and not answer["ok"]
    done = install(strict, "--config", settings, "--shadow", 4)
    assert done.exit_code == 5 and "no stream listens" in done.stderr
    assert model.read_bytes() == first and not model.is_symlink()


def test_who_is_killed_or_stopped_in_the_middle(
    golden: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First `edge-ad install`, before it asks the stream; then the stream, during a trial."""
    from edge_ad_runtime.install import install as module

    def kill(*_: object) -> None:
        raise Killed

    model, second = golden("model.onnx", divisor=2.0), golden("second.onnx")
    trial: list[Result] = []
    tried = threading.Event()
    read_answer = installs._line

    def read_answer_later(connection: socket.socket, seconds: float) -> bytes:
        tried.set()
        return read_answer(connection, seconds)

    with streaming(model, tmp_path) as (control, lines):
        place = module.Place(path=model, threads=1, socket=control)
        with monkeypatch.context() as patched:
            patched.setattr(module, "_take_over", kill)
            with pytest.raises(Killed):
                module.install(second, place, module.Terms())
        until(lambda: verdicts(lines)[-1]["score"] == 90.0)
        assert events(lines) == ["model replaced"]
        arguments = ["--config", config(tmp_path, model, control), "--shadow", 1_000_000]
        work = threading.Thread(
            target=lambda: trial.append(install(tmp_path / "third.onnx", *arguments))
        )
        golden("third.onnx", divisor=2.0)
        monkeypatch.setattr(installs, "_line", read_answer_later)
        work.start()
        assert tried.wait(60)
    work.join(60)
    assert trial[0].exit_code == 5 and not trial[0].stdout
    assert trial[0].stderr.startswith("Error: the trial has no outcome: the stream at ")
    assert model.read_bytes() == second.read_bytes()
    left = {path.name for path in model.parent.rglob("*")} - {"arriving"}
    assert "new" not in left and "link" not in left and not any("tmp" in name for name in left)


def test_a_running_installation_asks_the_stream_itself(
    control: tuple[Path, list[Event]], golden: Callable[..., Path], tmp_path: Path
) -> None:
    from edge_ad_runtime.install.slots import Slots

    slots = Slots(tmp_path / "model.onnx")
    with slots.locked():
        slots.adopt()
        slots.stage(golden("new.onnx", divisor=2.0).read_bytes(), None)
        slots.switch(slots.keep_candidate())
        for _ in range(3):
            assert ask(control[0], {"ask": "nothing"}, 20) == {"ok": True}
        assert control[1] == []
    until(lambda: [event.kind for event in control[1]] == ["model replaced"])


def test_slots_and_rollback_without_a_stream(golden: Callable[..., Path], tmp_path: Path) -> None:
    target = tmp_path / "device"
    target.mkdir()
    one, two = golden("one.onnx"), golden("two.onnx", divisor=2.0)
    done = install(one, "--to", target, "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 0 and found["golden_frames"] == 1 and found["running"] is None
    path = target / "model.onnx"
    assert path.read_bytes() == one.read_bytes()
    assert install("--rollback", "--to", path).exit_code == 1
    assert json.loads(install(two, "--to", path, "--json").stdout)["changed"] is True
    assert path.read_bytes() == two.read_bytes()
    # Once more changes nothing: the model to go back to is still the first.
    assert json.loads(install(two, "--to", path, "--json").stdout)["changed"] is False
    assert " was already " in install(two, "--to", path).stdout
    assert install("--rollback", "--to", path).exit_code == 0
    assert path.read_bytes() == one.read_bytes()
    assert install("--rollback", "--to", path).exit_code == 0
    assert path.read_bytes() == two.read_bytes()
    assert install(tmp_path / "plain.onnx", "--to", path).exit_code == 0
    assert sorted(item.name for item in target.iterdir()) == ["model.onnx", "model.onnx.slots"]


def test_a_file_without_golden_frames_is_timed_only(model: Path, tmp_path: Path) -> None:
    done = install(model, "--to", tmp_path / "target.onnx")
    assert done.exit_code == 0 and "no golden frames in this file" in done.stdout


def test_signatures_and_calibrations_change_with_their_model(
    golden: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    from edge_ad_runtime.model.signature import sign

    monkeypatch.chdir(tmp_path)
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pub").write_bytes(public)
    target = tmp_path / "target.onnx"

    def offer(divisor: float, version: int | None) -> Result:
        path = golden("offered.onnx", divisor=divisor)
        signature_path(path).unlink(missing_ok=True)
        if version is not None:
            signature_path(path).write_text(
                sign(path.read_bytes(), path.name, private, version=version)
            )
        return install(path, "--to", target, "--require-signature", "key.pub")

    assert offer(1.0, None).exit_code == 3
    assert offer(1.0, 5).exit_code == 0
    assert "older than 5" in offer(2.0, 4).stderr
    target.with_name("target.onnx.calibration.json").write_text("stays with the file that it fits")
    assert offer(2.0, 6).exit_code == 0
    assert signature_path(target) == tmp_path / "target.onnx.slots/b/target.onnx.sig"
    from edge_ad_runtime.model.signature import verify

    assert verify(target.read_bytes(), signature_path(target).read_bytes(), public).version == 6
    back = install("--rollback", "--to", target, "--require-signature", "key.pub")
    assert back.exit_code == 3 and "older than 6" in back.stderr
    # The stream has the last word, and falls back where the installed file is destroyed.
    installed(target).write_bytes(b"destroyed")
    (tmp_path / "pictures").mkdir()
    cv2.imwrite("pictures/a.png", np.zeros((48, 96, 3), np.uint8))
    command = ["stream", "--camera", "pictures", "--model", "target.onnx"]
    done = CliRunner().invoke(main, [*command, "--require-signature", "key.pub"])
    assert done.exit_code == 1, "the model before has a lower version"
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0
    assert [json.loads(line).get("event") for line in done.stdout.splitlines()] == [
        "model rolled back",
        None,
    ]


def test_a_kill_at_any_moment_leaves_a_whole_model(
    golden: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off before each change of the file system in turn, until there are no more of them."""
    from edge_ad_runtime.install import install as module

    rule = CheckRule(
        device="cpu", threads=1, accelerator=AcceleratorConfig(), max_latency_ms=1e4, timeout=60
    )
    checked = check(golden("two.onnx", divisor=2.0), rule)
    monkeypatch.setattr(module, "check", lambda model, rule: checked)
    one, two = golden("one.onnx").read_bytes(), (tmp_path / "two.onnx").read_bytes()
    target = tmp_path / "target.onnx"
    target.write_bytes(one)
    left = 0

    def killing(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return function(*arguments, **named)

        return call

    seen = []
    for step in range(100):
        with monkeypatch.context() as patched:
            for name in ("replace", "rename", "symlink", "fsync", "mkdir", "unlink", "rmdir"):
                patched.setattr(os, name, killing(getattr(os, name)))
            left = step
            try:
                module.install(tmp_path / "two.onnx", module.Place(path=target), module.Terms())
                break
            except Killed:
                pass
        seen.append(target.read_bytes())
        assert seen[-1] in (one, two)
        assert Scorer(target, device="cpu").content
        if seen[-1] == two:  # once more from the start, now with slots that are there
            break
    else:
        pytest.fail("it never ended")
    assert len(seen) > 10 and target.read_bytes() == two


def test_a_check_that_crashes_or_hangs_is_a_refusal(
    golden: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_ad_runtime.install import check as module

    script = tmp_path / "check.py"
    monkeypatch.setattr(module, "__file__", str(script))
    target = tmp_path / "target.onnx"
    for code, timeout, problem in (
        ("import os; os.abort()", 60, "broke off with exit code -6"),
        ("print('no answer')", 60, "broke off with exit code 0"),
        ("import time; time.sleep(600)", 1, "more than 1 s"),
    ):
        script.write_text(code)
        done = install(golden("one.onnx"), "--to", target, "--timeout", timeout)
        assert done.exit_code == 3 and problem in done.stderr and not target.exists()


def test_a_full_disk_leaves_nothing_behind(
    golden: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_ad_runtime.install import slots

    def full(path: Path, data: bytes, **options: bool) -> None:
        path.write_bytes(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    target = tmp_path / "target.onnx"
    one, two = golden("one.onnx"), golden("two.onnx", divisor=2.0)
    assert install(one, "--to", target).exit_code == 0
    monkeypatch.setattr(slots, "write_whole", full)
    done = install(two, "--to", target)
    assert done.exit_code == 1 and "No space left on device" in done.stderr
    assert target.read_bytes() == one.read_bytes()
    folder = tmp_path / "target.onnx.slots"
    assert sorted(item.name for item in folder.iterdir()) == ["a", "lock"]


def test_json_says_why_nothing_was_installed(golden: Callable[..., Path], tmp_path: Path) -> None:
    """Whatever the exit code: agents put the message into their report."""
    one = golden("one.onnx")
    (tmp_path / "file").write_text("no folder")
    for code, arguments in (
        (1, [one, "--config", tmp_path / "none.toml"]),
        (1, [one, "--to", tmp_path / "file/model.onnx"]),
        (3, [tmp_path / "none.onnx", "--to", tmp_path / "target.onnx"]),
    ):
        done = install(*arguments, "--json")
        assert done.exit_code == code
        assert done.stderr == f"Error: {json.loads(done.stdout)['message']}\n"


def test_one_installation_at_a_time(golden: Callable[..., Path], tmp_path: Path) -> None:
    from edge_ad_runtime.install.slots import Slots

    target = tmp_path / "target.onnx"
    with Slots(target).locked():
        done = install(golden("one.onnx"), "--to", target)
    assert done.exit_code == 5 and not target.exists()


def test_what_is_asked_for_wrongly(model: Path, tmp_path: Path) -> None:
    assert install(model).exit_code == 2
    assert install("--to", tmp_path).exit_code == 2
    assert install(model, "--rollback", "--to", tmp_path).exit_code == 2
    settings = config(tmp_path, model, tmp_path / "s")
    assert "no camera 'left'" in install(model, "--config", settings, "--camera", "left").output
    settings.write_text(
        f'[[camera]]\nsource = "0"\nname = "l"\nmodel = "{model}"\n'
        '[[camera]]\nsource = "1"\nname = "r"\nmodel = "other.onnx"\n'
    )
    done = install(model, "--config", settings)
    assert done.exit_code == 1 and "--camera" in done.output
    done = install(model, "--config", settings, "--camera", "l", "--shadow", 3)
    assert done.exit_code == 1 and "[install]" in done.output
    assert not model.is_symlink(), "nothing was changed"


def test_a_socket_that_cannot_be(model: Path, pictures: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text("not a socket")
    command = ["stream", "--camera", str(pictures), "--model", str(model), "--install-socket"]
    for path in (kept, tmp_path / ("x" * 120), tmp_path / "none" / "s"):
        done = CliRunner().invoke(main, [*command, str(path)])
        assert done.exit_code == 1 and "cannot listen" in done.output
    assert kept.read_text() == "not a socket"


@pytest.mark.slow
def test_the_module_for_mender(golden: Callable[..., Path], tmp_path: Path) -> None:
    """Called as Mender's protocol says: states, with the payload in `files` and room in `tmp`."""
    model = tmp_path / "line" / "model.onnx"
    model.parent.mkdir()
    shutil.copy(golden("first.onnx"), model)
    program = tmp_path / "edge-ad"
    path = os.pathsep.join(filter(None, sys.path))
    program.write_text(f"#!/bin/sh\nPYTHONPATH={path} exec {sys.executable} -c '{RUN}' \"$@\"\n")
    program.chmod(0o755)
    (tmp_path / "line.toml").write_text(f'model = "{model}"\n[[camera]]\nsource = "0"\n')
    (tmp_path / "mender.env").write_text(
        f"EDGE_AD={program}\nEDGE_AD_CONFIG={tmp_path}/line.toml\nEDGE_AD_OPTIONS='--threads 1'\n"
    )
    script = Path(__file__).parents[2] / "deploy/mender/edge-ad-model"

    def call(state: str, name: str) -> tuple[int, str]:
        work = tmp_path / f"work-{name}"
        (work / "files").mkdir(parents=True, exist_ok=True)
        (work / "tmp").mkdir(exist_ok=True)
        if name != "nothing":
            shutil.copy(tmp_path / f"{name}.onnx", work / "files")
        environment = os.environ | {"EDGE_AD_ENV": str(tmp_path / "mender.env")}
        done = subprocess.run(
            ["sh", script, state, work], env=environment, capture_output=True, text=True
        )
        return done.returncode, done.stdout

    first, second = model.read_bytes(), golden("second.onnx", divisor=2.0).read_bytes()
    golden("bad.onnx", divisor=1.01, promised=1.0)
    assert call("SupportsRollback", "second") == (0, "Yes\n")
    assert call("NeedsArtifactReboot", "second") == (0, "No\n")
    assert call("Download", "second") == call("ArtifactCommit", "second") == (0, "")
    assert call("ArtifactInstall", "nothing")[0] == 1
    assert call("ArtifactInstall", "bad")[0] == 3
    assert call("ArtifactRollback", "bad")[0] == 0
    assert model.read_bytes() == first
    assert call("ArtifactInstall", "second")[0] == 0 and model.read_bytes() == second
    # Another deployment of the same file changes nothing, so there is nothing to take back.
    shutil.copy(tmp_path / "second.onnx", tmp_path / "again.onnx")
    assert call("ArtifactInstall", "again")[0] == 0
    assert call("ArtifactRollback", "again")[0] == 0 and model.read_bytes() == second
    assert call("ArtifactRollback", "second")[0] == 0 and model.read_bytes() == first


@pytest.mark.parametrize(("codes", "code"), [("0", 0), ("3", 1), ("5 5 0", 0), ("5 4", 1)])
def test_the_script_for_hawkbit(tmp_path: Path, codes: str, code: int) -> None:
    """The script of docs/fleet.md, with a command that ends with one exit code after the other."""
    text = (Path(__file__).parents[2] / "docs/fleet.md").read_text()
    script = text.partition("## hawkBit")[2].split("```")[1].strip()
    assert "/opt/edge-ad/bin/edge-ad install" in script
    calls = tmp_path / "calls"
    fake = (
        f'edge_ad() {{ echo "$@" >> {calls}; set -- {codes}; '
        f'shift $(($(wc -l < {calls}) - 1)); return "$1"; }}\nsleep() {{ :; }}\n'
    )
    done = subprocess.run(
        ["sh", "-c", fake + script.replace("/opt/edge-ad/bin/edge-ad", "edge_ad"), "sh", "a.onnx"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert calls.read_text().splitlines() == [
        "install a.onnx --config /etc/edge-ad/line1.toml --json"
    ] * len(codes.split())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--max-changed", "nan"),
        ("--max-latency", "nan"),
        ("--timeout", "nan"),
        ("--timeout", "inf"),
    ],
)
def test_no_limit_is_lifted_by_what_is_no_number(model: Path, option: str, value: str) -> None:
    assert install(model, "--to", model.with_name("target.onnx"), option, value).exit_code == 2


@pytest.fixture
def control(tmp_path: Path, write_model: WriteModel) -> Iterator[tuple[Path, list[Event]]]:
    """The socket of a stream without cameras, and its events."""
    told: list[Event] = []
    models = [ModelFile(write_model("model.onnx"), device="cpu", threads=1, threshold=None)]
    installs = Installs(models, lambda: None, told.append)
    opened = InstallSocket(tmp_path / "s", installs, Supervisor(told.append))
    yield tmp_path / "s", told
    opened.close()


def test_a_stream_that_ends_while_a_model_loads_reports_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installs, "_LOOK_SECONDS", 0.01)
    told, loading, loaded = list[Event](), threading.Event(), threading.Event()
    served = Installs([], lambda: None, told.append)

    def follow() -> None:
        loading.set()
        assert loaded.wait(60)

    monkeypatch.setattr(served, "follow", follow)
    opened = InstallSocket(tmp_path / "s", served, Supervisor(told.append))
    assert loading.wait(60)
    opened.close()
    loaded.set()
    opened._thread.join(60)
    assert not opened._thread.is_alive() and told == [] and not (tmp_path / "s").exists()


def test_requests_that_are_none(control: tuple[Path, list[Event]], tmp_path: Path) -> None:
    path, told = control
    model = str(tmp_path / "model.onnx")
    trial = {"ask": "try", "model": model, "candidate": model, "parts": 1, "most_changed": 0.1}
    trial |= {"max_latency_ms": 9.0, "timeout": 0.01}
    (tmp_path / "circle").symlink_to("circle")
    changes: list[dict[str, object]] = [
        {"parts": float("inf")}, {"parts": 0}, {"parts": 10**30}, {"parts": None},
        {"most_changed": float("nan")}, {"max_latency_ms": float("nan")},
        {"timeout": float("nan")}, {"timeout": 10**400}, {"candidate": "a\0"},
        {"model": f"{tmp_path}/circle/x/m.onnx"}, {"model": "\ud800"}, {"model": "a" * 5000},
        {"ask": "tell", "message": "\ud800"}, {"ask": "tell", "message": "\n" * 2000},
        {"ask": "tell"}, {"ask": []}, {},
    ]  # fmt: skip
    for change in changes:
        answer = ask(path, trial | change, 20)
        assert answer is not None and not answer["ok"], change
    assert told == []


def test_a_request_that_drips_holds_nobody_up(
    control: tuple[Path, list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installs, "_REQUEST_SECONDS", 0.3)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(control[0]))
        stop = threading.Event()

        def drip() -> None:
            with suppress(OSError):
                while not stop.wait(0.05):
                    client.sendall(b" ")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert ask(control[0], {"ask": "nothing"}, 20) == {"ok": True}
        finally:
            stop.set()
            dripping.join()


@pytest.mark.parametrize("answer", [b"[]", b"{}", b'{"ok": 1}', b"[" * 60_000, b"\xff", b""])
def test_what_listens_may_be_no_stream(tmp_path: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(answer + b"\n" * bool(answer))

        serving = threading.Thread(target=serve)
        serving.start()
        with pytest.raises(EdgeAdError, match=r"not a stream|gave no answer"):
            ask(tmp_path / "s", {"ask": "nothing"}, 20)
        serving.join(60)


def test_what_a_neighbour_has_put_there_is_not_touched(model: Path, tmp_path: Path) -> None:
    """Links and pipes among the slots: nothing behind them is changed, and nothing blocks."""
    target, victim = tmp_path / "device/m.onnx", tmp_path / "victim"
    slots = tmp_path / "device/m.onnx.slots"
    slots.mkdir(parents=True)
    victim.mkdir()
    (victim / "mine").write_text("mine")
    plants: list[Callable[[], None]] = [
        lambda: (slots / "lock").symlink_to(victim / "mine"),
        lambda: os.mkfifo(slots / "lock"),
        lambda: (slots / "new").symlink_to(victim),
    ]
    for plant in plants:
        plant()
        assert install(model, "--to", target).exit_code == 1
        for path in slots.iterdir():
            path.unlink()
    slots.rmdir()
    slots.symlink_to(victim)
    assert install(model, "--to", target).exit_code == 1
    assert [path.name for path in victim.iterdir()] == ["mine"]
    assert (victim / "mine").read_text() == "mine" and not target.exists()


def test_a_link_that_a_killed_command_left(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "device/m.onnx"
    (tmp_path / "device/m.onnx.slots").mkdir(parents=True)
    (tmp_path / "device/m.onnx.slots/link").symlink_to("nowhere")
    assert install(model, "--to", target).exit_code == 0
    assert sorted(path.name for path in target.parent.iterdir()) == ["m.onnx", "m.onnx.slots"]
    assert sorted(path.name for path in (target.parent / "m.onnx.slots").iterdir()) == ["a", "lock"]


def test_versions_accepted_at_the_same_moment_are_all_kept(tmp_path: Path) -> None:
    """Of several models in one file, by several processes: none is forgotten."""
    path = tmp_path / "accepted.json"

    def accept(worker: int) -> None:
        for number in range(5):
            AcceptedVersions(path).accept(tmp_path / f"{worker}-{number}", 7)

    threads = [threading.Thread(target=accept, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(path.read_text())["accepted"]) == 20
