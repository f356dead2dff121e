"""The downtime window: from the order to stop the Azure machine to a healthy machine on-premises.
All work in here is proportional to the last delta, none to the size of a disk."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from models.calls import (
        CLOUD_DEALLOCATE,
        CLOUD_POWER_OFF,
        CLOUD_REQUIRE_OFF,
        CLOUD_SHUT_DOWN,
        HEALTH_CHECK,
        MOVER_VERIFY_ROUND,
        ON_PREMISES_ADDRESSES,
        ON_PREMISES_CHECKPOINT,
        ON_PREMISES_DETACH,
        ON_PREMISES_NETWORK,
        ON_PREMISES_START,
        DetachInput,
        HealthInput,
        SpecInput,
        VerifyRoundInput,
    )
    from models.machine import AttachedDisk, Snapshot
    from models.spec import HealthCheck, HeartbeatCheck
    from models.status import DiskRound, EffectKind, EffectState, HealthResult, Phase
from workflows.rounds import Rounds
from workflows.run import Run
from workflows.steps import CONTROL_TIMEOUT, COPY_TIMEOUT, describe, settled, together

_LAST_LOOK_SECONDS = 30.0


class Cutover:
    """Stops the machine in Azure and brings it up on-premises."""

    def __init__(self, run: Run, rounds: Rounds) -> None:
        self.run = run
        self.rounds = rounds
        self._older_base: list[Snapshot] = []
        self._addressed = False

    async def shut_down(self) -> None:
        """Stop the Azure machine: ask the guest, deallocate, see that it is."""
        run = self.run
        run.enter(Phase.SHUTTING_DOWN)
        run.state.downtime.began_at = workflow.now()
        if run.cloud.power_state == "running":
            # One that was off before the run began stays so if the run is undone; but all of this
            # is asked of it too, because somebody may have started it since.
            run.effects.plan("azure-stopped", EffectKind.AZURE_STOPPED)
        await self._stop_guest()
        await run.control(CLOUD_DEALLOCATE, SpecInput(**run.key), "deallocate the Azure machine")
        run.effects.settle("azure-stopped", EffectState.DONE)

    async def _stop_guest(self) -> None:
        """The ladder: ask the guest; if it refuses, power off where the spec says so, else ask a
        person, whose `retry` asks the guest again."""
        run = self.run
        while True:
            try:
                await run.control(
                    CLOUD_SHUT_DOWN,
                    SpecInput(**run.key),
                    "shut the guest down",
                    leave=("FB-GUEST-SHUTDOWN",),
                    timeout=CONTROL_TIMEOUT
                    + timedelta(seconds=run.state.spec.shutdown.graceful_timeout),
                )
                return
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                code, message = describe(error)
                if run.state.spec.shutdown.force:
                    run.note("powers the Azure machine off", message)
                    await run.control(
                        CLOUD_POWER_OFF, SpecInput(**run.key), "power the Azure machine off"
                    )
                    return
                await run.steps.park(code, message, step="shut the guest down")

    async def final_sync(self) -> None:
        """The last snapshot pair, the last delta."""
        self.run.enter(Phase.FINAL_SYNC)
        self._older_base = list(self.run.state.base)
        await self.rounds.run_round(final=True)

    async def verify(self) -> None:
        """Read back from the devices what the last round wrote; earlier rounds were proven then."""
        run = self.run
        run.enter(Phase.VERIFYING)
        read_back = await together(*(self._read_back(disk) for disk in run.state.attached))
        roots = {result.disk_id: result.manifest_root for result in read_back}
        for disk in run.state.rounds[-1].disks:
            disk.verified, disk.manifest_root = True, roots[disk.disk_id]

    async def _read_back(self, disk: AttachedDisk) -> DiskRound:
        run = self.run
        return await run.steps.do(
            MOVER_VERIFY_ROUND,
            VerifyRoundInput(**run.key, disk=disk, round=run.state.round_number),
            DiskRound,
            queue=run.mover_queue,
            timeout=COPY_TIMEOUT,
            summary=f"read back what the last round wrote to {disk.disk_id}",
        )

    async def start(self) -> None:
        """Hand the disks back to the machine, set its network, checkpoint it, boot it."""
        run = self.run
        run.enter(Phase.STARTING)
        detach = DetachInput(**run.key, disks=run.state.attached)
        await self._change(
            "mover-detached",
            EffectKind.DISKS_DETACHED,
            ON_PREMISES_DETACH,
            detach,
            "detach the disks from the mover",
        )
        if run.state.spec.on_premises.adapters:
            run.state.recorded_network = run.machine.adapters
            await self._change(
                "network",
                EffectKind.NETWORK_CHANGED,
                ON_PREMISES_NETWORK,
                run.machine_input(),
                "connect the network adapters",
            )
        await self._change(
            "checkpoint",
            EffectKind.CHECKPOINT,
            ON_PREMISES_CHECKPOINT,
            run.machine_input(),
            "checkpoint before the first boot",
        )
        await run.control(
            CLOUD_REQUIRE_OFF, SpecInput(**run.key), "see that the Azure machine is still off"
        )
        await self._change(
            "machine-started",
            EffectKind.MACHINE_STARTED,
            ON_PREMISES_START,
            run.machine_input(),
            "start the on-premises machine",
        )

    async def _change(
        self, name: str, kind: EffectKind, activity: str, argument: SpecInput, summary: str
    ) -> None:
        """An effect written down, done, and marked as done."""
        self.run.effects.plan(name, kind)
        await self.run.control(activity, argument, summary)
        self.run.effects.settle(name, EffectState.DONE)

    async def validate(self) -> None:
        """Health checks until they hold or a person overrides them; then tidy up in Azure."""
        run = self.run
        run.enter(Phase.VALIDATING)
        while True:
            sick = await self._sick_unless_overridden()
            if not sick or await self._person_overrides(sick):
                break
        run.state.downtime.ended_at = workflow.now()
        await self.rounds.release(self._older_base)

    async def _sick_unless_overridden(self) -> list[HealthResult]:
        """The checks that do not hold; a person's override does not wait for slow ones."""
        checking = asyncio.create_task(self._check_all())
        try:
            await workflow.wait_condition(lambda: checking.done() or self.run.state.commit_override)
            return checking.result() if checking.done() else []
        finally:
            if not checking.done():
                await settled(checking)

    async def _check_all(self) -> list[HealthResult]:
        """Every check; answers those that do not hold. A static address is set as soon as the guest
        is heard of, because the checks after that may need it."""
        checks = self.run.state.spec.validation
        first = [check for check in checks if check.kind == "heartbeat"]
        results = await together(*(self._check_health(check) for check in first))
        if all(result.healthy for result in results):
            await self._put_addresses_back()
            rest = [check for check in checks if check.kind != "heartbeat"]
            results += await together(*(self._check_health(check) for check in rest))
        self.run.state.health = results
        return [result for result in results if not result.healthy]

    async def still_healthy(self) -> bool:
        """Before Azure's side goes: days may have passed. A person may override that too."""
        run = self.run
        if run.state.commit_override:
            return True
        result = await self._check_health(HeartbeatCheck(timeout=_LAST_LOOK_SECONDS))
        return result.healthy or await self._person_overrides([result])

    async def _check_health(self, check: HealthCheck) -> HealthResult:
        return await self.run.steps.do(
            HEALTH_CHECK,
            HealthInput(**self.run.key, machine=self.run.machine, check=check),
            HealthResult,
            timeout=timedelta(seconds=check.timeout) + timedelta(minutes=2),
            summary=f"health: {check.kind}",
        )

    async def _person_overrides(self, sick: list[HealthResult]) -> bool:
        """Health does not hold: a person says retry, abort, or commit with `override`."""
        run = self.run
        what = "; ".join(f"{h.check}: {h.detail}" for h in sick)
        parked = asyncio.create_task(
            run.steps.park(
                "FB-UNHEALTHY",
                f"The on-premises machine was started, but its checks do not hold: {what}.",
                step="health checks",
                choices=("retry", "abort", "commit with override"),
            )
        )
        try:
            await workflow.wait_condition(lambda: parked.done() or run.state.commit_override)
        finally:
            parked.cancel()
        run.state.blocked = None
        return run.state.commit_override

    async def _put_addresses_back(self) -> None:
        run = self.run
        static = any(adapter.static for adapter in run.state.spec.on_premises.adapters)
        if not static or self._addressed:
            return
        self._addressed = True
        problems = await run.steps.do(
            ON_PREMISES_ADDRESSES,
            run.machine_input(),
            list[str],
            summary="put the static addresses back",
        )
        for problem in problems:
            run.note("static address not put back", problem)
