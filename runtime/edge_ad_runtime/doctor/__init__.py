"""Find what keeps a device from scoring, and say how to repair it: what a check has found."""

from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what it is, in a word or two.
        status: `error` keeps the device from working, a `warning` may.
        message: what was found.
        advice: what to do; empty where there is nothing to do.
    """

    check: str
    status: Status
    message: str
    advice: str = ""

    def fields(self) -> dict[str, str]:
        """Return what goes into JSON."""
        return asdict(self)


def ok(check: str, message: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding(check=check, status="ok", message=message)


def warning(check: str, message: str, advice: str) -> Finding:
    """Return a finding that may become a fault."""
    return Finding(check=check, status="warning", message=message, advice=advice)


def error(check: str, message: str, advice: str) -> Finding:
    """Return a fault."""
    return Finding(check=check, status="error", message=message, advice=advice)


def explained(check: str, problem: Exception) -> Finding:
    """Return the fault that one of our own errors tells: its last clause says what to do."""
    message, _, advice = str(problem).rpartition(": ")
    return error(check, message or advice, advice if message else "see the message")
