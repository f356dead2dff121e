"""Rounds: each brings every disk of the machine to one new snapshot, and releases the one
before."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from models.calls import (
        CLOUD_RELEASE,
        CLOUD_SNAPSHOT,
        MOVER_COPY,
        MOVER_VERIFY_ALL,
        CopyInput,
        ReleaseInput,
        SnapshotInput,
        VerifyAllInput,
    )
    from models.machine import AttachedDisk, Snapshot
    from models.spec import SyncMode
    from models.status import (
        DiskRound,
        EffectKind,
        EffectState,
        Round,
        VerificationRecord,
    )
from workflows.run import Run
from workflows.steps import COPY_TIMEOUT, describe, together

# Rounds kept in the state, over all disks: a `ready` phase of weeks must not grow it beyond what
# one payload may hold (2 MiB; a disk's round is about 400 bytes).
_DISK_ROUNDS_KEPT = 1500
_ROUNDS_KEPT = 100
_FALLS_BACK = ("FB-BASE-UNTRUSTED", "FB-BASE-UNAVAILABLE")


class Rounds:
    """Runs rounds for one run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.state = run.state
        self.steps = run.steps
        self.effects = run.effects

    async def run_round(self, *, final: bool = False) -> Round:
        """One round. The final one is read back by the phase after it and keeps its snapshots."""
        state = self.state
        number = state.round_number + 1
        current = Round(number=number, started_at=workflow.now(), final=final)
        state.rounds.append(current)
        snapshots = await self._snapshot(number)
        current.disks = await together(
            *(self._copy(disk, snapshots, number, final=final) for disk in state.attached)
        )
        current.ended_at = workflow.now()
        older, state.base = state.base, snapshots
        state.round_number = number
        kept = max(10, min(_ROUNDS_KEPT, _DISK_ROUNDS_KEPT // len(state.attached)))
        while len(state.rounds) > kept:
            state.rounds.pop(0)
            state.rounds_dropped += 1
        if not final:
            await self.release(older)
        return current

    async def release(self, older: list[Snapshot]) -> None:
        """End every grant and delete the snapshots that are no base any more."""
        state = self.state
        await self.steps.do(
            CLOUD_RELEASE,
            ReleaseInput(
                **self.run.key,
                revoke=[*older, *state.base],
                delete=older,
            ),
            type(None),
            summary=f"end read grants, delete {len(older)} older snapshots",
        )
        for snapshot in older:
            self.effects.settle(snapshot.name, EffectState.UNDONE)

    async def verify_whole(self) -> None:
        """Read both sides of every disk whole; the outcome goes into the state."""
        state = self.state
        for disk in state.attached:
            snapshot = next(s for s in state.base if s.disk_id == disk.disk_id)
            record = await self.steps.do(
                MOVER_VERIFY_ALL,
                VerifyAllInput(
                    **self.run.key,
                    disk=disk,
                    round=state.round_number,
                    snapshot=snapshot,
                ),
                VerificationRecord,
                queue=self.run.mover_queue,
                timeout=COPY_TIMEOUT,
                summary=f"read {disk.disk_id} whole on both sides",
            )
            state.verifications = [*state.verifications, record][-20:]
        await self.release([])

    async def _snapshot(self, number: int) -> list[Snapshot]:
        state = self.state
        cloud = self.run.cloud
        names = {d.disk_id: f"fb-{state.run_id}-r{number}-{d.disk_id}" for d in cloud.disks}
        for disk in cloud.disks:
            self.effects.plan(
                names[disk.disk_id],
                EffectKind.SNAPSHOT,
                disk_id=disk.disk_id,
                snapshot=Snapshot(
                    disk_id=disk.disk_id,
                    name=names[disk.disk_id],
                    resource_id=state.spec.azure.snapshot_id(names[disk.disk_id]),
                    disk_unique_id=disk.unique_id,
                    size_bytes=disk.size_bytes,
                ),
            )
        snapshots = await self.steps.do(
            CLOUD_SNAPSHOT,
            SnapshotInput(**self.run.key, cloud=cloud, names=names),
            list[Snapshot],
            summary=f"round {number}: snapshot {len(names)} disks",
        )
        for name in names.values():
            self.effects.settle(name, EffectState.DONE)
        return snapshots

    async def _copy(
        self, disk: AttachedDisk, snapshots: list[Snapshot], number: int, *, final: bool
    ) -> DiskRound:
        snapshot = next(s for s in snapshots if s.disk_id == disk.disk_id)
        base = next((s for s in self.state.base if s.disk_id == disk.disk_id), None)
        argument = CopyInput(
            **self.run.key,
            disk=disk,
            round=number,
            snapshot=snapshot,
            base=base,
            method=self._method(disk, base),
            verify=not final,
            paused=self.state.paused,
            bandwidth_limit=self.state.bandwidth_limit,
        )
        try:
            result = await self._apply(argument, leave_to_caller=_FALLS_BACK)
        except ActivityError as error:
            code, message = describe(error)
            if code not in _FALLS_BACK:
                raise
            self.run.note(f"round {number}, {disk.disk_id}: compares the whole disk", message)
            result = await self._apply(
                argument.model_copy(update={"method": "compare", "base": None})
            )
            result.fallback = code
        return result

    async def _apply(self, argument: CopyInput, leave_to_caller: tuple[str, ...] = ()) -> DiskRound:
        return await self.steps.do(
            MOVER_COPY,
            argument,
            DiskRound,
            queue=self.run.mover_queue,
            timeout=COPY_TIMEOUT,
            summary=f"round {argument.round}: {argument.disk.disk_id} by {argument.method}",
            activity_id=f"copy-{argument.disk.disk_id}-r{argument.round}",
            leave_to_caller=leave_to_caller,
        )

    def _method(self, disk: AttachedDisk, base: Snapshot | None) -> str:
        if base is not None:
            return "changed-ranges"
        if disk.created or self.state.spec.sync.mode is SyncMode.FULL:
            return "full"
        return "compare"


def blocks_effect(disk: AttachedDisk) -> str:
    """Name of the effect that this run's journal and writes on a disk are; planned before the disk
    is opened, because opening makes the journal, and done from then on."""
    return f"blocks-{disk.disk_id}"
