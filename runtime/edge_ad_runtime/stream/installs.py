"""What `edge-ad install` may ask a running stream for: try a model file, take it over, report it.

The two talk over a Unix socket, one request and one answer a connection, each one line of JSON:

    {"ask": "try", "model": "/m/cable.onnx", "candidate": "/m/cable.onnx.slots/new/cable.onnx", ...}
    {"ok": false, "message": "7 of 20 verdicts would change ..."}

Only the user whose process the stream is, and root, can connect.
"""

import json
import os
import select
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from edge_ad_runtime.errors import ConfigError, EdgeAdError, ModelFileError
from edge_ad_runtime.events import Event, EventKind, Report
from edge_ad_runtime.model.document import Document
from edge_ad_runtime.stream.model_file import ModelFile
from edge_ad_runtime.stream.watchers import Shadow
from edge_ad_runtime.supervisor import Supervisor

_LOOK_SECONDS = 0.5
_LONGEST_REQUEST = 65_536
_REQUEST_SECONDS = 5.0
"""Until a whole request must have come: the next one waits for as long."""

_MOST_PARTS = 1_000_000

Answer = dict[str, Any]


class NoAnswerError(EdgeAdError):
    """The stream was asked, and ended or took too long."""


class Installs:
    """Does what `edge-ad install` asks for.

    Attributes:
        shadows: a monitor for the cameras of each model file.
    """

    def __init__(
        self,
        models: Sequence[ModelFile],
        threshold: Callable[[], float | None],
        report: Report,
    ) -> None:
        """Serve these model files.

        Args:
            models: of the stream.
            threshold: gives that of the configuration, in place of the models' own.
            report: takes the events.
        """
        self.shadows = {model.path: Shadow() for model in models}
        self._models = {_real(model.path): model for model in models}
        self._threshold = threshold
        self._report = report

    def answer(self, request: Document, gone: Callable[[], bool]) -> Answer:
        """Answer one request.

        Raises:
            EdgeAdError: what was asked for cannot be done, or went wrong.
            ValueError: an entry is missing, or is something else than expected.
        """
        asked = request.choice("ask", ("nothing", "tell", "try", "take over", "roll back"))
        if asked == "nothing":
            return {}
        if asked == "tell":
            self._report(Event(kind="model refused", message=request.text("message")))
            return {}
        model = self._models.get(_real(Path(request.text("model"))))
        if model is None:
            raise ConfigError(f"the stream that is running does not use {request.text('model')}")
        if asked == "try":
            return self._try(model, request, gone)
        return self._take_over(
            model,
            request.text("content"),
            "model rolled back" if asked == "roll back" else "model installed",
        )

    def _try(self, model: ModelFile, request: Document, gone: Callable[[], bool]) -> Answer:
        figures = self.shadows[model.path].run(
            model.load(Path(request.text("candidate"))),
            parts=request.whole("parts", 1, _MOST_PARTS),
            most_changed=request.number("most_changed", 0, 1),
            max_latency_ms=request.number("max_latency_ms", 0),
            timeout=request.number("timeout", 0),
            given_up=gone,
        )
        return {"shadow": figures}

    def follow(self) -> None:
        """Take over what an installation that was killed has left installed."""
        for model in self._models.values():
            event = model.follow(self._threshold())
            if event is not None:
                self._report(event)

    def _take_over(self, model: ModelFile, content: str, kind: EventKind) -> Answer:
        event = model.reload(self._threshold())
        if event is not None:
            taken = event.kind == "model replaced"
            self._report(replace(event, kind=kind) if taken else event)
        if model.slot.content != content:
            raise ModelFileError(
                "the stream still uses another model"
                if event is None
                else f"the stream did not take it over: {event.message}"
            )
        return {}


class InstallSocket:
    """Answers `edge-ad install` in a thread of its own, one request after the other.

    Between two of them it looks whether an installation was killed before it could ask.
    """

    def __init__(
        self,
        path: Path,
        installs: Installs,
        supervisor: Supervisor,
    ) -> None:
        """Listen.

        Args:
            path: of the socket, which is made.
            installs: answers the requests.
            supervisor: starts the thread.

        Raises:
            ConfigError: there can be no such socket, or another stream listens at it.
        """
        self._path = path
        self._installs = installs
        self._closing = threading.Event()
        self._listener = _listen(path)
        self._thread = supervisor.start("installs", self._serve)

    def close(self) -> None:
        """Answer no more; a trial that is running is given up."""
        self._closing.set()
        self._thread.join(2 * _LOOK_SECONDS)
        # While it still listens: afterwards it could be the socket of the next stream.
        self._path.unlink(missing_ok=True)
        self._listener.close()

    def _serve(self) -> None:
        while not self._closing.is_set():
            self._installs.follow()
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                if self._closing.is_set():  # meanwhile, and did not wait for a model that loads
                    return
                raise
            with connection, suppress(OSError):  # it may have gone
                self._serve_one(connection)

    def _serve_one(self, connection: socket.socket) -> None:
        connection.settimeout(_LOOK_SECONDS)

        def gone() -> bool:
            if self._closing.is_set():
                return True
            ready, _, _ = select.select([connection], [], [], 0)
            return bool(ready) and not connection.recv(1, socket.MSG_PEEK)

        try:
            request = Document.parse(_line(connection, _REQUEST_SECONDS).decode())
            answer = {"ok": True, **self._installs.answer(request, gone)}
        except EdgeAdError as error:
            if self._closing.is_set():
                return  # a stream that ends says nothing about the model
            answer = {"ok": False, "message": str(error)}
        except (ValueError, RecursionError) as error:
            answer = {"ok": False, "message": f"the request cannot be understood ({error!s:.200})"}
        connection.sendall(json.dumps(answer).encode() + b"\n")


def ask(path: Path, request: Mapping[str, Any], timeout: float) -> Answer | None:
    """Ask the stream that listens at a socket.

    Args:
        path: of the socket.
        request: see the module.
        timeout: seconds until the answer must have come.

    Returns:
        The answer; None: no stream listens there.

    Raises:
        NoAnswerError: the stream ended, or took too long.
        ConfigError: this user may not use the socket, or no stream but another program listens.
    """
    with _socket() as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            raise ConfigError(
                f"cannot ask the stream at {path} ({error.strerror or error}): run the command as "
                "the user of the stream, or as root"
            ) from error
        try:
            connection.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(_line(connection, timeout))
        except (OSError, ValueError, RecursionError) as error:
            raise NoAnswerError(
                f"the stream at {path} gave no answer ({error}): it has ended, or hangs"
            ) from error
    if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
        raise ConfigError(
            f"the program that listens at {path} is not a stream: give its socket another path"
        )
    return answer


def _real(path: Path) -> Path:
    """Return the path as every process names it; the last part may be a link into a slot."""
    return Path(os.path.realpath(path.parent), path.name)  # also where links lead in a circle


def _line(connection: socket.socket, seconds: float) -> bytes:
    """Read a line that must have come whole within this many seconds, however slowly it arrives.

    Raises:
        ValueError: none came.
        OSError: the connection failed.
    """
    data, deadline = b"", monotonic() + seconds
    while not data.endswith(b"\n"):
        connection.settimeout(max(deadline - monotonic(), 0.001))
        part = connection.recv(4096)
        data += part
        if not part or len(data) > _LONGEST_REQUEST:
            raise ValueError("no line came")
    return data


def _listen(path: Path) -> socket.socket:
    listener = _socket()
    try:
        if path.is_socket():  # of a stream that was killed, unless somebody listens
            if _in_use(path):
                raise ConfigError(
                    f"another stream listens at {path}: give each a socket of its own"
                )
            path.unlink()
        listener.bind(os.fspath(path))
        path.chmod(0o600)  # nobody can connect before `listen`
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen at the socket {path} ({error.strerror or error}): expected a free path "
            "of less than 108 bytes in a folder that can be written to"
        ) from error
    except EdgeAdError:
        listener.close()
        raise
    listener.settimeout(_LOOK_SECONDS)
    return listener


def _in_use(path: Path) -> bool:
    try:
        return ask(path, {"ask": "nothing"}, _LOOK_SECONDS) is not None
    except NoAnswerError:  # it is busy with a trial
        return True


def _socket() -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError("a socket for `edge-ad install` needs Linux or macOS")
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
