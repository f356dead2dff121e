"""What an operator asks for: one machine's failback, as a YAML document.

Nothing here does I/O: `parse_spec` takes text. Every field has a description because `failback
schema` publishes them to editors. Unknown keys are refused, so that a typing error is never a
silent default.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from models.errors import InvalidSpec
from models.units import ByteSize, Seconds

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"
MIB = 2**20


class Strict(BaseModel):
    """A model that refuses unknown keys and cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AzureMachineRef(Strict):
    """Which virtual machine in Azure comes home."""

    subscription_id: str = Field(min_length=1, description="Azure subscription id.")
    resource_group: str = Field(min_length=1, description="Resource group of the virtual machine.")
    vm: str = Field(min_length=1, description="Name of the virtual machine in Azure.")
    snapshot_resource_group: str | None = Field(
        default=None,
        description="Where the run's snapshots are made; the machine's own group if not said.",
    )

    def snapshot_id(self, name: str) -> str:
        """The ARM id of a snapshot of this machine, whether it exists or not."""
        group = self.snapshot_resource_group or self.resource_group
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{group}"
            f"/providers/Microsoft.Compute/snapshots/{name}"
        )


class Location(StrEnum):
    """Where the machine comes home to."""

    ORIGINAL = "original"
    ALTERNATE = "alternate"


class StaticAddress(Strict):
    """A static IPv4 configuration put back into the guest after it has booted."""

    addresses: list[str] = Field(min_length=1, description="IPv4 addresses.")
    subnets: list[str] = Field(min_length=1, description="Subnet masks, one per address.")
    gateways: list[str] = Field(default=[], max_length=5, description="Default gateways.")
    dns_servers: list[str] = Field(default=[], description="DNS servers.")


class NetworkAdapter(Strict):
    """How one adapter of the on-premises machine is to be connected before it boots."""

    name: str = Field(default="Network Adapter", description="Adapter name on the hypervisor.")
    switch: str | None = Field(default=None, description="Virtual switch to connect to.")
    vlan_id: int | None = Field(default=None, ge=1, le=4094, description="Access VLAN.")
    mac_address: str | None = Field(default=None, description="Static MAC address.")
    static: StaticAddress | None = Field(default=None, description="Static address in the guest.")


class OnPremisesTarget(Strict):
    """Where on-premises the machine comes home to."""

    platform: Literal["hyperv"] = Field(default="hyperv", description="Hypervisor platform.")
    host: str = Field(min_length=1, description="Host, by its name in the worker's configuration.")
    vm: str | None = Field(
        default=None, description="Name of the machine on-premises; `machine` if not said."
    )
    location: Location = Field(
        default=Location.ORIGINAL,
        description="`original`: the machine exists. `alternate`: it is created on this host.",
    )
    create_if_missing: bool = Field(
        default=False,
        description="Create the machine when it does not exist (always so for `alternate`).",
    )
    storage_path: str | None = Field(
        default=None, description="Folder on the host for a created machine and its disks."
    )
    switches: dict[str, str] = Field(
        default={},
        description="Azure subnet name (or `default`) to the virtual switch of a created machine.",
    )
    adapters: list[NetworkAdapter] = Field(
        default=[], description="Network settings put back before the machine boots."
    )
    processors: int | None = Field(
        default=None, ge=1, le=2048, description="Processors of a created machine."
    )
    memory: ByteSize | None = Field(default=None, description="Memory of a created machine.")
    disks: dict[str, str] = Field(
        default={},
        description="Azure disk (`os` or `lun0`, `lun1`, …) to the path of its disk on the host, "
        "where the order of the disks does not tell.",
    )

    @property
    def creates(self) -> bool:
        """Whether a missing machine is created."""
        return self.create_if_missing or self.location is Location.ALTERNATE


class SyncMode(StrEnum):
    """How the disks are brought in step (H5, H6)."""

    DELTA = "delta"
    FULL = "full"


class Sync(Strict):
    """How and how often the disks are brought in step."""

    mode: SyncMode = Field(
        default=SyncMode.DELTA,
        description="`delta`: rounds while the Azure machine runs. `full`: one download, stopped.",
    )
    interval: Seconds = Field(default=300.0, description="Time between rounds while ready.")
    bandwidth_limit: ByteSize | None = Field(
        default=None, description="Limit per second over all disks of this machine."
    )
    audit_samples: int = Field(
        default=64,
        ge=0,
        le=65536,
        description="Unchanged blocks compared per delta round and disk.",
    )
    extent: ByteSize = Field(default=16 * MIB, description="Unit of progress and of resuming.")

    @field_validator("extent")
    @classmethod
    def _extent_is_a_multiple(cls, value: int) -> int:
        if not MIB <= value <= 256 * MIB or value % MIB:
            raise ValueError("extent is a multiple of 1 MiB, from 1 MiB to 256 MiB")
        return value

    @field_validator("interval")
    @classmethod
    def _interval_is_positive(cls, value: float) -> float:
        if value < 1:
            raise ValueError("interval is at least 1s")
        return value


class FailoverTrigger(Strict):
    """What makes the run leave `ready`, besides a person's `run_failover`."""

    at: datetime | None = Field(default=None, description="A set time, with its time zone.")
    when_downtime_below: Seconds | None = Field(
        default=None, description="As soon as the predicted downtime fits this budget."
    )

    expected_shutdown: Seconds = Field(
        default=60.0, description="How long the guest shuts down as a rule; part of the prediction."
    )
    expected_boot: Seconds = Field(
        default=60.0, description="How long the guest boots as a rule; part of the prediction."
    )

    @field_validator("at")
    @classmethod
    def _time_zone_is_said(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(
                "the set time needs a time zone, for example 2026-12-01T02:00:00+01:00"
            )
        return value


class Shutdown(Strict):
    """How the Azure machine is stopped; a ladder, each rung bounded."""

    graceful_timeout: Seconds = Field(
        default=300.0, description="How long the guest may take to shut down by itself."
    )
    force: bool = Field(
        default=False,
        description="Power off when the guest refuses; without it the run waits for a person.",
    )


class HeartbeatCheck(Strict):
    """The hypervisor sees the guest's heartbeat."""

    kind: Literal["heartbeat"] = "heartbeat"
    timeout: Seconds = 300.0


class AddressCheck(Strict):
    """The guest reports an address (the given one, if one is given)."""

    kind: Literal["address"] = "address"
    address: str | None = None
    timeout: Seconds = 300.0


class TcpCheck(Strict):
    """A TCP port answers, on the machine's address or on the given host."""

    kind: Literal["tcp"] = "tcp"
    port: int = Field(ge=1, le=65535)
    host: str | None = None
    timeout: Seconds = 120.0


class HttpCheck(Strict):
    """A URL answers with the expected status; `{address}` stands for the machine's address."""

    kind: Literal["http"] = "http"
    url: str
    status: int = 200
    timeout: Seconds = 120.0


class ScriptCheck(Strict):
    """A script in the control worker's script folder ends with exit status 0."""

    kind: Literal["script"] = "script"
    script: str = Field(pattern=_NAME, description="File name in the worker's script folder.")
    arguments: list[str] = []
    timeout: Seconds = 120.0


HealthCheck = Annotated[
    HeartbeatCheck | AddressCheck | TcpCheck | HttpCheck | ScriptCheck, Field(discriminator="kind")
]


class CommitRules(Strict):
    """What `commit` needs and what it removes."""

    approvers: int = Field(
        default=1, ge=1, le=2, description="How many different people must say it."
    )
    delete_azure_vm: bool = Field(
        default=True, description="Delete the Azure machine and its disks (H12)."
    )


class FailbackSpec(Strict):
    """One machine's failback."""

    api_version: Literal["failback/v1"] = Field(default="failback/v1", alias="apiVersion")
    machine: str = Field(
        pattern=_NAME, description="The machine's name; the run's id is `failback-<machine>`."
    )
    plan: str | None = Field(default=None, description="Recovery plan this machine belongs to.")
    azure: AzureMachineRef
    on_premises: OnPremisesTarget
    mover: str = Field(pattern=_NAME, description="The mover worker (master target) that writes.")
    sync: Sync = Sync()
    run_failover: FailoverTrigger = FailoverTrigger()
    shutdown: Shutdown = Shutdown()
    validation: list[HealthCheck] = Field(
        default=[HeartbeatCheck()], description="Health checks after the machine has booted."
    )
    commit: CommitRules = CommitRules()

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="after")
    def _creation_says_where(self) -> FailbackSpec:
        target = self.on_premises
        if target.creates and not target.storage_path:
            raise ValueError("on_premises.storage_path is needed where a machine may be created")
        return self

    @property
    def on_premises_name(self) -> str:
        """The machine's name on-premises."""
        return self.on_premises.vm or self.machine

    def clash_with(self, other: FailbackSpec) -> str:
        """What this failback and another would both take hold of, in words; empty if nothing.
        Azure's and Hyper-V's names are the same in any case."""
        mine, theirs = self.azure, other.azure
        if _same(
            (mine.subscription_id, mine.resource_group, mine.vm),
            (theirs.subscription_id, theirs.resource_group, theirs.vm),
        ):
            return f"the Azure machine {mine.resource_group}/{mine.vm}"
        here, there = self.on_premises, other.on_premises
        if _same(
            (here.platform, here.host, self.on_premises_name),
            (there.platform, there.host, other.on_premises_name),
        ):
            return f"the on-premises machine {self.on_premises_name} on {here.host}"
        return ""

    @property
    def workflow_id(self) -> str:
        """The run's workflow id."""
        return workflow_id(self.machine)


def _same(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return [part.casefold() for part in one] == [part.casefold() for part in other]


def workflow_id(machine: str) -> str:
    """The workflow id of a machine's failback. It holds no slash: Temporal's HTTP API, which bots
    use, finds no workflow whose id has one."""
    return f"failback-{machine}"


def parse_spec(text: str, *, origin: str = "the spec") -> FailbackSpec:
    """Read one spec from YAML.

    Raises:
        InvalidSpec: Not YAML, or not a failback spec; the message lists every wrong field.
    """
    try:
        document: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidSpec(f"{origin} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise InvalidSpec(
            f"{origin} holds no mapping.",
            hint="See docs/spec.md or `failback schema` for the fields.",
        )
    try:
        return FailbackSpec.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in issue['loc']) or 'spec'}: {issue['msg']}"
            for issue in error.errors()
        )
        raise InvalidSpec(
            f"{origin} is not a failback spec: {problems}.",
            hint="`failback schema` prints the fields and their meaning.",
        ) from error
