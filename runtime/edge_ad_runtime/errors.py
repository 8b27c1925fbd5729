"""What can go wrong, as one small tree, and how secrets stay out of what is said about it.

EdgeAdError
├── DataError         pictures, folders and masks that cannot be used
│   ├── ConfigError   a setting, option, request or trigger that cannot be used
│   └── FrameError    one frame that is lost; the next one may be fine
├── ModelFileError    not a model file of ours, damaged, or of a newer format
├── DeviceError       the asked-for device cannot run the model here
├── CameraError       a frame source that cannot be opened or that stopped
├── MissingExtraError an optional dependency is not installed
├── StuckError        a stream was told to stop and one of its threads did not end
├── NotFittedError    a detector was asked before `fit`
└── ExportError       the exported graph does not score as PyTorch does, or cannot be built

Every message is one sentence that says what was expected, what came, and what to do next.
The command line prints it and exits with 1.

Whatever a message quotes of an address goes through `redact`; `counted` keeps its plurals right.
"""

import re


class EdgeAdError(Exception):
    """Any failure that edge-ad explains itself; the message is meant for the user."""


class DataError(EdgeAdError):
    """Pictures, folders or masks cannot be used."""


class ConfigError(DataError):
    """A setting, an option, a request or a trigger cannot be used."""


class FrameError(DataError):
    """One frame is lost; the source goes on with the next one."""


class ModelFileError(EdgeAdError):
    """The model file is not ours, damaged, or of a format newer than this runtime."""


class DeviceError(EdgeAdError):
    """The asked-for device or execution provider cannot run the model here."""


class CameraError(EdgeAdError):
    """A frame source cannot be opened, or stopped."""


class MissingExtraError(EdgeAdError):
    """An optional dependency is not installed."""


class StuckError(EdgeAdError):
    """A thread of a stream did not end after a stop; its outputs were left as they are."""


class NotFittedError(EdgeAdError):
    """A detector was asked for a score before it was fitted."""


class ExportError(EdgeAdError):
    """The graph cannot be built, or does not score as PyTorch does."""


_HIDDEN = "***"

# What is longer is cut off first: somebody else's server may have written it, and the time that
# the patterns below take grows with its square.
_LONGEST_REDACTED = 2000

# From a scheme of at least two letters (C:\ is a drive) and its slashes up to the last @ in it:
# passwords hold @, / and spaces unescaped. Or from two slashes: `rtsp//me:secret@host`.
_USER_INFO = re.compile(r"([a-z][a-z0-9+.-]+:[/\\]+|[/\\]{2})[^\n]*@", re.IGNORECASE)

# The same without slashes, a scheme or a user: `rtsp:me:secret@host`, `:secret@host`.
_BARE_USER_INFO = re.compile(
    r"(?<![\w/\\])(?![a-z]:[/\\])[^\s/\\:@*]*:(?![/\\])[^\n]*@", re.IGNORECASE
)

# User and password without a host: what follows a colon is a port only if it is a number.
_NO_HOST = re.compile(
    r"([a-z][a-z0-9+.-]+:[/\\]+)[^\s/\\:@\[\]]+:(?!\d{1,5}(?![^/\\?#\s]))[^\s/\\?#]+", re.I
)

_NAMES = (
    "user|usr|login|account|access|pass|pwd|psw|pswd|token|key|auth|secret|sig|cred|session|ticket|"
    "jwt|bearer|priv"
)
_NAME = (
    rf"(?:[\w.%\[-]*(?:{_NAMES})[\w.%\]-]*?|u|p|pin|sid|code|hash|(?:[\w.%\[-]*[_\[-])?pw\]?)\s?"
)
_SECRET = re.compile(
    # In a query a colon stands for a mistyped `=`, elsewhere it is ordinary punctuation.
    rf"((?:^|[/?&;#,\s\"']){_NAME}(?:=|%3D)\s?|[?&;#]{_NAME}:\s?)"
    # A value in a query may hold spaces; in a pipeline it ends before the next element.
    r"(?:\"[^\"\n]*\"|'[^'\n]*'|(?:(?! ! )[^&;\n])*)",
    re.IGNORECASE,
)

# A long value under an innocent name: `?id=8f3a...`.
_TOKEN = re.compile(r"([?&;#][\w.-]+=)[\w.~%+/=-]{16,}")


def redact(text: str) -> str:
    """Return the text with the users, passwords and secret query values of its URLs as `***`.

    What a user typed may be no valid URL at all (`htps:/me:pass word@host`), and that is exactly
    when it is printed. So nothing is parsed: whatever may be a secret is hidden. Better too much
    than too little. Of a text longer than 2,000 characters, the rest is left out.
    """
    rest = text[_LONGEST_REDACTED:]
    if rest:
        # The end of a password may lie in the rest.
        text = text[:_LONGEST_REDACTED] + ("@" if "@" in rest else "")
    for pattern, replacement in (
        (_USER_INFO, rf"\1{_HIDDEN}@"),
        (_BARE_USER_INFO, f"{_HIDDEN}@"),
        (_NO_HOST, rf"\1{_HIDDEN}"),
        (_SECRET, rf"\1{_HIDDEN}"),
        (_TOKEN, rf"\1{_HIDDEN}"),
    ):
        text = pattern.sub(replacement, text)
    return f"{text}... ({len(rest)} more characters)" if rest else text


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 frame`, `3,000 frames`."""
    return f"1 {noun}" if number == 1 else f"{number:,} {noun}s"
