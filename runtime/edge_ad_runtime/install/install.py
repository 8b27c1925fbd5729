"""What a new model file goes through: check, trial beside the stream, take-over, or rollback."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_ad_runtime.errors import (
    ConfigError,
    DeviceError,
    EdgeAdError,
    ModelFileError,
    counted,
)
from edge_ad_runtime.install.check import NO_GOLDEN_FRAMES, Checked, CheckRule, check
from edge_ad_runtime.install.slots import BusyError, Slot, Slots
from edge_ad_runtime.model.accelerator import AcceleratorConfig
from edge_ad_runtime.model.accepted import AcceptedVersions
from edge_ad_runtime.model.document import MAX_TEXT
from edge_ad_runtime.model.info import verify as verify_checksum
from edge_ad_runtime.model.location import installed, signature_path
from edge_ad_runtime.model.scorer import Scorer, read_model
from edge_ad_runtime.model.signature import read_signature, verify
from edge_ad_runtime.stream.installs import NoAnswerError, ask

_TAKE_OVER_SECONDS = 60.0


class RefusedError(EdgeAdError):
    """The model file did not pass its check; nothing was changed."""


class RolledBackError(EdgeAdError):
    """The trial beside the stream or the take-over failed; the old model goes on."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a model file goes, and what it must fulfil there.

    Attributes:
        path: that streams are given.
        device: on which it runs.
        threads: CPU threads.
        accelerator: how a GPU is used.
        key: content of the public key, PEM; None: no signature is needed.
        least_version: a lower signed version is refused.
        accepted: the signed versions that this device has accepted; None: no signature is needed.
        socket: of the running stream; None: it has none.
    """

    path: Path
    device: str = "auto"
    threads: int | None = None
    accelerator: AcceleratorConfig = AcceleratorConfig()
    key: bytes | None = None
    least_version: int = 0
    accepted: AcceptedVersions | None = None
    socket: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How a model file is tried.

    Attributes:
        max_latency_ms: of one inference.
        timeout: seconds for the check, and again for the trial.
        shadow: parts that it scores beside the running model first; 0: none.
        most_changed: share of these parts whose verdict may differ, 0..1.
        other_category: it may be for another product than the installed one.
    """

    max_latency_ms: float = 2000.0
    timeout: float = 600.0
    shadow: int = 0
    most_changed: float = 0.1
    other_category: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A model file in use.

    Attributes:
        event: `model installed` or `model rolled back`.
        message: one sentence, for people.
        checked: what was found in it.
        version: signed; None: no signature was asked for.
        changed: whether another file was in use before.
        slot: in which it lies.
        running: whether a stream has taken it over; None: none was asked.
        shadow: figures of the trial beside the stream; None: there was none.
    """

    event: str
    message: str
    checked: Checked
    version: int | None
    changed: bool
    slot: Slot
    running: bool | None
    shadow: Mapping[str, Any] | None = None

    def fields(self) -> dict[str, object]:
        """Return what goes into JSON."""
        found = asdict(self)
        return {**found.pop("checked"), **found}


def install(model: Path, place: Place, terms: Terms) -> Outcome:
    """Put a model file in place of the one that is in use.

    The process may be killed at any moment: the path leads to the whole old file or the whole new
    one, each checked.

    Args:
        model: the new file, with its signature beside it.
        place: where it goes.
        terms: how it is tried.

    Raises:
        RefusedError: it did not pass its check.
        RolledBackError: it failed beside the stream, or the stream did not take it over.
        BusyError: another installation is running, or no stream runs until the end of the trial.
        ConfigError: the device is not set up for it, or its files cannot be written.
        MissingExtraError: a package is missing on this device.
    """
    slots = Slots(place.path)
    with slots.locked(), _telling(place):
        try:
            return _install(model, slots, place, terms)
        finally:
            slots.drop_candidate()


def _install(model: Path, slots: Slots, place: Place, terms: Terms) -> Outcome:
    with _refusing(str(model)):
        content = read_model(model)
        signature, version = _trusted(model, content, place)
        candidate = slots.stage(content, signature)
        checked = check(candidate, _rule(place, terms))
        if not terms.other_category:
            _check_category(checked, place.path)
    figures = None
    before = slots.current
    if before is not None and slots.holds(before, content, signature):
        slot = before  # the other slot keeps the model to go back to
    else:
        if terms.shadow:
            try:
                figures = _trial(candidate, place, terms)
            except ModelFileError as error:
                raise RolledBackError(f"{model} failed its trial: {error}") from error
        slots.adopt()
        before = slots.current
        slot = slots.keep_candidate()
    changed = slot != before
    running = _switch(slots, slot, before, place, checked, "take over")
    _accept(place, version)
    verb = "is now" if changed else "was already"
    message = f"{place.path} {verb} {checked.method} on {checked.category}, {_proof(checked)}"
    return Outcome(
        event="model installed",
        message=message + _whether(running),
        checked=checked,
        version=version,
        changed=changed,
        slot=slot,
        running=running,
        shadow=figures,
    )


def roll_back(place: Place, terms: Terms) -> Outcome:
    """Return to the model that was in use before; a second call returns to the later one.

    Raises:
        RefusedError: it does not pass its check any more, or its signed version is too low.
        RolledBackError: the stream did not take it over; the later one goes on.
        BusyError, ConfigError, MissingExtraError: as `install`.
    """
    slots = Slots(place.path)
    with slots.locked(), _telling(place):
        before, slot = slots.current, slots.spare
        file = slots.file(slot)
        if before is None or not file.exists():
            raise ConfigError(f"{place.path} has no previous model: nothing was changed")
        with _refusing("the model before"):
            _, version = _trusted(file, read_model(file), place)
            checked = check(file, _rule(place, terms))
        running = _switch(slots, slot, before, place, checked, "roll back")
        _accept(place, version)
        message = f"{place.path} is {checked.method} on {checked.category} again, "
        return Outcome(
            event="model rolled back",
            message=message + _proof(checked) + _whether(running),
            checked=checked,
            version=version,
            changed=True,
            slot=slot,
            running=running,
        )


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn what a check finds into a refusal."""
    try:
        yield
    except (ModelFileError, DeviceError) as error:
        raise RefusedError(f"{what} was refused: {error}") from error


@contextmanager
def _telling(place: Place) -> Iterator[None]:
    """Let the running stream tell its outputs that a model was refused, or failed its trial."""
    try:
        yield
    except (RefusedError, RolledBackError) as error:
        if place.socket is not None:
            with suppress(EdgeAdError):  # what matters is the exit code, which tells of it, too
                text = "".join(letter if letter.isprintable() else " " for letter in str(error))
                request = {"ask": "tell", "message": text[:MAX_TEXT]}
                ask(place.socket, request, _TAKE_OVER_SECONDS)
        raise


def _rule(place: Place, terms: Terms) -> CheckRule:
    return CheckRule(
        device=place.device,
        threads=place.threads,
        accelerator=place.accelerator,
        max_latency_ms=terms.max_latency_ms,
        timeout=terms.timeout,
    )


def _trusted(model: Path, content: bytes, place: Place) -> tuple[bytes | None, int | None]:
    """Check what can be checked before anything interprets the file: checksum and signature.

    Returns:
        The signature, if there is one, and the version that it covers; None: none is needed.

    Raises:
        ModelFileError: the file is damaged, or not signed as required.
        ConfigError: the key or the accepted versions cannot be used.
    """
    verify_checksum(content)
    if place.key is None:
        return (read_signature(model) if signature_path(model).exists() else None), None
    signature = read_signature(model)
    least = 0 if place.accepted is None else place.accepted.least(place.path)
    least = max(least, place.least_version)
    return signature, verify(content, signature, place.key, least_version=least).version


def _accept(place: Place, version: int | None) -> None:
    if place.accepted is not None and version is not None:
        place.accepted.accept(place.path, version)


def _check_category(checked: Checked, path: Path) -> None:
    """Refuse the model of another product, unless what is in use cannot be read."""
    try:
        category = Scorer(installed(path), device="cpu").info.category
    except (ModelFileError, DeviceError):
        return
    if category != checked.category:
        raise ModelFileError(
            f"it is for the product {checked.category!r}, but the model in use is for "
            f"{category!r}: give --other-category if that is intended"
        )


def _trial(candidate: Path, place: Place, terms: Terms) -> Mapping[str, Any]:
    """Let the running stream score parts with both models.

    Raises:
        ModelFileError: the candidate failed.
        BusyError: no stream is running, or it ended during the trial.
        ConfigError: the stream cannot be asked.
    """
    if place.socket is None:
        raise ConfigError(
            "--shadow needs a running stream that can be asked: set `socket` in the table "
            "[install] of its configuration, and give that with --config"
        )
    request = {
        "ask": "try",
        "model": str(place.path.absolute()),
        "candidate": str(candidate.absolute()),
        "parts": terms.shadow,
        "most_changed": terms.most_changed,
        "max_latency_ms": terms.max_latency_ms,
        "timeout": terms.timeout,
    }
    try:
        answer = ask(place.socket, request, terms.timeout + _TAKE_OVER_SECONDS)
    except NoAnswerError as error:
        raise BusyError(f"the trial has no outcome: {error}; nothing was changed") from error
    if answer is None:
        raise BusyError(
            f"no stream listens at {place.socket}, so there can be no trial with --shadow: nothing "
            "was changed"
        )
    if not answer["ok"]:
        raise ModelFileError(str(answer.get("message")))
    figures = answer.get("shadow")
    return figures if isinstance(figures, dict) else {}


def _switch(
    slots: Slots, slot: Slot, before: Slot | None, place: Place, checked: Checked, how: str
) -> bool | None:
    """Lead the path to a slot and let the stream follow; go back if it does not.

    Returns:
        Whether a stream uses the model now; None: none was asked.

    Raises:
        RolledBackError: the stream did not take the model over; the one before is in use again.
    """
    slots.switch(slot)
    try:
        running = _take_over(place, checked, how)
    except EdgeAdError as error:
        if before is not None:
            slots.switch(before)
            with suppress(EdgeAdError):  # it may have taken over, and its answer was lost
                _take_over(place, checked, "roll back")
        raise RolledBackError(f"the previous model stays in use: {error}") from error
    return running


def _take_over(place: Place, checked: Checked, how: str) -> bool | None:
    if place.socket is None:
        return None
    request = {"ask": how, "model": str(place.path.absolute()), "content": checked.content}
    answer = ask(place.socket, request, _TAKE_OVER_SECONDS)
    if answer is not None and not answer["ok"]:
        raise ModelFileError(str(answer.get("message")))
    return answer is not None


def _proof(checked: Checked) -> str:
    frames = f"{counted(checked.golden_frames, 'golden frame')} scored as at the export"
    return (
        f"{frames if checked.golden_frames else NO_GOLDEN_FRAMES}, "
        f"{checked.latency_ms:.1f} ms an inference on {checked.provider}"
    )


def _whether(running: bool | None) -> str:
    if running is None:
        return "; send SIGHUP to the stream that uses it, or start it"
    return "; the running stream uses it" if running else "; no stream is running"
