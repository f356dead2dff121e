"""Undo: everything a run did is taken back, newest first, until both sides are as they were.

One effect that cannot be undone does not stop the next, but it holds back what must not happen
before it: disks are not taken from the mover while their journal is not rolled back, and Azure's
machine is not started while the on-premises one runs."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from models.calls import (
        CLOUD_RELEASE,
        CLOUD_START,
        MOVER_FORGET,
        MOVER_ROLL_BACK,
        ON_PREMISES_ATTACH,
        ON_PREMISES_CHECKPOINT_BACK,
        ON_PREMISES_DELETE,
        ON_PREMISES_DETACH,
        ON_PREMISES_NETWORK_BACK,
        ON_PREMISES_TURN_OFF,
        DetachInput,
        NetworkBackInput,
        ReleaseInput,
        RollBackInput,
        RollBackResult,
        SpecInput,
    )
    from models.machine import AttachedDisk
    from models.status import Blocked, Effect, EffectKind, EffectState
from workflows.run import Run
from workflows.steps import COPY_TIMEOUT, describe

# What has to be undone before an effect of this kind may be.
_AFTER: dict[EffectKind, tuple[EffectKind, ...]] = {
    EffectKind.CHECKPOINT: (EffectKind.MACHINE_STARTED,),
    EffectKind.NETWORK_CHANGED: (EffectKind.MACHINE_STARTED,),
    EffectKind.AZURE_STOPPED: (EffectKind.MACHINE_STARTED,),
    EffectKind.DISKS_DETACHED: (EffectKind.MACHINE_STARTED, EffectKind.CHECKPOINT),
    EffectKind.BLOCKS_WRITTEN: (EffectKind.DISKS_DETACHED,),
    EffectKind.DISKS_ATTACHED: (EffectKind.BLOCKS_WRITTEN, EffectKind.DISKS_DETACHED),
    EffectKind.MACHINE_CREATED: (EffectKind.DISKS_ATTACHED, EffectKind.NETWORK_CHANGED),
}

# One step that only ever fails must not keep the others waiting: after these tries (five minutes)
# the next one has its turn. All that resisted is tried again on a person's word, or by itself.
_TRIES = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
    maximum_attempts=15,
)
_FIRST_WAIT = timedelta(minutes=10)
_LONGEST_WAIT = timedelta(hours=6)


class Undo:
    """Takes a run's effects back."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.state = run.state
        self.steps = run.steps

    async def everything(self) -> None:
        """Undo until nothing is left; what resists parks the run with the reason."""
        await self._ask_before_discarding()
        self.steps.retry_policy = _TRIES
        again = _FIRST_WAIT
        while True:
            for effect in reversed(self.state.effects):
                if _stands(effect) and not self._held_back(effect):
                    await self._take_back(effect)
            left = [effect for effect in self.state.effects if _stands(effect)]
            if not left:
                return
            problems = "; ".join(f"{e.name}: {e.problem}" for e in left if e.problem)
            await self.steps.park(
                "FB-UNDO", problems, step="undo", choices=("retry",), at_most=again
            )
            again = min(again * 2, _LONGEST_WAIT)

    async def _ask_before_discarding(self) -> None:
        """Temporal's own cancel says nothing about what the booted machine wrote: ask."""
        state = self.state
        if not state.asks_to_discard:
            return
        state.blocked = Blocked(
            code="FB-DISCARD",
            message="The on-premises machine has booted; undoing loses what it wrote since.",
            step="undo",
            since=workflow.now(),
            choices=["abort with discard_onprem_changes"],
        )
        await workflow.wait_condition(lambda: state.discard_onprem_changes)
        state.blocked = None

    def _stands_any(self, kind: EffectKind) -> bool:
        return any(e.kind is kind and _stands(e) for e in self.state.effects)

    def _held_back(self, effect: Effect) -> bool:
        return any(self._stands_any(kind) for kind in _AFTER.get(effect.kind, ()))

    async def _take_back(self, effect: Effect) -> None:
        try:
            await self._undo(effect)
        except ActivityError as error:
            code, message = describe(error)
            effect.problem = f"{code} {message}"
            return
        effect.state = EffectState.UNDONE
        effect.problem = ""

    async def _undo(self, effect: Effect) -> None:
        kind = effect.kind
        if kind is EffectKind.SNAPSHOT:
            await self._release(effect)
        elif kind is EffectKind.BLOCKS_WRITTEN:
            await self._roll_back(effect)
        elif kind is EffectKind.AZURE_STOPPED:
            await self._call(
                CLOUD_START, SpecInput(**self.run.key), "start the Azure machine again"
            )
        elif kind is EffectKind.DISKS_ATTACHED:
            disks = DetachInput(**self.run.key, disks=self._attachable())
            await self._call(ON_PREMISES_DETACH, disks, "detach the disks from the mover")
        elif kind is EffectKind.DISKS_DETACHED:
            self.state.attached = await self.steps.call(
                ON_PREMISES_ATTACH,
                self.run.machine_input(),
                list[AttachedDisk],
                summary="attach the disks to the mover again",
            )
        elif kind is EffectKind.MACHINE_STARTED:
            await self._call(
                ON_PREMISES_TURN_OFF, self.run.machine_input(), "turn the on-premises machine off"
            )
        elif kind is EffectKind.CHECKPOINT:
            await self._call(
                ON_PREMISES_CHECKPOINT_BACK,
                self.run.machine_input(),
                "throw away what the on-premises machine wrote",
            )
        elif kind is EffectKind.NETWORK_CHANGED:
            await self._network_back()
        elif kind is EffectKind.MACHINE_CREATED:
            await self._call(
                ON_PREMISES_DELETE, self.run.machine_input(), "delete the created machine"
            )

    async def _release(self, effect: Effect) -> None:
        if effect.snapshot is not None:
            release = ReleaseInput(
                **self.run.key, revoke=[effect.snapshot], delete=[effect.snapshot]
            )
            await self._call(CLOUD_RELEASE, release, f"delete snapshot {effect.name}")

    async def _roll_back(self, effect: Effect) -> None:
        """A disk that this run created is deleted with its machine: only its state goes."""
        disk = next(d for d in self.state.attached if d.disk_id == effect.disk_id)
        queue = self.run.mover_queue
        if disk.created:
            await self.steps.call(
                MOVER_FORGET,
                self.run.disk_input(disk),
                type(None),
                queue=queue,
                summary=f"forget {disk.disk_id}",
            )
            return
        await self.steps.call(
            MOVER_ROLL_BACK,
            RollBackInput(
                **self.run.key,
                disk=disk,
                journal_expected=effect.state is EffectState.DONE,
            ),
            RollBackResult,
            queue=queue,
            timeout=COPY_TIMEOUT,
            summary=f"roll {disk.disk_id} back to what it was",
            activity_id=f"roll-back-{disk.disk_id}",
        )

    async def _network_back(self) -> None:
        back = NetworkBackInput(
            **self.run.key,
            machine=self.run.machine,
            recorded=self.state.recorded_network,
        )
        await self._call(ON_PREMISES_NETWORK_BACK, back, "put the network settings back")

    def _attachable(self) -> list[AttachedDisk]:
        """What may be attached: as attached, or as planned when the answer never came."""
        if self.state.attached:
            return self.state.attached
        return [
            AttachedDisk(
                disk_id=disk.disk_id,
                slot="",
                size_bytes=disk.size_bytes,
                identity=disk.identity,
                path=disk.path,
                created=disk.created,
            )
            for disk in self.run.machine.disks
        ]

    async def _call(self, activity: str, argument: SpecInput, summary: str) -> None:
        await self.steps.call(activity, argument, type(None), summary=summary)


def _stands(effect: Effect) -> bool:
    return effect.state in (EffectState.PLANNED, EffectState.DONE)
