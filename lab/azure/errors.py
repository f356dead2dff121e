"""How the emulated services say no: Resource Manager in JSON, storage in XML."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

from lab.azure.http import Response, json_response


class ArmError(Exception):
    """A refusal by Resource Manager, with its HTTP status and error code."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: dict[str, str] | None = None,
        details: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}
        self.details = details

    def response(self) -> Response:
        """The refusal as it goes over the wire."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details:
            error["details"] = self.details
        return json_response(self.status, {"error": error}, self.headers)


class StorageError(Exception):
    """A refusal by the blob service, with its HTTP status and error code."""

    def __init__(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}

    def response(self) -> Response:
        """The refusal as it goes over the wire."""
        body = (
            '<?xml version="1.0" encoding="utf-8"?>'
            f"<Error><Code>{escape(self.code)}</Code>"
            f"<Message>{escape(self.message)}</Message></Error>"
        )
        headers = {
            "Content-Type": "application/xml",
            "x-ms-error-code": self.code,
            **self.headers,
        }
        return Response(self.status, headers, body.encode())


def not_found(resource_type: str, name: str, group: str) -> ArmError:
    """The refusal for a resource that is not there."""
    return ArmError(
        404,
        "ResourceNotFound",
        f"The Resource '{resource_type}/{name}' under resource group '{group}' was not found. "
        "For more details please go to https://aka.ms/ARMResourceNotFoundFix",
    )


def throttled(retry_after: float, target: str, message: str) -> ArmError:
    """The compute provider's 429, with the shape of its real one."""
    seconds = max(1, int(-(-retry_after // 1)))
    return ArmError(
        429,
        "OperationNotAllowed",
        message,
        headers={
            "Retry-After": str(seconds),
            "x-ms-ratelimit-remaining-resource": f"Microsoft.Compute/{target};0",
        },
        details=[{"code": "TooManyRequests", "target": target, "message": message}],
    )
