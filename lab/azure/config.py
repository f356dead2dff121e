"""The emulator's settings: made at the first start, then read: a restart changes nothing."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path


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
    list_page_size: int = 50

    @staticmethod
    def load(directory: Path) -> Config:
        """The settings of ``directory``; defaults where nothing was said."""
        path = directory / "azure.json"
        if not path.exists():
            return Config()
        fields = json.loads(path.read_text())
        return Config(**{**fields, "latency": Latency(**fields.get("latency", {}))})

    def save(self, directory: Path) -> None:
        """Replace the settings of ``directory`` in one step."""
        temporary = directory / "azure.json.new"
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.replace(directory / "azure.json")
