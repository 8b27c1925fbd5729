"""What the outputs of a stream can be told."""

from dataclasses import dataclass
from pathlib import Path

from edge_ad_runtime.config_table import Table

KEEP = ("good", "anomalous", "all")


@dataclass(frozen=True, kw_only=True)
class JsonConfig:
    """Lines in a file: `path`, begun anew at `max_mb`, of which `files` old ones are kept."""

    path: Path
    max_mb: float = 100.0
    files: int = 10


@dataclass(frozen=True, kw_only=True)
class PicturesConfig:
    """Overlays in a folder; the oldest go when one of the limits is passed (None: no limit)."""

    folder: Path
    keep: str = "anomalous"
    max_count: int | None = None
    max_days: float | None = None
    max_mb: float | None = None


@dataclass(frozen=True, kw_only=True)
class MqttConfig:
    """An MQTT broker; the password is the content of an environment variable.

    Quality of service 2 by default: with 1 the broker itself hands messages to a subscriber twice
    when one of the two restarts.
    """

    host: str
    port: int = 1883
    topic: str = "edge-ad"
    client_id: str = ""
    username: str | None = None
    password_env: str = "EDGE_AD_MQTT_PASSWORD"
    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    qos: int = 2
    spool: Path = Path("edge-ad-mqtt.spool")
    spool_limit: int = 100_000


@dataclass(frozen=True, kw_only=True)
class WebhookConfig:
    """A URL that takes each verdict as POST; the token is that of an environment variable."""

    url: str
    timeout: float = 5.0
    token_env: str = "EDGE_AD_WEBHOOK_TOKEN"
    spool: Path = Path("edge-ad-webhook.spool")
    spool_limit: int = 100_000


@dataclass(frozen=True, kw_only=True)
class DigitalConfig:
    """A line of a GPIO chip: a pulse for each anomalous verdict, or a level while alarm is on."""

    chip: str
    line: int
    on: str = "anomalous"
    pulse_ms: float = 100.0
    active_low: bool = False


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """The live page; beyond 127.0.0.1 with the token of an environment variable."""

    host: str = "127.0.0.1"
    port: int = 8080
    token_env: str = "EDGE_AD_TOKEN"
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """All outputs; None: not wanted. `stdout`: lines on the standard output."""

    stdout: bool = True
    show: bool = False
    json: JsonConfig | None = None
    pictures: PicturesConfig | None = None
    mqtt: MqttConfig | None = None
    webhook: WebhookConfig | None = None
    digital: DigitalConfig | None = None
    serve: ServeConfig | None = None


def read_outputs(top: Table) -> OutputConfig:
    """Read the tables of all outputs; mistakes are noted in the table."""
    return OutputConfig(
        stdout=top.flag("stdout", True),
        show=top.flag("show", False),
        json=_json(top.table("json")),
        pictures=_pictures(top.table("pictures")),
        mqtt=_mqtt(top.table("mqtt")),
        webhook=_webhook(top.table("webhook")),
        digital=_digital(top.table("digital")),
        serve=_serve(top.table("serve")),
    )


def _json(table: Table | None) -> JsonConfig | None:
    if table is None:
        return None
    path = table.path("path")
    if path is None:
        table.wrong("path", "the path of a file", None)
    max_mb, files = table.number("max_mb", 100.0, 0.001), table.whole("files", 10, 1)
    table.finish()
    return None if path is None else JsonConfig(path=path, max_mb=max_mb, files=files)


def _pictures(table: Table | None) -> PicturesConfig | None:
    if table is None:
        return None
    folder = table.path("folder")
    if folder is None:
        table.wrong("folder", "the path of a folder", None)
    config = PicturesConfig(
        folder=folder or Path(),
        keep=table.text("keep", "anomalous", KEEP),
        max_count=table.whole("max_count", None, 1),
        max_days=table.number("max_days", None, 0.001),
        max_mb=table.number("max_mb", None, 0.001),
    )
    table.finish()
    return None if folder is None else config


def _mqtt(table: Table | None) -> MqttConfig | None:
    if table is None:
        return None
    host = table.text("host", None)
    if host is None:
        table.wrong("host", "the broker's name or address", None)
    tls = table.flag("tls", False)
    config = MqttConfig(
        host=host or "",
        port=table.whole("port", 8883 if tls else 1883, 1, 65535),
        topic=table.text("topic", MqttConfig.topic),
        client_id=table.text("client_id", ""),
        username=table.text("username", None),
        password_env=table.text("password_env", MqttConfig.password_env),
        tls=tls,
        ca=table.path("ca"),
        certificate=table.path("certificate"),
        key=table.path("key"),
        qos=table.whole("qos", 2, 0, 2),
        spool=table.path("spool") or MqttConfig.spool,
        spool_limit=table.whole("spool_limit", MqttConfig.spool_limit, 1),
    )
    table.finish()
    return None if host is None else config


def _webhook(table: Table | None) -> WebhookConfig | None:
    if table is None:
        return None
    url = table.text("url", None)
    if url is None or not url.startswith(("http://", "https://")):
        table.wrong("url", "http://... or https://...", url)
    config = WebhookConfig(
        url=url or "",
        timeout=table.number("timeout", 5.0, 0.1, 60),
        token_env=table.text("token_env", WebhookConfig.token_env),
        spool=table.path("spool") or WebhookConfig.spool,
        spool_limit=table.whole("spool_limit", WebhookConfig.spool_limit, 1),
    )
    table.finish()
    return None if url is None else config


def _digital(table: Table | None) -> DigitalConfig | None:
    if table is None:
        return None
    chip, line = table.text("chip", "/dev/gpiochip0"), table.whole("line", None, 0)
    if line is None:
        table.wrong("line", "the number of a line of the chip", None)
    config = DigitalConfig(
        chip=chip,
        line=line or 0,
        on=table.text("on", "anomalous", ("anomalous", "alarm")),
        pulse_ms=table.number("pulse_ms", 100.0, 1, 60_000),
        active_low=table.flag("active_low", False),
    )
    table.finish()
    return None if line is None else config


def _serve(table: Table | None) -> ServeConfig | None:
    if table is None:
        return None
    config = ServeConfig(
        host=table.text("host", ServeConfig.host),
        port=table.whole("port", ServeConfig.port, 0, 65535),
        token_env=table.text("token_env", ServeConfig.token_env),
    )
    table.finish()
    return config
