"""From configuration to platforms: secrets are read here, when the worker starts, and nowhere
else."""

from __future__ import annotations

from platforms.azure import AzurePlatform
from platforms.azure.settings import AzureSettings
from platforms.base import CloudPlatform, OnPremisesPlatform
from platforms.hyperv import HyperVPlatform
from platforms.hyperv.settings import HyperVHost, Secret
from platforms.registry import Platforms
from worker.settings import AzureSection, HyperVSection, WorkerSettings


def build_cloud(section: AzureSection) -> CloudPlatform:
    """Azure as configured; `DefaultAzureCredential` says who we are."""
    return AzurePlatform(
        AzureSettings(
            base_url=section.base_url,
            credential_scopes=tuple(section.credential_scopes),
            ca_file=section.ca_file,
            proxy=section.proxy,
            polling_interval_seconds=section.polling_interval,
            sas_duration_seconds=int(section.grant_duration),
        )
    )


def build_platforms(settings: WorkerSettings) -> Platforms:
    """Every platform this worker is configured for."""
    on_premises: dict[str, OnPremisesPlatform] = {}
    if settings.hyperv:
        hosts = {name: _host(section) for name, section in settings.hyperv.items()}
        on_premises["hyperv"] = HyperVPlatform(hosts)
    return Platforms(build_cloud(settings.azure), on_premises)


def _host(section: HyperVSection) -> HyperVHost:
    return HyperVHost(
        endpoint=section.endpoint,
        username=section.username,
        password=Secret(section.password()),
        transport=section.transport,
        ca_file=section.ca_file,
        mover_vms=dict(section.movers),
        mover_controller=section.mover_controller,
        first_location=section.first_location,
        slots=section.slots,
        connections=section.connections,
        created_disk_format=section.created_disk_format,
        created_disk_fixed=section.created_disk_fixed,
        created_secure_boot=section.created_secure_boot,
    )
