"""What the parts of one failback share: its state, its steps, its effects, and the few verbs that
all of them need. The parts themselves are `rounds`, `cutover` and `undo`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypedDict

from temporalio import workflow
from temporalio.common import SearchAttributeKey

with workflow.unsafe.imports_passed_through():
    from models.calls import DiskInput, MachineInput, SpecInput, mover_queue
    from models.machine import AttachedDisk, CloudMachine, OnPremisesMachine
    from models.search import MACHINE, PHASE, PLAN, PLATFORM
    from models.spec import FailbackSpec
    from models.status import AuditEntry, Phase, PhaseEntry, RunState
from workflows.details import markdown
from workflows.effects import Effects
from workflows.steps import CONTROL_TIMEOUT, Steps


class RunKey(TypedDict):
    """What every activity's input begins with."""

    spec: FailbackSpec
    run_id: str


class Run:
    """One failback in progress."""

    def __init__(self, state: RunState, ended_early: Callable[[], bool]) -> None:
        self.state = state
        self.steps = Steps(state, ended_early)
        self.effects = Effects(state)

    @property
    def key(self) -> RunKey:
        """Spec and run id, to be spread into an activity's input."""
        return {"spec": self.state.spec, "run_id": self.state.run_id}

    @property
    def cloud(self) -> CloudMachine:
        """The Azure machine; known once preflight has passed."""
        assert self.state.cloud is not None
        return self.state.cloud

    @property
    def machine(self) -> OnPremisesMachine:
        """The on-premises machine; known once preflight has passed."""
        assert self.state.on_premises is not None
        return self.state.on_premises

    @property
    def mover_queue(self) -> str:
        """Task queue of the mover that this run writes through."""
        return mover_queue(self.state.spec.mover)

    def machine_input(self) -> MachineInput:
        """The on-premises machine as an activity's input."""
        return MachineInput(**self.key, machine=self.machine)

    def disk_input(self, disk: AttachedDisk) -> DiskInput:
        """One disk at the mover as an activity's input."""
        return DiskInput(**self.key, disk=disk)

    async def control(
        self,
        activity: str,
        argument: SpecInput,
        summary: str,
        leave: tuple[str, ...] = (),
        timeout: timedelta = CONTROL_TIMEOUT,
    ) -> None:
        """A step of the control worker that answers nothing; parks on failure."""
        await self.steps.do(
            activity, argument, type(None), summary=summary, timeout=timeout, leave_to_caller=leave
        )

    def enter(self, phase: Phase) -> None:
        """Begin a phase: timeline, search attributes, details."""
        state = self.state
        state.phase = phase
        state.timeline.append(PhaseEntry(phase=phase, at=workflow.now()))
        values = [
            SearchAttributeKey.for_keyword(MACHINE).value_set(state.spec.machine),
            SearchAttributeKey.for_keyword(PHASE).value_set(phase.value),
            SearchAttributeKey.for_keyword(PLATFORM).value_set(state.spec.on_premises.platform),
        ]
        if state.spec.plan:
            values.append(SearchAttributeKey.for_keyword(PLAN).value_set(state.spec.plan))
        workflow.upsert_search_attributes(values)
        self.show()

    def show(self) -> None:
        """What the Web UI shows of the run."""
        workflow.set_current_details(markdown(self.state))

    def note(self, what: str, reason: str = "", by: str = "failback") -> None:
        """Something the run decided or saw by itself, for the audit trail."""
        self.state.audit.append(AuditEntry(at=workflow.now(), by=by, what=what, reason=reason))
