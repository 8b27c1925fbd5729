"""`edge-ad sign` and `edge-ad verify`: who a model file comes from, and that it is the newest."""

import json
import os
from datetime import datetime, timezone
from pathlib import Path

import click

from edge_ad_runtime.errors import ConfigError
from edge_ad_runtime.files import write_whole

_signature_option = click.option(
    "--signature",
    type=click.Path(path_type=Path),
    help="The signature file. Default: MODEL.sig, beside the model file.",
)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path),
    help="The private key, PEM, on the curve P-256, P-384 or P-521.",
)
@click.option(
    "--version",
    type=click.IntRange(min=1),
    help="A number that increases from file to file. Default: seconds since 1970.",
)
@click.option(
    "--password-env",
    metavar="NAME",
    help="The environment variable that holds the key's password.",
)
@_signature_option
def sign(
    model: Path, key: Path, version: int | None, password_env: str | None, signature: Path | None
) -> None:
    """Sign the model file MODEL so that devices can tell whose it is.

    The signature follows OpenSSF Model Signing: `model_signing verify key` accepts it as well.
    """
    from edge_ad_runtime.model import signature as signatures
    from edge_ad_runtime.model.location import signature_path

    if version is None:
        version = int(datetime.now(timezone.utc).timestamp())
    text = signatures.sign(
        _read(model, "model file"),
        model.name,
        _read(key, "key"),
        version=version,
        password=_password(password_env),
    )
    path = signature or signature_path(model)
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise ConfigError(
            f"cannot write the signature {path} ({error.strerror}): choose another --signature"
        ) from error
    click.echo(f"{path}: version {version}")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--key", required=True, type=click.Path(path_type=Path), help="The public key, PEM.")
@click.option(
    "--at-least",
    type=click.IntRange(min=0),
    default=0,
    metavar="VERSION",
    help="Refuse a file whose signed version is lower.",
)
@_signature_option
@click.option("--json", "as_json", is_flag=True, help="Print what was signed as JSON.")
def verify(model: Path, key: Path, at_least: int, signature: Path | None, as_json: bool) -> None:
    """Check the signature of the model file MODEL.

    The exit code is 1 if it is not valid.
    """
    from edge_ad_runtime.model import signature as signatures
    from edge_ad_runtime.model.location import signature_path

    path = signature or signature_path(model)
    signed = signatures.verify(
        _read(model, "model file"),
        _read(path, "signature"),
        _read(key, "key"),
        least_version=at_least,
    )
    if as_json:
        click.echo(
            json.dumps({"model": str(model), "name": signed.name, "version": signed.version})
        )
    else:
        click.echo(f"{model}: the signature is valid, version {signed.version}")


def _read(path: Path, what: str) -> bytes:
    """Return the content of a file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the {what} {path} ({error.strerror}): check its path"
        ) from error


def _password(name: str | None) -> bytes | None:
    if name is None:
        return None
    password = os.environ.get(name)
    if password is None:
        raise ConfigError(
            f"expected the password of the key in the environment variable {name}, which is not set"
        )
    return password.encode()
