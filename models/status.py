"""What a run reports of itself: its phase, its disks and rounds, what it changed and who said what.

`RunState` is all that a run knows; it is carried over when its history is continued as new, and it
is what the `status` query answers. Times are UTC, sizes bytes, rates bytes per second.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, Field

from models.machine import (
    AdapterSettings,
    AttachedDisk,
    CheckResult,
    CloudMachine,
    OnPremisesMachine,
    Snapshot,
)
from models.messages import RunFailover
from models.spec import FailbackSpec


class Phase(StrEnum):
    """The phases of one failback, in order (see lifecycle)."""

    PREFLIGHT = "preflight"
    PREPARING = "preparing"
    SYNCING = "syncing"
    READY = "ready"
    SHUTTING_DOWN = "shutting_down"
    FINAL_SYNC = "final_sync"
    VERIFYING = "verifying"
    STARTING = "starting"
    VALIDATING = "validating"
    COMMIT_PENDING = "commit_pending"
    COMMITTING = "committing"
    REVERSE_REPLICATING = "reverse_replicating"
    COMPLETED = "completed"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"

    @property
    def position(self) -> int:
        """Place in the order of phases."""
        return list(Phase).index(self)

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self in (Phase.COMPLETED, Phase.ROLLED_BACK)


class EffectKind(StrEnum):
    """The side effects a run may have; each has its own undo."""

    SNAPSHOT = "snapshot"
    MACHINE_CREATED = "machine_created"
    DISKS_ATTACHED = "disks_attached"
    BLOCKS_WRITTEN = "blocks_written"
    AZURE_STOPPED = "azure_stopped"
    DISKS_DETACHED = "disks_detached"
    NETWORK_CHANGED = "network_changed"
    CHECKPOINT = "checkpoint"
    MACHINE_STARTED = "machine_started"


class EffectState(StrEnum):
    """Where an effect stands. It is `planned` before it happens, so that a kill never loses it."""

    PLANNED = "planned"
    DONE = "done"
    UNDONE = "undone"
    KEPT = "kept"


class Effect(BaseModel):
    """One side effect, under a name derived from the run."""

    name: str
    kind: EffectKind
    state: EffectState = EffectState.PLANNED
    disk_id: str = ""
    at: datetime
    snapshot: Snapshot | None = None
    problem: str = Field(default="", description="Why its undo did not work yet.")


class AuditEntry(BaseModel):
    """Who said what and when, and what the run decided by itself."""

    at: datetime
    by: str
    what: str
    reason: str = ""
    request_id: str = ""


class PhaseEntry(BaseModel):
    """When a phase began."""

    phase: Phase
    at: datetime


class Blocked(BaseModel):
    """Why the run waits for a person, and what they may say."""

    code: str
    message: str
    step: str
    since: datetime
    choices: list[str] = ["retry", "abort"]


class DiskRound(BaseModel):
    """What one round did to one disk. Bytes are of the disk, not of the wire."""

    disk_id: str
    round: int
    method: str
    fallback: str = Field(default="", description="Why a safer method was taken than planned.")
    source_snapshot: str = ""
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_zeroed: int = 0
    bytes_equal: int = 0
    bytes_recopied: int = 0
    audited_blocks: int = 0
    journal_bytes: int = 0
    seconds: float = 0
    manifest_root: str = ""
    verified: bool = False


class Round(BaseModel):
    """One round over all disks of the machine."""

    number: int
    started_at: datetime
    ended_at: datetime | None = None
    final: bool = False
    disks: list[DiskRound] = []

    @property
    def bytes_changed(self) -> int:
        """Bytes the round changed on the targets."""
        return sum(disk.bytes_written + disk.bytes_zeroed for disk in self.disks)

    @property
    def bytes_read(self) -> int:
        """Bytes the round read from the sources."""
        return sum(disk.bytes_read for disk in self.disks)


class DiskProgress(BaseModel):
    """Heartbeat of a running copy: what `watch` shows. Parsed from primitives, never trusted."""

    disk_id: str
    round: int = 0
    stage: str = ""
    method: str = ""
    bytes_total: int = 0
    bytes_done: int = 0
    bytes_written: int = 0
    rate: float = 0
    paused: bool = False


class HealthResult(BaseModel):
    """The outcome of one health check after boot."""

    check: str
    healthy: bool
    detail: str = ""


class Downtime(BaseModel):
    """When nobody served: from the order to stop Azure to the first sign of health on-premises."""

    predicted_seconds: float | None = None
    began_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def seconds(self) -> float | None:
        """Measured length, once it is over."""
        if self.began_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.began_at).total_seconds()


class VerificationRecord(BaseModel):
    """The outcome of a full verification asked for by a person."""

    at: datetime
    disk_id: str
    equal: bool
    bytes_read: int
    manifest_root: str
    detail: str = ""


class RunState(BaseModel):
    """All that a run knows."""

    spec: FailbackSpec
    run_id: str = Field(
        description="Short, stable over continue-as-new; part of every effect's name."
    )
    started_by: str = "unknown"
    phase: Phase = Phase.PREFLIGHT
    timeline: list[PhaseEntry] = []
    checks: list[CheckResult] = []
    cloud: CloudMachine | None = None
    on_premises: OnPremisesMachine | None = None
    attached: list[AttachedDisk] = []
    recorded_network: list[AdapterSettings] = []
    effects: list[Effect] = []
    audit: list[AuditEntry] = []
    rounds: list[Round] = Field(default=[], description="The newest 100; older ones are counted.")
    rounds_dropped: int = 0
    round_number: int = 0
    base: list[Snapshot] = Field(default=[], description="Snapshots the targets are in step with.")
    seen_requests: list[str] = []
    failover: RunFailover | None = None
    abort_requested: bool = False
    discard_onprem_changes: bool = False
    paused: bool = False
    bandwidth_limit: int | None = None
    blocked: Blocked | None = None
    waiting: str = Field(default="", description="What the run waits for by itself.")
    health: list[HealthResult] = []
    downtime: Downtime = Downtime()
    approvals: list[str] = []
    commit_override: bool = False
    next_round_at: datetime | None = None
    verifications: list[VerificationRecord] = []
    verify_asked: bool = False
    limits_said: int = Field(default=0, description="How often pause or limits were changed,")
    limits_passed: int = Field(default=0, description="and up to which change the mover knows.")
    result: str = ""

    @property
    def manifest_roots(self) -> dict[str, str]:
        """The newest manifest root of each disk, by disk id."""
        roots: dict[str, str] = {}
        for done in self.rounds:
            roots.update({d.disk_id: d.manifest_root for d in done.disks if d.manifest_root})
        return roots

    @property
    def booted(self) -> bool:
        """Whether the on-premises machine may have run in this failback and is not turned off."""
        return any(
            effect.kind is EffectKind.MACHINE_STARTED
            and effect.state in (EffectState.PLANNED, EffectState.DONE)
            for effect in self.effects
        )

    @property
    def asks_to_discard(self) -> bool:
        """Undo waits for a person to say that what the booted machine wrote may be lost."""
        return self.phase is Phase.ROLLING_BACK and self.booted and not self.discard_onprem_changes

    @property
    def allowed_messages(self) -> list[str]:
        """What may be said now."""
        if self.phase.ended:
            return []
        allowed: list[str] = ["set_limits"]
        before_shutdown = self.phase.position < Phase.SHUTTING_DOWN.position
        if before_shutdown and self.phase is not Phase.PREFLIGHT:
            allowed += ["run_failover"]
        if before_shutdown:
            allowed += ["resume" if self.paused else "pause"]
        if self.phase is Phase.READY:
            allowed += ["verify"]
        if self.phase in (Phase.COMMIT_PENDING, Phase.VALIDATING):
            allowed += ["commit"]
        if self.phase.position < Phase.COMMITTING.position or self.asks_to_discard:
            allowed += ["abort"]
        if self.blocked is not None and "retry" in self.blocked.choices:
            allowed += ["retry"]
        return allowed
