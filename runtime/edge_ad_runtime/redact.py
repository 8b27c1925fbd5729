"""Take credentials out of text before it is printed, sent or logged.

What a user typed may be no valid URL at all (`htps:/me:pass word@host`), and that is exactly when
it is printed. So nothing is parsed: whatever may be a secret is hidden. Better too much than too
little.
"""

import re

_HIDDEN = "***"

# From a scheme of at least two letters (C:\ is a drive) and its slashes up to the last @ in it:
# passwords hold @, / and spaces unescaped.
_USER_INFO = re.compile(r"([a-z][a-z0-9+.-]+:[/\\]+)[^\n]*@", re.IGNORECASE)

# The same without slashes, or without a scheme: `rtsp:me:secret@host`, `me:secret@host`.
_BARE_USER_INFO = re.compile(
    r"(?<![\w/\\])(?![a-z]:[/\\])[^\s/\\:@*]+:(?![/\\])[^\n]*@", re.IGNORECASE
)

# User and password without a host: what follows a colon is a port only if it is a number.
_NO_HOST = re.compile(
    r"([a-z][a-z0-9+.-]+:[/\\]+)[^\s/\\:@\[\]]+:(?!\d{1,5}(?![^/\\?#\s]))[^\s/\\?#]+", re.I
)

_NAMES = (
    "user|usr|login|account|access|pass|pwd|psw|token|key|auth|secret|sig|cred|session|ticket|jwt"
)
_SECRET = re.compile(
    rf"((?:^|[/?&;#,\s\"'])"
    rf"(?:[\w.-]*(?:{_NAMES})[\w.-]*|u|p|pin|sid|code|hash|(?:[\w.-]*[_-])?pw)\s?=\s?)"
    # A value in a query may hold spaces; in a pipeline it ends before the next element.
    r"(?:\"[^\"\n]*\"|'[^'\n]*'|(?:(?! ! )[^&;\n])*)",
    re.IGNORECASE,
)

# A long value under an innocent name: `?id=8f3a...`.
_TOKEN = re.compile(r"([?&;#][\w.-]+=)[\w.~%+/=-]{16,}")


def redact(text: str) -> str:
    """Return the text with the users, passwords and secret query values of its URLs as `***`."""
    for pattern, replacement in (
        (_USER_INFO, rf"\1{_HIDDEN}@"),
        (_BARE_USER_INFO, f"{_HIDDEN}@"),
        (_NO_HOST, rf"\1{_HIDDEN}"),
        (_SECRET, rf"\1{_HIDDEN}"),
        (_TOKEN, rf"\1{_HIDDEN}"),
    ):
        text = pattern.sub(replacement, text)
    return text
