"""The life of one failback, phase by phase. What people say comes in through `messages`; rounds,
the cut-over and undo have rooms of their own; here is the order, and who wins when someone says
abort."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from models.calls import (
        CLOUD_DELETE,
        FAILBACK_WORKFLOW,
        MOVER_CONTROL,
        MOVER_FORGET,
        MOVER_PREPARE,
        ON_PREMISES_ATTACH,
        ON_PREMISES_CHECKPOINT_KEEP,
        ON_PREMISES_CREATE,
        CloudDeleteInput,
        ControlInput,
        SpecInput,
        StartInput,
    )
    from models.machine import AttachedDisk, OnPremisesMachine, Verdict
    from models.messages import RunFailover
    from models.spec import SyncMode
    from models.status import EffectKind, EffectState, Phase, RunState
from workflows.cutover import Cutover
from workflows.messages import Messages
from workflows.preflight import run_preflight
from workflows.rounds import Rounds, blocks_effect
from workflows.run import Run
from workflows.steps import COPY_TIMEOUT, settled, together
from workflows.undo import Undo

# Azure allows seven incremental snapshots of a disk in five minutes; the last two are kept for the
# final round and for one more try of it.
_SNAPSHOT_WINDOW = timedelta(minutes=5)
_ROUNDS_PER_WINDOW = 5


@workflow.defn(name=FAILBACK_WORKFLOW)
class FailbackWorkflow(Messages):
    """Brings one machine home. Its id is `failback-<machine>`; it never fails: it completes, is
    rolled back, or waits for a person."""

    @workflow.init
    def __init__(self, start: StartInput) -> None:
        self.state = start.state or RunState(
            spec=start.spec,
            run_id=_short_id(),
            started_by=start.started_by,
            bandwidth_limit=start.spec.sync.bandwidth_limit,
        )
        self._run = Run(self.state, ended_early=self._abort_wins)
        self.steps = self._run.steps
        self._rounds = Rounds(self._run)
        self._cutover = Cutover(self._run, self._rounds)

    @workflow.run
    async def run(self, start: StartInput) -> RunState:
        """Go forward through the phases, or back when someone says so."""
        forward = asyncio.create_task(self._forward())
        limits = asyncio.create_task(self._pass_limits_on())
        try:
            await workflow.wait_condition(lambda: forward.done() or self._abort_wins())
        except asyncio.CancelledError:
            self._take_cancel()
        if self._abort_wins():
            await settled(forward)
            await self._go_back()
        else:
            # Past the point of no return a cancel is written down and the run goes on.
            await self._unharmed(forward)
        await settled(limits)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self.state

    async def _forward(self) -> None:
        if self.state.phase is not Phase.READY:  # a long `ready` continues as new in there
            await self._preflight()
            await self._prepare()
        if self.state.spec.sync.mode is SyncMode.DELTA:
            await self._sync_until_failover()
        else:
            await self._wait_for_failover()
        await self._cutover.shut_down()
        await self._cutover.final_sync()
        await self._cutover.verify()
        await self._cutover.start()
        await self._cutover.validate()
        await self._wait_for_commit()
        await self._commit()
        # `reverse_replicating` has its place here: the hand-over to the replication workflow.
        self.state.result = "The machine runs on-premises; the failback is committed."
        self._run.enter(Phase.COMPLETED)

    # --- before the downtime ------------------------------------------------------------------

    async def _preflight(self) -> None:
        self._run.enter(Phase.PREFLIGHT)
        while True:
            report = await run_preflight(SpecInput(**self._run.key))
            if self._abort_wins():
                raise asyncio.CancelledError
            self.state.checks = report.checks
            self.state.cloud, self.state.on_premises = report.cloud, report.on_premises
            if report.passed and report.cloud and report.on_premises:
                return
            failed = [c for c in report.checks if c.verdict is Verdict.FAILED]
            seen = "; ".join(f"{c.name}: {c.seen} {c.advice}" for c in failed[:10])
            await self.steps.park("FB-PREFLIGHT", seen, step="preflight")

    async def _prepare(self) -> None:
        run = self._run
        run.enter(Phase.PREPARING)
        if run.machine.created:
            run.effects.plan("machine", EffectKind.MACHINE_CREATED)
            self.state.on_premises = await self.steps.do(
                ON_PREMISES_CREATE,
                run.machine_input(),
                OnPremisesMachine,
                timeout=COPY_TIMEOUT,
                summary=f"create {run.machine.name}",
            )
            run.effects.settle("machine", EffectState.DONE)
        run.effects.plan("mover-disks", EffectKind.DISKS_ATTACHED)
        self.state.attached = await self.steps.do(
            ON_PREMISES_ATTACH,
            run.machine_input(),
            list[AttachedDisk],
            summary=f"attach {len(run.machine.disks)} disks to {self.state.spec.mover}",
        )
        run.effects.settle("mover-disks", EffectState.DONE)
        await together(*(self._open(disk) for disk in self.state.attached))

    async def _open(self, disk: AttachedDisk) -> None:
        self._run.effects.plan(blocks_effect(disk), EffectKind.BLOCKS_WRITTEN, disk_id=disk.disk_id)
        await self.steps.do(
            MOVER_PREPARE,
            self._run.disk_input(disk),
            type(None),
            queue=self._run.mover_queue,
            summary=f"find {disk.disk_id} at the mover, open its journal",
        )
        self._run.effects.settle(blocks_effect(disk), EffectState.DONE)

    async def _sync_until_failover(self) -> None:
        if self.state.phase is not Phase.READY:
            self._run.enter(Phase.SYNCING)
            await self._rounds.run_round()
            self._run.enter(Phase.READY)
        while True:
            self._predict_downtime()
            if await self._failover_is_due():
                return
            if workflow.info().is_continue_as_new_suggested():
                await self._continue_as_new()
            await self._wait_for_next_round()
            if self.state.verify_asked:
                self.state.verify_asked = False
                self.state.waiting = (
                    "the whole of both sides to be read; then run_failover is heard"
                )
                self._run.show()
                await self._rounds.verify_whole()
                self.state.waiting = ""
            elif not await self._failover_is_due():
                await self._rounds.run_round()

    async def _wait_for_next_round(self) -> None:
        """Until the interval is over, the set time has come, or a person wants something."""
        state, now = self.state, workflow.now()
        if state.next_round_at is None or state.next_round_at <= now:
            due = now + timedelta(seconds=state.spec.sync.interval)
            state.next_round_at = max(due, self._snapshot_allowed_at())
        wake = state.next_round_at
        if state.spec.run_failover.at is not None:
            wake = min(wake, max(state.spec.run_failover.at, now))
        await self._wait_for_person("run_failover, or the next round", wake - now)
        await workflow.wait_condition(lambda: not state.paused)

    def _snapshot_allowed_at(self) -> datetime:
        """When Azure's limit leaves room for one more round *and* the final one after it."""
        recent = [r.started_at for r in self.state.rounds][-_ROUNDS_PER_WINDOW:]
        if len(recent) < _ROUNDS_PER_WINDOW:
            return workflow.now()
        return recent[0] + _SNAPSHOT_WINDOW

    async def _wait_for_failover(self) -> None:
        """`sync: full` downloads nothing before the machine is stopped."""
        while not await self._failover_is_due():
            at = self.state.spec.run_failover.at
            timeout = max(at - workflow.now(), timedelta(0)) if at else None
            await self._wait_for_person("run_failover, to stop the machine and download", timeout)

    async def _wait_for_person(self, what: str, timeout: timedelta | None) -> None:
        self.state.waiting = what
        self._run.show()
        try:
            await workflow.wait_condition(
                lambda: bool(self.state.failover or self.state.verify_asked),
                timeout=timeout,
                timeout_summary=what,
            )
        except TimeoutError:
            pass
        self.state.waiting = ""

    async def _failover_is_due(self) -> bool:
        """A person's word, the set time, or the downtime budget; never while paused."""
        state, trigger = self.state, self.state.spec.run_failover
        if state.failover is None:
            budget, predicted = trigger.when_downtime_below, state.downtime.predicted_seconds
            if trigger.at is not None and workflow.now() >= trigger.at:
                self._order_failover("the set time has come")
            elif budget is not None and predicted is not None and predicted <= budget:
                self._order_failover(f"the predicted {predicted:.0f} s fit in {budget:.0f} s")
        if state.failover is None:
            return False
        await workflow.wait_condition(lambda: not state.paused)
        return True

    def _order_failover(self, why: str) -> None:
        self.state.failover = RunFailover(by="failback", reason=why)
        self._run.note("run_failover", why)

    def _predict_downtime(self) -> None:
        """The last round's time again, plus what shutting down and booting take as a rule."""
        last = next((r for r in reversed(self.state.rounds) if r.ended_at), None)
        if last is None or last.ended_at is None:
            return
        seconds = (last.ended_at - last.started_at).total_seconds()
        if last.number == 1:
            # The first round compared whole disks; the last one will only carry a delta.
            seconds *= min(1.0, last.bytes_changed / max(last.bytes_read, 1))
        rule = self.state.spec.run_failover
        self.state.downtime.predicted_seconds = round(
            seconds + rule.expected_shutdown + rule.expected_boot, 1
        )

    async def _continue_as_new(self) -> None:
        await workflow.wait_condition(workflow.all_handlers_finished)
        workflow.continue_as_new(
            StartInput(spec=self.state.spec, started_by=self.state.started_by, state=self.state)
        )

    # --- after the downtime -------------------------------------------------------------------

    async def _wait_for_commit(self) -> None:
        self._run.enter(Phase.COMMIT_PENDING)
        self.state.waiting = "a person to look at the machine and say commit or abort"
        self._run.show()
        while True:
            await workflow.wait_condition(
                lambda: len(self.state.approvals) >= self.state.spec.commit.approvers
            )
            if await self._cutover.still_healthy():
                break
        self.state.waiting = ""

    async def _commit(self) -> None:
        """The point of no return: Azure's side goes, and with it what undo would need."""
        if self._abort_wins():
            await workflow.wait_condition(lambda: False)  # the undo that follows ends this
        run = self._run
        run.enter(Phase.COMMITTING)
        self.steps.choices = ("retry",)
        await run.control(ON_PREMISES_CHECKPOINT_KEEP, run.machine_input(), "merge the checkpoint")
        for disk in self.state.attached:
            await self.steps.do(
                MOVER_FORGET,
                run.disk_input(disk),
                type(None),
                queue=run.mover_queue,
                summary=f"remove the journal of {disk.disk_id}",
            )
        if self.state.spec.commit.delete_azure_vm:
            deleted = await self.steps.do(
                CLOUD_DELETE,
                CloudDeleteInput(**run.key, cloud=run.cloud),
                list[str],
                summary="delete the Azure machine and its disks",
            )
            run.note("deleted in Azure", ", ".join(deleted))
        last, self.state.base = self.state.base, []
        await self._rounds.release(last)
        run.effects.keep_all()

    # --- going back ---------------------------------------------------------------------------

    def _abort_wins(self) -> bool:
        return self.state.abort_requested and self.state.phase.position < Phase.COMMITTING.position

    def _take_cancel(self) -> None:
        """Temporal's own cancel means abort, as long as there is a way back."""
        reason = workflow.cancellation_reason() or ""
        if self.state.phase.position < Phase.COMMITTING.position:
            self.state.abort_requested = True
            self._run.note("cancelled", reason, by="Temporal")
        else:
            self._run.note("cancel came too late, goes on", reason, by="Temporal")

    async def _go_back(self) -> None:
        """Undo in a task of its own, which no cancel of the run can reach."""
        self._run.enter(Phase.ROLLING_BACK)
        self.state.blocked, self.state.waiting, self.state.paused = None, "", False
        await self._unharmed(asyncio.create_task(Undo(self._run).everything()))
        self.state.result = "Everything was undone; both sides are as they were."
        self._run.enter(Phase.ROLLED_BACK)

    async def _unharmed(self, task: asyncio.Task[None]) -> None:
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                self._take_cancel()
        task.result()

    async def _pass_limits_on(self) -> None:
        """Pause, resume and limits reach running copies through the mover."""
        while True:
            await workflow.wait_condition(lambda: self.state.limits_said > self.state.limits_passed)
            said = self.state.limits_said
            await self.steps.do(
                MOVER_CONTROL,
                ControlInput(
                    run_id=self.state.run_id,
                    paused=self.state.paused,
                    bandwidth_limit=self.state.bandwidth_limit,
                ),
                type(None),
                queue=self._run.mover_queue,
                summary="pause, resume or limit running copies",
            )
            self.state.limits_passed = said


def _short_id() -> str:
    """Ten hex digits for names in Azure: the end of the run id, because its beginning is the time;
    of the original run, so that a reset run finds the effects of the one before."""
    return workflow.info().original_execution_run_id.replace("-", "")[-10:]
