"""The emulator's settings: made at the first start, then read: a restart changes nothing."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CHANGEABLE = frozenset(
    {
        "access_per_family",
        "export_mib_per_second",
        "guest_shutdown_timeout",
        "page_ranges_per_page",
        "snapshot_window_seconds",
        "snapshots_per_window",
    }
)


@dataclass
class Latency:
    """How long the service takes for a long-running operation, in seconds."""

    snapshots: float = 0.3
    disks: float = 0.3
    access: float = 0.3
    vm: float = 1.0
    vm_update: float = 0.3


@dataclass
class Config:
    """``DIR/azure.json``. A port of 0 is replaced by the one that was free at the first start."""

    arm_port: int = 0
    data_port: int = 0
    local_port: int = 0  # managed identity and /lab/, plain HTTP
    identity_header: str = field(default_factory=lambda: secrets.token_hex(16))
    signing_key: str = field(default_factory=lambda: secrets.token_hex(32))
    tenant: str = "11111111-2222-3333-4444-555555555555"
    token_seconds: int = 86400
    latency: Latency = field(default_factory=Latency)
    # Azure waits five minutes for a guest to shut down; nobody wants to in a lab.
    guest_shutdown_timeout: float = 10.0
    guest_records_per_second: float = 50.0
    snapshots_per_window: int = 7
    snapshot_window_seconds: float = 300.0
    access_per_family: int = 5
    page_ranges_per_page: int = 10_000
    # Azure publishes 60 MiB/s per page blob; 0 means as fast as this machine can.
    export_mib_per_second: float = 0.0
    list_page_size: int = 50

    @staticmethod
    def load(directory: Path) -> Config:
        """The settings of ``directory``; defaults where nothing was said."""
        path = directory / "azure.json"
        if not path.exists():
            return Config()
        fields = json.loads(path.read_text())
        return Config(**{**fields, "latency": Latency(**fields.get("latency", {}))})

    def change(self, directory: Path, settings: dict[str, Any]) -> None:
        """Change settings of a running emulator and save them.

        Raises ``ValueError`` for one that only counts at the start or does not exist.
        """
        latency = dict(settings.pop("latency", {}))
        unknown = (settings.keys() - CHANGEABLE) | (latency.keys() - asdict(self.latency).keys())
        if unknown:
            raise ValueError(f"cannot change {sorted(unknown)} of a running emulator")
        for name, value in settings.items():
            setattr(self, name, value)
        for name, value in latency.items():
            setattr(self.latency, name, float(value))
        self.save(directory)

    def save(self, directory: Path) -> None:
        """Replace the settings of ``directory`` in one step."""
        temporary = directory / "azure.json.new"
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.replace(directory / "azure.json")
