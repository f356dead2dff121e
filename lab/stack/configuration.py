"""The two files that a user of the lab's world would write: the spec of the failback (YAML) and the
workers' configuration (TOML). They are text; the product's own readers judge them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lab import tls
from lab.world import HOST, RESOURCE_GROUP, SUBSCRIPTION, SWITCH, World

PASSWORD_FILE = f"{HOST}.password"
STATIC_ADDRESS = "192.168.10.77"
_HEADER = """\
# One machine's failback, as the lab wrote it. `failback schema` explains every field.
"""


def spec_text(world: World, storage_path: str) -> str:
    """The spec of the world's machine."""
    document: dict[str, Any] = {
        "apiVersion": "failback/v1",
        "machine": world.machine,
        "azure": {
            "subscription_id": SUBSCRIPTION,
            "resource_group": RESOURCE_GROUP,
            "vm": world.machine,
        },
        "on_premises": _target(world, storage_path),
        "mover": world.mover,
        "sync": {"interval": f"{world.interval_seconds:g}s", "extent": world.extent_bytes},
        # What this machine is known to need; part of the downtime that is predicted.
        "run_failover": {"expected_shutdown": "3s", "expected_boot": "1s"},
        "shutdown": {"graceful_timeout": "30s"},
        "validation": [{"kind": kind, "timeout": "60s"} for kind in _health(world)],
    }
    return _HEADER + yaml.safe_dump(_merged(document, world.options), sort_keys=False)


def _health(world: World) -> list[str]:
    # The lab's network has no DHCP server: only the original's adapter is known there.
    return ["heartbeat", "address"] if world.original else ["heartbeat"]


def _target(world: World, storage_path: str) -> dict[str, Any]:
    target: dict[str, Any] = {"platform": "hyperv", "host": HOST}
    if not world.original:
        place = {"storage_path": storage_path, "switches": {"default": SWITCH}}
        target |= {"location": "alternate", **place}
    adapter: dict[str, Any] = {"name": "Network Adapter", "switch": SWITCH}
    if world.static_address:
        adapter["static"] = {
            "addresses": [STATIC_ADDRESS],
            "subnets": ["255.255.255.0"],
            "gateways": ["192.168.10.1"],
            "dns_servers": ["192.168.10.2"],
        }
    return {**target, "adapters": [adapter]}


def worker_text(directory: Path, world: World, ports: Mapping[str, int]) -> str:
    """The workers' configuration. Who we are in Azure is said by the environment."""
    ca_file = str(directory / tls.CA_FILE)
    azure = {
        "base_url": f"https://127.0.0.1:{ports['azure-arm']}",
        "credential_scopes": ["https://management.azure.com/.default"],
        "ca_file": ca_file,
        "polling_interval": "250ms",
    }
    host = {
        "endpoint": f"https://127.0.0.1:{ports['hyperv-https']}/wsman",
        "username": "LAB\\failback",
        "password_file": str(directory / PASSWORD_FILE),
        "ca_file": ca_file,
    }
    mover = {
        "state_dir": str(directory / "mover-state"),
        "device_dir": str(directory / "devices" / world.mover),
        "device_timeout": "20s",
    }
    sections: dict[str, dict[str, Any]] = {"azure": azure, f"hyperv.{HOST}": host, "mover": mover}
    return "\n".join(_section(name, fields) for name, fields in sections.items())


def _section(name: str, fields: Mapping[str, Any]) -> str:
    # JSON's strings and lists of strings are TOML's, too.
    lines = [f"{key} = {json.dumps(value)}" for key, value in fields.items()]
    return "\n".join([f"[{name}]", *lines, ""])


def _merged(document: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``changes`` laid over the document, mapping by mapping."""
    merged = dict(document)
    for key, value in changes.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, Mapping):
            merged[key] = _merged(below, value)
        else:
            merged[key] = value
    return merged
