"""The SDK clients: one per subscription, shared by all threads. Refusals are not retried here,
because activities retry durably. Only endpoint, CA file, proxy and credential tell clouds apart.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

from azure.core.credentials import TokenCredential
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError, map_error
from azure.core.rest import HttpRequest
from azure.identity import DefaultAzureCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.core.exceptions import ARMErrorFormat
from azure.storage.blob import BlobClient

from platforms.azure.redaction import redact_http_logs
from platforms.azure.settings import AzureSettings

if TYPE_CHECKING:
    from azure.mgmt.network import NetworkManagementClient

# Old enough to be everywhere, new enough for paged listings of changed ranges (2020-10-02).
STORAGE_API_VERSION = "2023-11-03"


class Clients:
    """Makes and keeps the clients."""

    def __init__(self, settings: AzureSettings, credential: TokenCredential | None = None) -> None:
        redact_http_logs()
        self.settings = settings
        self._transport: dict[str, Any] = {
            "connection_timeout": settings.connection_timeout_seconds,
            "read_timeout": settings.read_timeout_seconds,
        }
        if settings.ca_file:
            self._transport["connection_verify"] = settings.ca_file
        if settings.proxy:
            self._transport["proxies"] = {"https": settings.proxy}
        self._credential = credential or DefaultAzureCredential(**self._transport)
        self._lock = threading.Lock()
        self._compute: dict[str, ComputeManagementClient] = {}
        self._network: dict[str, NetworkManagementClient] = {}
        # Sizes by subscription and region: a region's list is megabytes and changes rarely.
        self.sizes: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}

    def compute(self, subscription_id: str) -> ComputeManagementClient:
        """The client for machines, disks and snapshots of a subscription."""
        with self._lock:
            client = self._compute.get(subscription_id)
            if client is None:
                client = ComputeManagementClient(
                    self._credential, subscription_id, **self._options()
                )
                self._compute[subscription_id] = client
            return client

    def network(self, subscription_id: str) -> NetworkManagementClient:
        """The client for network interfaces of a subscription."""
        # 28 MiB of models that only preflight needs; a mover never asks.
        from azure.mgmt.network import NetworkManagementClient

        with self._lock:
            client = self._network.get(subscription_id)
            if client is None:
                client = NetworkManagementClient(
                    self._credential, subscription_id, **self._options()
                )
                self._network[subscription_id] = client
            return client

    def blob(self, sas_url: str) -> BlobClient:
        """A client for one exported snapshot. The URL is a secret."""
        return BlobClient.from_blob_url(
            sas_url, api_version=STORAGE_API_VERSION, retry_total=0, **self._transport
        )

    def list_json(self, subscription_id: str, path: str, api_version: str) -> list[dict[str, Any]]:
        """All items of a Resource Manager collection that no SDK of ours covers (locks,
        permissions).

        Raises:
            azure.core.exceptions.AzureError: As the SDK's own calls.
        """
        client = self.compute(subscription_id)
        items: list[dict[str, Any]] = []
        url: str | None = f"{self.settings.base_url.rstrip('/')}{path}?api-version={api_version}"
        while url:
            response = client.send_request(HttpRequest("GET", url))
            if response.status_code != 200:
                map_error(response.status_code, response, {404: ResourceNotFoundError})
                raise HttpResponseError(response=response, error_format=ARMErrorFormat)
            page = cast(dict[str, Any], response.json())
            items += page.get("value", [])
            url = page.get("nextLink")
        return items

    def _options(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "base_url": settings.base_url,
            "credential_scopes": list(settings.scopes),
            "polling_interval": settings.polling_interval_seconds,
            # A connection that the other side closed while idle is worth a second try at once; what
            # Azure answers is never tried again here, whatever `Retry-After` it carries.
            "retry_total": 2,
            "retry_connect": 2,
            "retry_read": 1,
            "retry_status": 0,
            "retry_backoff_factor": 0.2,
            **self._transport,
        }
