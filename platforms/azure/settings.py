"""How to reach Azure: endpoints, certificates, proxy and pace. Nothing here is secret; who we are
is the credential's matter."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30
# Azure refuses longer grants on managed disks and snapshots: 60 days.
LONGEST_SAS_SECONDS = 60 * 24 * 3600


@dataclass(frozen=True)
class AzureSettings:
    """Settings of one Azure platform.

    Attributes:
        base_url: Azure Resource Manager's endpoint.
        credential_scopes: Token scopes; `<base_url>/.default` if none are given.
        ca_file: CA file for every endpoint, sign-in included; the system's store if none.
        proxy: URL of the proxy for HTTPS, as `http://host:port`; the environment's if none.
        polling_interval_seconds: Pause between polls where Azure names none.
        sas_duration_seconds: How long a grant on a snapshot lasts before it is renewed.
        page_range_window_bytes: How much of a disk one listing asks about. Azure bounds the time of
            a listing, and badly fragmented disks take long: Microsoft advises about 50 GB.
        page_range_results: Ranges per answer of a listing; Azure allows 10,000.
        confirm_seconds: How long an instance view may lag behind a finished operation.
        backoff_seconds: How long one listing keeps trying while storage is busy or silent.
        operation_seconds: How long one long-running operation may take before the call gives up.
        connection_timeout_seconds: To connect to an endpoint.
        read_timeout_seconds: Between two bytes of an answer.
    """

    base_url: str = "https://management.azure.com"
    credential_scopes: tuple[str, ...] = ()
    ca_file: str | None = None
    proxy: str | None = None
    polling_interval_seconds: float = 2.0
    sas_duration_seconds: int = 12 * 3600
    page_range_window_bytes: int = 48 * GIB
    page_range_results: int = 10_000
    confirm_seconds: float = 120.0
    backoff_seconds: float = 120.0
    operation_seconds: float = 3600.0
    connection_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.sas_duration_seconds <= LONGEST_SAS_SECONDS:
            raise ValueError(
                f"sas_duration_seconds is from 1 to {LONGEST_SAS_SECONDS} (60 days), "
                f"not {self.sas_duration_seconds}"
            )
        if self.page_range_window_bytes <= 0 or self.page_range_window_bytes % 512:
            raise ValueError("page_range_window_bytes is a positive multiple of 512")
        if not 0 < self.page_range_results <= 10_000:
            raise ValueError("page_range_results is from 1 to 10000")

    @property
    def scopes(self) -> tuple[str, ...]:
        """The token scopes in use."""
        return self.credential_scopes or (f"{self.base_url.rstrip('/')}/.default",)
