"""Signatures: valid here and for the reference implementation; refused after any change."""

import base64
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edge_ad.cli import main
from edge_ad_runtime.errors import ConfigError, ModelFileError
from edge_ad_runtime.model.signature import sign, verify

pytest.importorskip("cryptography", reason="no cryptography: pip install 'edge-ad[sign]'")
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

MODEL = bytes(range(256)) * 40
PEER = Path(shutil.which("model_signing") or Path(sys.executable).with_name("model_signing"))


def pem(private: Any, password: bytes | None = None) -> tuple[bytes, bytes]:
    """Return the private and the public key of a pair as PEM."""
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption),
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


@pytest.fixture(scope="module")
def keys() -> tuple[bytes, bytes]:
    return pem(ec.generate_private_key(ec.SECP256R1()))


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_a_signature_is_valid_for_its_file(curve: Any) -> None:
    private, public = pem(ec.generate_private_key(curve()))
    text = sign(MODEL, "cable.onnx", private, version=7)
    signed = verify(MODEL, text.encode(), public, least_version=7)
    assert (signed.name, signed.version) == ("cable.onnx", 7)


def test_any_flipped_bit_of_the_model_is_refused(keys: tuple[bytes, bytes]) -> None:
    private, public = keys
    text = sign(MODEL, "cable.onnx", private, version=7).encode()
    for place in range(0, len(MODEL), 97):
        changed = bytearray(MODEL)
        changed[place] ^= 1 << place % 8
        with pytest.raises(ModelFileError, match="not the one that was signed"):
            verify(bytes(changed), text, public)


def test_any_changed_byte_of_the_signature_is_refused_or_without_effect(
    keys: tuple[bytes, bytes],
) -> None:
    private, public = keys
    text = sign(MODEL, "cable.onnx", private, version=7).encode()
    for place in range(len(text)):
        changed = bytearray(text)
        changed[place] ^= 1
        try:
            signed = verify(MODEL, bytes(changed), public)
        except ModelFileError:
            continue
        # What the signature does not cover, such as the hint on the key, cannot mislead.
        assert (signed.name, signed.version) == ("cable.onnx", 7)


def test_another_key_is_refused(keys: tuple[bytes, bytes]) -> None:
    text = sign(MODEL, "cable.onnx", keys[0], version=7).encode()
    _, other = pem(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(ModelFileError, match="not valid for this key"):
        verify(MODEL, text, other)


def test_an_older_version_is_refused(keys: tuple[bytes, bytes]) -> None:
    text = sign(MODEL, "cable.onnx", keys[0], version=7).encode()
    with pytest.raises(ModelFileError, match="version 7, older than 8"):
        verify(MODEL, text, keys[1], least_version=8)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"{}", b'{"mediaType": 1}', b"\xff\xfe", b"[" * 100_000],
)
def test_damaged_signature_files(keys: tuple[bytes, bytes], text: bytes) -> None:
    with pytest.raises(ModelFileError):
        verify(MODEL, text, keys[1])


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "other"},
        {"predicateType": "https://slsa.dev/provenance/v1"},
        {"subject": []},
        {"subject": None},
        {"predicate": {}},
        {"predicate": 1},
    ],
)
def test_a_valid_signature_of_another_statement_is_refused(change: dict[str, Any]) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    bundle = json.loads(sign(MODEL, "cable.onnx", pem(private)[0], version=7))
    envelope = bundle["dsseEnvelope"]
    payload = json.dumps(json.loads(base64.b64decode(envelope["payload"])) | change).encode()
    kind = envelope["payloadType"]
    covered = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    from cryptography.hazmat.primitives.hashes import SHA256

    raw = private.sign(covered, ec.ECDSA(SHA256()))
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"][0]["sig"] = base64.b64encode(raw).decode()
    with pytest.raises(ModelFileError):
        verify(MODEL, json.dumps(bundle).encode(), pem(private)[1])


def test_keys_that_cannot_be_used(keys: tuple[bytes, bytes]) -> None:
    for private in (ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256K1())):
        with pytest.raises(ConfigError, match="P-256"):
            sign(MODEL, "a", pem(private)[0], version=1)
    with pytest.raises(ConfigError, match="private key"):
        sign(MODEL, "a", b"nothing", version=1)
    encrypted, _ = pem(ec.generate_private_key(ec.SECP256R1()), b"secret")
    with pytest.raises(ConfigError, match="password"):
        sign(MODEL, "a", encrypted, version=1)
    assert sign(MODEL, "a", encrypted, version=1, password=b"secret")
    with pytest.raises(ConfigError, match="public key"):
        verify(MODEL, b"{}", b"nothing")
    with pytest.raises(ConfigError, match=r"private key \(this is a public one\)"):
        sign(MODEL, "a", keys[1], version=1)
    with pytest.raises(ConfigError, match=r"public key \(this is a private one\)"):
        verify(MODEL, b"{}", keys[0])
    with pytest.raises(ConfigError, match="version"):
        sign(MODEL, "a", keys[0], version=0)


def write(tmp_path: Path, keys: tuple[bytes, bytes]) -> tuple[str, str, str]:
    """Write a model file and a pair of keys; return their paths."""
    for name, data in (("m.onnx", MODEL), ("key.pem", keys[0]), ("key.pub", keys[1])):
        (tmp_path / name).write_bytes(data)
    return str(tmp_path / "m.onnx"), str(tmp_path / "key.pem"), str(tmp_path / "key.pub")


def test_the_commands(tmp_path: Path, keys: tuple[bytes, bytes]) -> None:
    model, private, public = write(tmp_path, keys)
    run = CliRunner()
    assert run.invoke(main, ["verify", model, "--key", public]).exit_code == 1
    done = run.invoke(main, ["sign", model, "--key", private, "--version", "3"])
    assert done.exit_code == 0, done.output
    done = run.invoke(main, ["verify", model, "--key", public, "--json"])
    assert json.loads(done.stdout)["version"] == 3
    done = run.invoke(main, ["verify", model, "--key", public, "--at-least", "4"])
    assert done.exit_code == 1 and "older than 4" in done.output
    assert "Traceback" not in done.output
    done = run.invoke(main, ["sign", model, "--key", private])
    assert done.exit_code == 0
    done = run.invoke(main, ["verify", model, "--key", public, "--at-least", "1700000000"])
    assert done.exit_code == 0, done.output


needs_peer = pytest.mark.skipif(
    not PEER.exists(),
    reason="no model_signing: pip install model-signing pyopenssl",
)


@needs_peer
def test_the_reference_implementation_accepts_what_we_sign(
    tmp_path: Path, keys: tuple[bytes, bytes]
) -> None:
    model, private, public = write(tmp_path, keys)
    assert CliRunner().invoke(main, ["sign", model, "--key", private]).exit_code == 0
    command = [os.fspath(PEER), "verify", "key", model, "--public_key", public]
    done = subprocess.run([*command, "--signature", f"{model}.sig"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    Path(model).write_bytes(MODEL + b"x")
    done = subprocess.run([*command, "--signature", f"{model}.sig"], capture_output=True, text=True)
    assert done.returncode != 0


@needs_peer
def test_we_accept_what_the_reference_implementation_signs(
    tmp_path: Path, keys: tuple[bytes, bytes]
) -> None:
    model, private, public = write(tmp_path, keys)
    command = [os.fspath(PEER), "sign", "key", model, "--private_key", private]
    subprocess.run([*command, "--signature", f"{model}.sig"], check=True, capture_output=True)
    done = CliRunner().invoke(main, ["verify", model, "--key", public, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["version"] == 0


def test_a_stream_takes_signed_models_only_and_never_an_older_one(
    write_model: Any, tmp_path: Path, keys: tuple[bytes, bytes]
) -> None:
    from edge_ad_runtime.model.signature import RequiredSignature
    from edge_ad_runtime.stream.model_file import ModelFile

    def put(version: int | None, divisor: float) -> None:
        path = write_model("model.onnx", divisor=divisor)
        signature = path.with_name("model.onnx.sig")
        signature.unlink(missing_ok=True)
        if version is not None:
            signature.write_text(sign(path.read_bytes(), path.name, keys[0], version=version))

    model = tmp_path / "model.onnx"
    required = RequiredSignature(public_key=keys[1], least_version=5)
    load = partial(ModelFile, model, device="cpu", threads=1, threshold=None, required=required)
    for version, problem in ((None, "cannot be read"), (4, "older than 5")):
        put(version, 1.0)
        with pytest.raises(ModelFileError, match=problem):
            load()
    put(6, 1.0)
    running = load()
    for version, divisor in ((5, 2.0), (None, 3.0)):
        put(version, divisor)
        event = running.reload(None)
        assert event is not None and event.kind == "model refused"
    put(7, 2.0)
    event = running.reload(None)
    assert event is not None and event.kind == "model replaced"
    put(6, 1.0)
    event = running.reload(None)
    assert event is not None and "older than 7" in event.message


def test_an_older_model_is_refused_after_a_restart(
    write_model: Any,
    pictures: Path,
    tmp_path: Path,
    keys: tuple[bytes, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The accepted version outlives the process; a damaged record of it stops the start."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key.pub").write_bytes(keys[1])

    def start(version: int) -> Result:
        path = write_model("model.onnx")
        text = sign(path.read_bytes(), path.name, keys[0], version=version)
        path.with_name("model.onnx.sig").write_text(text)
        command = ["stream", "--camera", str(pictures), "--model", "model.onnx"]
        return CliRunner().invoke(main, [*command, "--require-signature", "key.pub"])

    assert start(7).exit_code == 0
    refused = start(6)
    assert refused.exit_code == 1 and "older than 7" in refused.output and not refused.stdout
    assert start(7).exit_code == start(8).exit_code == 0
    record = tmp_path / "edge-ad-accepted.json"
    assert json.loads(record.read_text())["accepted"] == {str(tmp_path / "model.onnx"): 8}
    for damaged in (b"", b"{}", b'{"version": 1, "accepted": {"a": "8"}}', b"[" * 100_000):
        record.write_bytes(damaged)
        done = start(9)
        assert done.exit_code == 1 and "damaged" in done.output and "Traceback" not in done.output
    record.unlink()
    (tmp_path / "line.toml").write_text(
        f'model = "model.onnx"\n[[camera]]\nsource = "{pictures}"\n'
        '[signature]\nkey = "key.pub"\nstate_file = "missing.json/none/a.json"\n'
    )
    (tmp_path / "missing.json").write_text("")
    done = CliRunner().invoke(main, ["stream", "--config", "line.toml"])
    assert done.exit_code == 1 and "cannot write" in done.output


def test_the_option_of_the_stream(
    model: Path,
    pictures: Path,
    tmp_path: Path,
    keys: tuple[bytes, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key.pub").write_bytes(keys[1])
    command = ["stream", "--camera", str(pictures), "--model", str(model)]
    command += ["--require-signature", str(tmp_path / "key.pub")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1 and "edge-ad sign" in done.output
    text = sign(model.read_bytes(), model.name, keys[0], version=1)
    model.with_name(model.name + ".sig").write_text(text)
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 5
