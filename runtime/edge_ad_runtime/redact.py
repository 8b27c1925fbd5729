"""Take credentials out of text before it is printed."""

import re

# Up to the last @: passwords hold @ and / unescaped. Better to hide too much than too little.
_USER_INFO = re.compile(r"(?<=://)\S*@")
_SECRET = re.compile(
    r"((?:^|[?&;\s])[\w.-]*(?:user|login|pass|pwd|token|key|auth|secret|sig)[\w.-]*=)[^&;\s]*",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return the text with user, password and secret query values of its URLs as `***`."""
    return _SECRET.sub(r"\1***", _USER_INFO.sub("***@", text))
