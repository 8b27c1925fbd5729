"""A digital output: a pulse for each anomalous part, or a level while an alarm is on."""

import threading
from dataclasses import dataclass
from typing import Any, Protocol

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.config_table import setting
from edge_ad_runtime.errors import DeviceError, MissingExtraError
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.outputs.base import Output


@dataclass(frozen=True, kw_only=True)
class DigitalConfig:
    """A GPIO line: a pulse for each anomalous verdict, or a level while an alarm is on."""

    chip: str = setting("/dev/gpiochip0")
    line: int = setting(low=0, high=65_535, expected="the number of a line of the chip")
    on: str = setting("anomalous", choices=("anomalous", "alarm"))
    pulse_ms: float = setting(100.0, low=1, high=60_000)
    active_low: bool = setting(False)


class GpioLine(Protocol):
    """One line of a GPIO chip."""

    def set(self, active: bool) -> None:
        """Switch it.

        Raises:
            OSError: the chip has gone.
        """

    def release(self) -> None:
        """Give it back."""


class Digital(Output):
    """Switches a GPIO line; it is inactive from the start, and again at the end."""

    name = "GPIO line"

    def __init__(
        self,
        line: GpioLine,
        *,
        on: str = DigitalConfig.on,
        pulse_ms: float = DigitalConfig.pulse_ms,
    ) -> None:
        """Take over the GPIO line.

        Args:
            line: of a chip, or a fake.
            on: `anomalous`: a pulse for each such verdict; one within the pulse prolongs it.
                `alarm`: active while the alarm of any camera is on.
            pulse_ms: how long a pulse lasts.
        """
        self._line = line
        self._on = on
        self._seconds = pulse_ms / 1000
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._error: OSError | None = None
        self._alarms: set[str] = set()
        line.set(False)

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Start a pulse if the verdict is anomalous.

        Raises:
            OSError: the chip has gone, or could not end the last pulse.
        """
        if self._on != "anomalous" or not result.anomalous:
            return
        with self._lock:
            self._line.set(True)  # if it cannot be, the timer still ends the pulse before
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(self._seconds, self._end_pulse)
            self._timer.daemon = True
            self._timer.start()
            error, self._error = self._error, None
        if error is not None:
            raise error

    def event(self, event: Event) -> None:
        """Follow the alarms.

        Raises:
            OSError: the chip has gone.
        """
        if self._on != "alarm" or event.kind not in ("alarm on", "alarm off"):
            return
        if event.kind == "alarm on":
            self._alarms.add(event.camera)
        else:
            self._alarms.discard(event.camera)
        self._line.set(bool(self._alarms))

    def close(self) -> None:
        """Let a pulse end, switch the GPIO line off and give it back.

        Raises:
            OSError: the chip has gone.
        """
        timer = self._timer
        if timer is not None:
            timer.join(self._seconds + 1)
        with self._lock:
            try:
                self._line.set(False)
            finally:
                self._line.release()

    def _end_pulse(self) -> None:
        with self._lock:
            if threading.current_thread() is self._timer:
                try:
                    self._line.set(False)
                except OSError as error:
                    self._error = error  # the next verdict reports it


class _GpiodLine:
    def __init__(self, gpiod: Any, config: DigitalConfig) -> None:
        self._number = config.line
        self._values = gpiod.line.Value
        settings = gpiod.LineSettings(
            direction=gpiod.line.Direction.OUTPUT,
            active_low=config.active_low,
            output_value=gpiod.line.Value.INACTIVE,
        )
        self._request = gpiod.request_lines(
            config.chip, consumer="edge-ad", config={config.line: settings}
        )

    def set(self, active: bool) -> None:
        value = self._values.ACTIVE if active else self._values.INACTIVE
        self._request.set_value(self._number, value)

    def release(self) -> None:
        self._request.release()


def open_line(config: DigitalConfig) -> GpioLine:
    """Request a line of a GPIO character device.

    Raises:
        MissingExtraError: gpiod is not installed.
        DeviceError: the chip or line is not there, or in use.
    """
    try:
        import gpiod
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "the digital output needs the package 'gpiod', which is not installed: "
            "pip install 'edge-ad[gpio]'"
        ) from error
    try:
        return _GpiodLine(gpiod, config)
    except (OSError, ValueError) as error:
        raise DeviceError(
            f"cannot use line {config.line} of {config.chip} as output ({error}): `gpioinfo` "
            "lists the lines and who uses them"
        ) from error
