"""The activities by name, with what goes in and what comes out: the contract between the workflows,
which decide, and the activities, which act. Nothing here is secret and everything is small."""

from __future__ import annotations

from pydantic import BaseModel

from models.machine import (
    AdapterSettings,
    AttachedDisk,
    CheckResult,
    CloudMachine,
    Leftover,
    OnPremisesMachine,
    Snapshot,
    Verdict,
)
from models.spec import FailbackSpec, HealthCheck
from models.status import RunState

CONTROL_QUEUE = "failback.control"

CLOUD_INSPECT = "cloud_inspect"
CLOUD_SNAPSHOT = "cloud_take_snapshots"
CLOUD_RELEASE = "cloud_release_snapshots"
CLOUD_SHUT_DOWN = "cloud_shut_down_guest"
CLOUD_POWER_OFF = "cloud_power_off"
CLOUD_DEALLOCATE = "cloud_deallocate"
CLOUD_REQUIRE_OFF = "cloud_require_off"
CLOUD_START = "cloud_start"
CLOUD_DELETE = "cloud_delete_machine"

ON_PREMISES_INSPECT = "on_premises_inspect"
ON_PREMISES_CREATE = "on_premises_create_machine"
ON_PREMISES_DELETE = "on_premises_delete_machine"
ON_PREMISES_ATTACH = "on_premises_attach_disks"
ON_PREMISES_DETACH = "on_premises_detach_disks"
ON_PREMISES_NETWORK = "on_premises_apply_network"
ON_PREMISES_NETWORK_BACK = "on_premises_restore_network"
ON_PREMISES_ADDRESSES = "on_premises_set_static_addresses"
ON_PREMISES_CHECKPOINT = "on_premises_take_checkpoint"
ON_PREMISES_CHECKPOINT_BACK = "on_premises_discard_checkpoint"
ON_PREMISES_CHECKPOINT_KEEP = "on_premises_keep_checkpoint_changes"
ON_PREMISES_START = "on_premises_start"
ON_PREMISES_TURN_OFF = "on_premises_turn_off"

CLOUD_LEFTOVERS = "cloud_leftovers"
CLOUD_REMOVE_LEFTOVERS = "cloud_remove_leftovers"
ON_PREMISES_LEFTOVERS = "on_premises_leftovers"
ON_PREMISES_REMOVE_LEFTOVERS = "on_premises_remove_leftovers"

HEALTH_CHECK = "health_check"

MOVER_INSPECT = "mover_inspect"
MOVER_PREPARE = "mover_prepare_disk"
MOVER_COPY = "mover_copy_round"
MOVER_VERIFY_ROUND = "mover_verify_round"
MOVER_VERIFY_ALL = "mover_verify_all"
MOVER_ROLL_BACK = "mover_roll_back"
MOVER_FORGET = "mover_forget_run"
MOVER_CONTROL = "mover_set_control"
MOVER_LEFTOVERS = "mover_leftovers"

FAILBACK_WORKFLOW = "FailbackWorkflow"
PREFLIGHT_WORKFLOW = "PreflightWorkflow"
DOCTOR_WORKFLOW = "DoctorWorkflow"


def mover_queue(mover: str) -> str:
    """The task queue of one mover."""
    return f"failback.mover.{mover}"


class SpecInput(BaseModel):
    """The spec and the run it belongs to."""

    spec: FailbackSpec
    run_id: str


class InspectInput(SpecInput):
    """For the second half of preflight: what the first half found."""

    cloud: CloudMachine | None = None


class MoverChecks(BaseModel):
    """What the mover found of itself."""

    checks: list[CheckResult]


class SnapshotInput(SpecInput):
    """Names by disk id, derived from the run."""

    cloud: CloudMachine
    names: dict[str, str]


class ReleaseInput(SpecInput):
    """Snapshots whose grants end, and those of them that go."""

    revoke: list[Snapshot] = []
    delete: list[Snapshot] = []


class CloudDeleteInput(SpecInput):
    """The machine as it was when the run began."""

    cloud: CloudMachine


class MachineInput(SpecInput):
    """The on-premises machine."""

    machine: OnPremisesMachine


class DetachInput(SpecInput):
    """What is attached to the mover."""

    disks: list[AttachedDisk]


class NetworkBackInput(MachineInput):
    """Adapter settings to put back."""

    recorded: list[AdapterSettings]


class HealthInput(MachineInput):
    """One health check after boot."""

    check: HealthCheck


class DiskInput(BaseModel):
    """One disk at the mover. `generation` of the engine is taken by the activity itself."""

    spec: FailbackSpec
    run_id: str
    disk: AttachedDisk


class CopyInput(DiskInput):
    """One round of one disk."""

    round: int
    snapshot: Snapshot
    base: Snapshot | None = None
    method: str
    verify: bool = True
    paused: bool = False
    bandwidth_limit: int | None = None


class RollBackInput(DiskInput):
    """`journal_expected`: the disk was opened by this run, so its journal must be on the mover."""

    journal_expected: bool = True


class VerifyRoundInput(DiskInput):
    """The round whose writes are read back."""

    round: int


class VerifyAllInput(DiskInput):
    """Read both sides whole; the snapshot is the one the disk is in step with."""

    round: int
    snapshot: Snapshot


class ControlInput(BaseModel):
    """What running copies of a run must obey from now on."""

    run_id: str
    paused: bool
    bandwidth_limit: int | None = None


class StartInput(BaseModel):
    """What `FailbackWorkflow` starts from. `state` is set when a long run continues as new."""

    spec: FailbackSpec
    started_by: str = "unknown"
    state: RunState | None = None


class PreflightReport(BaseModel):
    """What `PreflightWorkflow` answers: every check, and both machines as they were seen."""

    checks: list[CheckResult]
    cloud: CloudMachine | None = None
    on_premises: OnPremisesMachine | None = None

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.verdict is not Verdict.FAILED for check in self.checks)


class DoctorInput(BaseModel):
    """`live_runs` are the run ids of runs that still go on; what is theirs is not left over.
    `only_runs`, if given, bounds what may be removed to what was shown before: a run that began
    since is never touched."""

    spec: FailbackSpec
    live_runs: list[str] = []
    only_runs: list[str] | None = None
    remove: bool = False


class LeftoverInput(BaseModel):
    """What to remove, exactly."""

    spec: FailbackSpec
    leftovers: list[Leftover]


class DoctorReport(BaseModel):
    """What runs left behind, what of it was removed, and what could not be looked at or removed."""

    leftovers: list[Leftover]
    removed: list[Leftover] = []
    problems: list[str] = []


class RollBackResult(BaseModel):
    """What a rollback did. `verified`: what it restored was read again and is as it was."""

    disk_id: str
    bytes_restored: int
    verified: bool
