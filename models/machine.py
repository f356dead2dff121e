"""What the platforms report about a machine: its shape in Azure, its shape on-premises, and the
preflight checks made on the way. All of it is safe to keep in a workflow's history: no secrets."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, Field


class Verdict(StrEnum):
    """The outcome of one preflight check."""

    PASSED = "passed"
    WARNING = "warning"
    FAILED = "failed"


class CheckResult(BaseModel):
    """One preflight check: a name, a verdict, what was seen, and what to do (H1)."""

    name: str
    verdict: Verdict
    code: str = Field(default="", description="Stable code of a failed check, `FB-CHK-…`.")
    seen: str
    advice: str = ""


class CloudDisk(BaseModel):
    """A managed disk of the Azure machine. `disk_id` is `os` or `lun<N>`; sizes are bytes."""

    disk_id: str
    name: str
    resource_id: str
    unique_id: str = Field(description="Changes when the disk is made anew under the same name.")
    size_bytes: int
    delete_option: str = "Detach"


class CloudAdapter(BaseModel):
    """A network interface of the Azure machine."""

    resource_id: str
    subnet: str = ""
    addresses: list[str] = []
    delete_option: str = "Detach"


class CloudMachine(BaseModel):
    """The Azure machine as preflight found it."""

    name: str
    resource_id: str
    location: str
    vm_id: str
    generation: int = Field(description="1 (BIOS) or 2 (UEFI).")
    os_type: str = ""
    size: str = ""
    processors: int | None = None
    memory_bytes: int | None = None
    power_state: str
    disks: list[CloudDisk]
    adapters: list[CloudAdapter] = []


class CloudReport(BaseModel):
    """What Azure's side of preflight found. `machine` is missing when it could not be read."""

    checks: list[CheckResult]
    machine: CloudMachine | None = None


class OnPremisesDisk(BaseModel):
    """A disk of the on-premises machine and its place. `created` says that this run makes it."""

    disk_id: str
    path: str
    size_bytes: int
    controller: str = Field(description="For example `SCSI 0:1` or `IDE 0:0`.")
    identity: str = Field(default="", description="Identifier the mover must see on the device.")
    created: bool = False


class AdapterSettings(BaseModel):
    """Network settings of one adapter, as recorded before the run changed them."""

    name: str
    switch: str | None = None
    vlan_id: int | None = None
    mac_address: str | None = None


class OnPremisesMachine(BaseModel):
    """The on-premises machine as preflight found it, or as it is going to be created."""

    name: str
    machine_id: str = Field(default="", description="The hypervisor's id; empty until created.")
    generation: int
    created: bool = Field(default=False, description="True when this run creates the machine.")
    processors: int | None = Field(default=None, description="Of a machine to be created.")
    memory_bytes: int | None = Field(default=None, description="Of a machine to be created.")
    os_type: str = Field(default="", description="`Linux` or `Windows`, of one to be created.")
    disks: list[OnPremisesDisk]
    adapters: list[AdapterSettings] = []


class OnPremisesReport(BaseModel):
    """What the hypervisor's side of preflight found."""

    checks: list[CheckResult]
    machine: OnPremisesMachine | None = None


class AttachedDisk(BaseModel):
    """A disk as the hypervisor attached it to the mover."""

    disk_id: str
    slot: str = Field(description="Name under the mover's device folder, for example `scsi-0-3`.")
    size_bytes: int
    identity: str = ""
    path: str = ""
    created: bool = False


class Snapshot(BaseModel):
    """An incremental snapshot of one Azure disk."""

    disk_id: str
    name: str
    resource_id: str
    disk_unique_id: str
    size_bytes: int


class MachineHealth(BaseModel):
    """What the hypervisor sees of a machine."""

    state: str = Field(description="`running`, `off`, or the hypervisor's own word in lower case.")
    heartbeat: bool = False
    addresses: list[str] = []
    detail: str = ""


class Leftover(BaseModel):
    """Something a run created that still stands. `run_id` is read from its tag."""

    kind: str = Field(
        description="`snapshot`, `disk-grant`, `attached-disk`, `machine`, `checkpoint`."
    )
    name: str
    place: str
    run_id: str
    machine: str = ""
