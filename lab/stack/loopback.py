"""Small JSON requests to the lab's own ports. Never through a proxy: this is loopback."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from lab.stack.errors import LabError

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class NoAnswerError(LabError):
    """Nobody answers there (yet, or any more)."""


class RefusedError(LabError):
    """There was an answer, and it says no. ``status`` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def ask(url: str, body: Any = None, *, method: str | None = None, timeout: float = 10.0) -> Any:
    """The JSON that ``url`` answers; None for an empty answer. With a ``body``, it is a POST.

    Raises:
        NoAnswerError: no connection, or no whole answer within ``timeout`` seconds.
        RefusedError: a status of 400 or more.
    """
    content = send(url, None if body is None else json.dumps(body).encode(), method, timeout)
    return json.loads(content) if content else None


def send(url: str, data: bytes | None, method: str | None, timeout: float = 10.0) -> bytes:
    """The bytes that ``url`` answers; errors as of `ask`."""
    request = urllib.request.Request(
        url, data=data, method=method, headers={"Content-Type": "application/json"}
    )
    try:
        with _opener.open(request, timeout=timeout) as answer:
            content: bytes = answer.read()
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace").strip()
        raise RefusedError(error.code, f"{url} answers {error.code}: {said[:500]}") from error
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswerError(f"{url} does not answer: {error}.") from error
    return content
