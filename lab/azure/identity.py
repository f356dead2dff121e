"""A managed identity as App Service offers it: a loopback URL that hands out tokens for a secret.

The production credential chain finds it by ``IDENTITY_ENDPOINT`` and ``IDENTITY_HEADER`` and needs
no change. Tokens are signed, not stored, so they outlive a restart of the emulator as real ones do.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from lab.azure.config import Config
from lab.azure.errors import ArmError
from lab.azure.http import Request, Response, json_response

PATH = "/msi/token"
AUDIENCES = ("https://management.azure.com", "https://management.core.windows.net")


class Identity:
    """Gives tokens and checks them."""

    def __init__(self, config: Config) -> None:
        """``config`` holds the signing key, the header's secret and a token's life in seconds."""
        self._config = config

    def token(self, request: Request) -> Response:
        """Answer the managed identity endpoint."""
        if request.headers.get("x-identity-header") != self._config.identity_header:
            return json_response(401, {"statusCode": 401, "message": "wrong X-IDENTITY-HEADER"})
        resource = request.query.get("resource")
        if not resource:
            return json_response(400, {"statusCode": 400, "message": "resource is missing"})
        expires_on = int(time.time()) + self._config.token_seconds
        claims = {"aud": resource, "exp": expires_on, "tid": self._config.tenant}
        return json_response(
            200,
            {
                "access_token": self._sign(claims),
                "expires_on": str(expires_on),
                "resource": resource,
                "token_type": "Bearer",
                "client_id": "00000000-0000-0000-0000-00000000feed",
            },
        )

    def check(self, request: Request) -> None:
        """Let a request with a valid token pass. Raises :class:`ArmError` 401 otherwise."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            code = "AuthenticationFailed"
            raise self._refusal(
                code, "Authentication failed. The 'Authorization' header is missing."
            )
        claims = self._verify(token.strip())
        if claims is None:
            raise self._refusal("InvalidAuthenticationToken", "The access token is invalid.")
        if claims["exp"] < time.time():
            code = "ExpiredAuthenticationToken"
            raise self._refusal(code, "The access token expiry UTC time is earlier than now.")
        if not str(claims["aud"]).startswith(AUDIENCES):
            code = "InvalidAuthenticationTokenAudience"
            message = f"The access token has been obtained for wrong audience '{claims['aud']}'."
            raise self._refusal(code, message)

    def _refusal(self, code: str, message: str) -> ArmError:
        challenge = (
            f'Bearer authorization_uri="https://login.windows.net/{self._config.tenant}", '
            f'error="invalid_token", error_description="{message}"'
        )
        return ArmError(401, code, message, headers={"WWW-Authenticate": challenge})

    def _sign(self, claims: dict[str, Any]) -> str:
        payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        return f"lab.{payload}.{self._mac(payload)}"

    def _verify(self, token: str) -> dict[str, Any] | None:
        parts = token.split(".")
        if len(parts) != 3 or not hmac.compare_digest(self._mac(parts[1]), parts[2]):
            return None
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(padded))
        return claims

    def _mac(self, payload: str) -> str:
        key = self._config.signing_key.encode()
        return hmac.new(key, payload.encode(), hashlib.sha256).hexdigest()
