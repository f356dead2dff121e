"""Keeps the signatures of SAS URLs out of texts and logs: error texts of HTTP libraries quote whole
URLs, and urllib3 logs them at debug level."""

from __future__ import annotations

import logging
import re

# Policy id, signature, expiry, and what signs Resource Manager's own poll addresses; also inside a
# URL that is itself a parameter. The value goes on to the next parameter or the end of the URL.
_SECRET_PARAMETER = re.compile(
    r"((?:[?&]|%3f|%26)(?:sig|si|se|skoid|p|t|c|s|h)(?:=|%3d))[^&\s\"'<>)]+", re.IGNORECASE
)
_LOGGERS = ("urllib3.connectionpool", "urllib3.util.retry")


def redacted(text: str) -> str:
    """`text` without the values of parameters that let their reader in."""
    return _SECRET_PARAMETER.sub(r"\1REDACTED", text)


class _Redaction(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        clean = redacted(message)
        if clean != message:
            record.msg, record.args = clean, ()
        return True


_REDACTION = _Redaction()


def redact_http_logs() -> None:
    """Make the loggers that quote URLs redact them; calling it again changes nothing."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_REDACTION)
