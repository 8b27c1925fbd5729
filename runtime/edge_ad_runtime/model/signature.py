"""Signatures of model files, in the format of OpenSSF Model Signing with a key.

A signature is a small file beside the model file: a sigstore bundle (version 0.3) whose DSSE
envelope holds an in-toto statement with the SHA-256 of the model file, signed with ECDSA. What
`sign` writes, `model_signing verify key` accepts, and the other way round
(https://github.com/ossf/model-signing-spec).

On top of the format stands one field of ours in the signed statement, `edge_ad.version`: a number
that only grows. A device refuses a file whose number is lower than the one that it has accepted
before, so that an old file with a valid signature cannot be put back.
"""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from edge_ad_runtime.errors import ConfigError, MissingExtraError, ModelFileError
from edge_ad_runtime.files import read_regular
from edge_ad_runtime.model.location import signature_path

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        ECDSA,
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )

_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_VERSION_FIELD = "edge_ad.version"
_LONGEST_SIGNATURE = 1_000_000
"""Bytes that are read of a signature file; one of ours has about 1,500."""

_HIGHEST_VERSION = 2**53
"""Whole numbers beyond it are not the same in every JSON reader."""


@dataclass(frozen=True, kw_only=True)
class Signed:
    """What a valid signature says about a model file.

    Attributes:
        name: of the file, when it was signed.
        version: the growing number; 0 where another program signed it.
    """

    name: str
    version: int


@dataclass(frozen=True, kw_only=True)
class RequiredSignature:
    """The signature that a device asks of every model file.

    Attributes:
        public_key: content of the key file, PEM.
        least_version: a lower signed version is refused.
    """

    public_key: bytes
    least_version: int = 0

    def check(self, path: Path, model: bytes) -> Signed:
        """Check the signature that lies beside a model file.

        Args:
            path: of the model file; the signature is `PATH.sig`.
            model: the content that was read, and that will run.

        Raises:
            ModelFileError: there is no signature, or `verify` refuses it.
            ConfigError: the key cannot be used.
        """
        signature = read_signature(path)
        return verify(model, signature, self.public_key, least_version=self.least_version)


def read_signature(model: Path) -> bytes:
    """Return the content of the signature that lies beside a model file.

    Raises:
        ModelFileError: it cannot be read.
    """
    path = signature_path(model)
    try:
        return read_regular(path, _LONGEST_SIGNATURE)
    except OSError as error:
        raise ModelFileError(
            f"its signature {path} cannot be read ({error.strerror}): sign the file "
            "with `edge-ad sign` and copy the signature beside it"
        ) from error


def sign(
    model: bytes, name: str, private_key: bytes, *, version: int, password: bytes | None = None
) -> str:
    """Return the signature file of a model file, as JSON text.

    Args:
        model: content of the model file.
        name: of the model file, without folders.
        private_key: PEM, on the curve P-256, P-384 or P-521.
        version: 1 or more; higher than that of the file that this one replaces.
        password: of the key, if it is encrypted.

    Raises:
        MissingExtraError: `cryptography` is not installed.
        ConfigError: the key or the version cannot be used.
    """
    if not 1 <= version <= _HIGHEST_VERSION:
        raise ConfigError(f"expected a version from 1 to 2^53, got {version}")
    key = _private_key(private_key, password)
    digest = hashlib.sha256(model)
    statement = {
        "_type": _STATEMENT,
        "subject": [
            # The format hashes the hashes of all files; here there is one.
            {"name": name, "digest": {"sha256": hashlib.sha256(digest.digest()).hexdigest()}}
        ],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [],
            },
            "resources": [{"name": ".", "algorithm": "sha256", "digest": digest.hexdigest()}],
            _VERSION_FIELD: version,
        },
    }
    payload = json.dumps(statement).encode()
    public_key = key.public_key()
    signature = key.sign(_signed_bytes(payload), _ecdsa(public_key))
    bundle = {
        "mediaType": _BUNDLE,
        "verificationMaterial": {
            "publicKey": {"hint": _fingerprint(public_key)},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle)


def verify(model: bytes, signature: bytes, public_key: bytes, *, least_version: int = 0) -> Signed:
    """Check the signature of a model file; the bytes that are checked are those to load.

    Args:
        model: content of the model file.
        signature: content of the signature file.
        public_key: PEM.
        least_version: the highest version that was accepted before.

    Raises:
        MissingExtraError: `cryptography` is not installed.
        ConfigError: the key cannot be used.
        ModelFileError: the signature is damaged or by another key, the model file is not the one
            that was signed, or it is older than one that was accepted before.
    """
    key = _public_key(public_key)
    payload = _verified_payload(signature, key)
    try:
        statement = json.loads(payload)
        if statement["_type"] != _STATEMENT or statement["predicateType"] != _PREDICATE:
            raise ModelFileError(
                "expected the signature of a model file, got a statement of another type: sign the "
                "file with `edge-ad sign` or with model_signing"
            )
        (subject,) = statement["subject"]
        predicate = statement["predicate"]
        (resource,) = predicate["resources"]
        signed = Signed(name=str(subject["name"]), version=predicate.get(_VERSION_FIELD, 0))
        expected = (resource["algorithm"], resource["digest"], subject["digest"]["sha256"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(
            "the signed statement is not about one model file: sign the file alone, not its folder"
        ) from error
    digest = hashlib.sha256(model)
    if expected != (
        "sha256",
        digest.hexdigest(),
        hashlib.sha256(digest.digest()).hexdigest(),
    ):
        raise ModelFileError(
            "the model file is not the one that was signed: copy it again, or sign it again"
        )
    if isinstance(signed.version, bool) or not isinstance(signed.version, int):
        raise ModelFileError("the signed statement holds no version: sign the file again")
    if signed.version < least_version:
        raise ModelFileError(
            f"the model file has the signed version {signed.version}, older than {least_version}, "
            "which this device has accepted before: sign the file that you want with a higher "
            "version"
        )
    return signed


def _verified_payload(signature: bytes, key: "EllipticCurvePublicKey") -> bytes:
    """Return what was signed, once the signature has been found valid.

    Raises:
        ModelFileError: it is not a signature, or not valid.
    """
    from cryptography.exceptions import InvalidSignature

    try:
        bundle = json.loads(signature)
        if bundle["mediaType"] != _BUNDLE:
            raise ModelFileError(
                f"expected a sigstore bundle of version 0.3, got {str(bundle['mediaType'])[:80]!r}"
            )
        envelope = bundle["dsseEnvelope"]
        if envelope["payloadType"] != _PAYLOAD:
            raise ModelFileError("expected an in-toto statement in the signature, got another type")
        payload = base64.b64decode(envelope["payload"], validate=True)
        (entry,) = envelope["signatures"]
        raw = base64.b64decode(entry["sig"], validate=True)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        binascii.Error,
        RecursionError,
    ) as error:
        raise ModelFileError(
            "the signature file is damaged, or not a signature: copy it again, or sign again"
        ) from error
    try:
        key.verify(raw, _signed_bytes(payload), _ecdsa(key))
    except InvalidSignature as error:
        raise ModelFileError(
            "the signature is not valid for this key: use the public key that belongs to the "
            "private key of the signer"
        ) from error
    return payload


def _signed_bytes(payload: bytes) -> bytes:
    """Return what the signature covers: DSSE's pre-authentication encoding, version 1."""
    return f"DSSEv1 {len(_PAYLOAD)} {_PAYLOAD} {len(payload)} ".encode() + payload


def _private_key(pem: bytes, password: bytes | None) -> "EllipticCurvePrivateKey":
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = "this is a public one" if b"-BEGIN PUBLIC KEY-" in pem else error
        raise ConfigError(
            f"cannot read the private key ({reason}): expected PEM, and the password of an "
            "encrypted key"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _wrong_kind()
    return key


def _public_key(pem: bytes) -> "EllipticCurvePublicKey":
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = "this is a private one" if b"PRIVATE KEY-" in pem else error
        raise ConfigError(f"cannot read the public key ({reason}): expected PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _wrong_kind()
    return key


def _ecdsa(key: "EllipticCurvePublicKey") -> "ECDSA":
    """Return the signature algorithm that the format prescribes for a curve.

    Raises:
        ConfigError: it is none of the format's curves.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    if key.curve.name == "secp256r1":
        return ec.ECDSA(hashes.SHA256())
    if key.curve.name == "secp384r1":
        return ec.ECDSA(hashes.SHA384())
    if key.curve.name == "secp521r1":
        return ec.ECDSA(hashes.SHA512())
    raise _wrong_kind()


def _fingerprint(key: "EllipticCurvePublicKey") -> str:
    """Return the hint by which a verifier recognises the key."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def _wrong_kind() -> ConfigError:
    return ConfigError(
        "expected a key on the curve P-256, P-384 or P-521: "
        "`openssl ecparam -name prime256v1 -genkey -noout -out key.pem` makes one"
    )


def _require_cryptography() -> None:
    if find_spec("cryptography") is None:
        raise MissingExtraError(
            "signatures need the package 'cryptography', which is not installed: "
            "pip install 'edge-ad[sign]'"
        )
