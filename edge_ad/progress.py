"""How far a long task has come: a bar for people, and numbers for programs that ask for them."""

import builtins
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One stage of the work.

    Attributes:
        stage: what is being done, as on the bar.
        done: steps that are done, up to `total`.
        total: steps of this stage.
    """

    stage: str
    done: int
    total: int


_listener: ContextVar[Callable[[Progress], None] | None] = ContextVar("listener", default=None)


@contextmanager
def progress_to(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Tell the listener of every step of the stages that run in this thread meanwhile."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class Bar:
    """The progress of one stage: on a terminal or in a notebook, and to the listener.

    with Bar(len(pictures), "padim fit", unit="picture") as bar:
        bar.update()
    """

    def __init__(self, total: int, stage: str | None, *, unit: str = "it") -> None:
        """Begin a stage; without a name it is neither shown nor reported."""
        # Here, so that a device, which has no tqdm, can import what a run consists of.
        from tqdm.auto import tqdm

        self._stage, self._done, self._total = stage, 0, total
        # A notebook shows bars, although its stderr claims to be no terminal.
        watched = sys.stderr.isatty() or getattr(builtins, "__IPYTHON__", False)
        hidden = stage is None or not watched
        self._bar: tqdm[None] = tqdm(total=total, desc=stage, unit=unit, disable=hidden)
        self._tell()

    def __enter__(self) -> "Bar":
        """Return the bar itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the stage."""
        self.close()

    def update(self, steps: int = 1) -> None:
        """Note that this many more steps are done."""
        self._done += steps
        self._bar.update(steps)
        self._tell()

    def close(self) -> None:
        """Take the bar off the terminal."""
        self._bar.close()

    def _tell(self) -> None:
        listener = _listener.get()
        if listener is not None and self._stage is not None:
            listener(Progress(stage=self._stage, done=self._done, total=self._total))
