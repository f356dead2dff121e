"""A worker with the product's real workflows and activities that answer from a script, so that the
command line can be tried without platforms. The Azure machine's name says what shall happen."""

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from models import calls, machine, status
from workflows.doctor import DoctorWorkflow
from workflows.failback import FailbackWorkflow
from workflows.preflight import PreflightWorkflow

GIB = 2**30


@activity.defn(name=calls.CLOUD_INSPECT)
async def inspect_cloud(asked: calls.SpecInput) -> machine.CloudReport:
    """Azure's side of preflight; a machine named `gone` is not found."""
    name = asked.spec.azure.vm
    if name == "gone":
        failed = machine.CheckResult(
            name="Azure machine exists",
            verdict=machine.Verdict.FAILED,
            code="FB-CHK-VM",
            seen="No machine [gone] in rg-1.",
            advice="Correct azure.vm.",
        )
        return machine.CloudReport(checks=[failed])
    if name == "silent":
        await asyncio.sleep(3600)
    passed = machine.CheckResult(
        name="Azure machine exists", verdict=machine.Verdict.PASSED, seen=f"{name} runs."
    )
    disk = machine.CloudDisk(
        disk_id="os", name="disk-os", resource_id="/disks/disk-os", unique_id="u1", size_bytes=GIB
    )
    found = machine.CloudMachine(
        name=name,
        resource_id=f"/vms/{name}",
        location="westeurope",
        vm_id="v1",
        generation=2,
        power_state="running",
        disks=[disk],
    )
    return machine.CloudReport(checks=[passed], machine=found)


@activity.defn(name=calls.ON_PREMISES_INSPECT)
async def inspect_home(asked: calls.InspectInput) -> machine.OnPremisesReport:
    """The hypervisor's side of preflight."""
    disk = machine.OnPremisesDisk(
        disk_id="os", path="C:\\disks\\os.vhdx", size_bytes=GIB, controller="SCSI 0:0"
    )
    found = machine.OnPremisesMachine(
        name=asked.spec.on_premises_name, machine_id="m1", generation=2, disks=[disk]
    )
    return machine.OnPremisesReport(checks=[], machine=found)


@activity.defn(name=calls.MOVER_INSPECT)
async def inspect_mover(asked: calls.InspectInput) -> calls.MoverChecks:
    """The mover's side of preflight."""
    warning = machine.CheckResult(
        name="Room for the journal", verdict=machine.Verdict.WARNING, seen="Only just."
    )
    return calls.MoverChecks(checks=[warning])


@activity.defn(name=calls.CLOUD_SNAPSHOT)
async def snapshot(asked: calls.SnapshotInput) -> list[machine.Snapshot]:
    """One snapshot per disk."""
    return [
        machine.Snapshot(
            disk_id=disk.disk_id,
            name=asked.names[disk.disk_id],
            resource_id=f"/snapshots/{asked.names[disk.disk_id]}",
            disk_unique_id=disk.unique_id,
            size_bytes=disk.size_bytes,
        )
        for disk in asked.cloud.disks
    ]


@activity.defn(name=calls.ON_PREMISES_ATTACH)
async def attach(asked: calls.MachineInput) -> list[machine.AttachedDisk]:
    """The disks at the mover."""
    return [
        machine.AttachedDisk(
            disk_id=disk.disk_id, slot="scsi-0-1", size_bytes=disk.size_bytes, path=disk.path
        )
        for disk in asked.machine.disks
    ]


@activity.defn(name=calls.MOVER_COPY)
async def copy(asked: calls.CopyInput) -> status.DiskRound:
    """A round with heartbeats; the first one takes a second, to be watched."""
    for step in range(5 if asked.base is None else 1):
        activity.heartbeat(
            status.DiskProgress(
                disk_id=asked.disk.disk_id,
                round=asked.round,
                stage="copying",
                method=asked.method,
                bytes_total=GIB,
                bytes_done=GIB * step // 10,
                rate=100 * 2**20,
            ).model_dump()
        )
        await asyncio.sleep(0.2)
    return status.DiskRound(
        disk_id=asked.disk.disk_id,
        round=asked.round,
        method=asked.method,
        bytes_read=GIB,
        bytes_written=GIB // 10,
        seconds=2.0,
        manifest_root="ab" * 32,
    )


@activity.defn(name=calls.MOVER_VERIFY_ROUND)
async def verify_round(asked: calls.VerifyRoundInput) -> status.DiskRound:
    """The round read back."""
    return status.DiskRound(
        disk_id=asked.disk.disk_id, round=asked.round, method="read", manifest_root="cd" * 32
    )


@activity.defn(name=calls.MOVER_VERIFY_ALL)
async def verify_all(asked: calls.VerifyAllInput) -> status.VerificationRecord:
    """Both sides read whole; they differ for an Azure machine named `differs`."""
    return status.VerificationRecord(
        at=datetime.now(UTC),
        disk_id=asked.disk.disk_id,
        equal=asked.spec.azure.vm != "differs",
        bytes_read=2 * GIB,
        manifest_root="ef" * 32,
    )


@activity.defn(name=calls.MOVER_ROLL_BACK)
async def roll_back(asked: calls.DiskInput) -> calls.RollBackResult:
    """The disk as it was."""
    return calls.RollBackResult(disk_id=asked.disk.disk_id, bytes_restored=GIB, verified=True)


@activity.defn(name=calls.HEALTH_CHECK)
async def health(asked: calls.HealthInput) -> status.HealthResult:
    """Healthy at once, but for an Azure machine named `sick`."""
    return status.HealthResult(
        check=asked.check.kind, healthy=asked.spec.azure.vm != "sick", detail="<script>"
    )


@activity.defn(name=calls.CLOUD_DELETE)
async def delete(asked: calls.CloudDeleteInput) -> list[str]:
    """What commit deletes."""
    return [asked.cloud.name, *(disk.name for disk in asked.cloud.disks)]


@activity.defn(name=calls.CLOUD_LEFTOVERS)
async def leftovers(asked: calls.LeftoverInput) -> list[machine.Leftover]:
    """One snapshot of a dead run, for an Azure machine named `littered`; until it is removed."""
    if asked.spec.azure.vm != "littered" or asked.spec.machine in REMOVED:
        return []
    return [machine.Leftover(kind="snapshot", name="fb-dead-r1-os", place="rg-1", run_id="dead")]


REMOVED: set[str] = set()


@activity.defn(name=calls.CLOUD_REMOVE_LEFTOVERS)
async def remove_leftovers(asked: calls.LeftoverInput) -> list[machine.Leftover]:
    """All that is named goes."""
    REMOVED.add(asked.spec.machine)
    return asked.leftovers


@activity.defn(name=calls.ON_PREMISES_LEFTOVERS)
async def leftovers_at_home(asked: calls.LeftoverInput) -> list[machine.Leftover]:
    """None."""
    return []


@activity.defn(name=calls.MOVER_LEFTOVERS)
async def leftovers_at_mover(asked: calls.LeftoverInput) -> list[machine.Leftover]:
    """None."""
    return []


@activity.defn(dynamic=True)
async def anything_else(args: Sequence[RawValue]) -> None:
    """Every activity that answers nothing."""


SCRIPT: list[Callable[..., Any]] = [
    inspect_cloud,
    inspect_home,
    inspect_mover,
    snapshot,
    attach,
    copy,
    verify_round,
    verify_all,
    roll_back,
    health,
    delete,
    leftovers,
    remove_leftovers,
    leftovers_at_home,
    leftovers_at_mover,
    anything_else,
]


async def serve(address: str) -> None:
    """Serve both queues until killed."""
    client = await Client.connect(address, data_converter=pydantic_data_converter)
    runner = SandboxedWorkflowRunner(
        restrictions=SandboxRestrictions.default.with_passthrough_modules("models", "pydantic")
    )
    control = Worker(
        client,
        task_queue=calls.CONTROL_QUEUE,
        workflows=[FailbackWorkflow, PreflightWorkflow, DoctorWorkflow],
        activities=SCRIPT,
        workflow_runner=runner,
    )
    mover = Worker(client, task_queue=calls.mover_queue("mover1"), activities=SCRIPT)
    async with control, mover:
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
    os._exit(0)
