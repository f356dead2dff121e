"""What runs left behind, found by tags and by the mover's own state; removed only when asked."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from pydantic import BaseModel

    from models.calls import (
        CLOUD_LEFTOVERS,
        CLOUD_REMOVE_LEFTOVERS,
        CONTROL_QUEUE,
        DOCTOR_WORKFLOW,
        MOVER_LEFTOVERS,
        ON_PREMISES_LEFTOVERS,
        ON_PREMISES_REMOVE_LEFTOVERS,
        DoctorInput,
        DoctorReport,
        LeftoverInput,
        mover_queue,
    )
    from models.machine import Leftover
from workflows.steps import HEARTBEAT_TIMEOUT, describe

_PICK_UP = timedelta(seconds=20)
_TIMEOUT = timedelta(minutes=30)
_FINDERS = (
    (CLOUD_LEFTOVERS, CLOUD_REMOVE_LEFTOVERS),
    (ON_PREMISES_LEFTOVERS, ON_PREMISES_REMOVE_LEFTOVERS),
)

Input = TypeVar("Input", bound=BaseModel)


@workflow.defn(name=DOCTOR_WORKFLOW)
class DoctorWorkflow:
    """Lists what no living run owns any more, and removes it when asked."""

    @workflow.run
    async def run(self, doctor: DoctorInput) -> DoctorReport:
        """Look everywhere; one place that does not answer does not stop the others."""
        report = DoctorReport(leftovers=[])
        for finder, remover in _FINDERS:
            found = await self._ask(finder, LeftoverInput(spec=doctor.spec, leftovers=[]), report)
            dead = [one for one in found if one.run_id not in doctor.live_runs]
            report.leftovers += dead
            shown = doctor.only_runs
            removable = [one for one in dead if shown is None or one.run_id in shown]
            if removable and doctor.remove:
                report.removed += await self._ask(
                    remover, LeftoverInput(spec=doctor.spec, leftovers=removable), report
                )
        journals = await self._ask(
            MOVER_LEFTOVERS,
            LeftoverInput(spec=doctor.spec, leftovers=[]),
            report,
            queue=mover_queue(doctor.spec.mover),
        )
        kept = [one for one in journals if one.run_id not in doctor.live_runs]
        report.leftovers += kept
        if kept and doctor.remove:
            report.problems.append(
                "Journals are never removed by themselves: they are the only copy of what a disk "
                "was before its run. Delete them on the mover once the machine is known to be good."
            )
        return report

    async def _ask(
        self, activity: str, argument: Input, report: DoctorReport, queue: str = CONTROL_QUEUE
    ) -> list[Leftover]:
        try:
            found: list[Leftover] = await workflow.execute_activity(
                activity,
                argument,
                result_type=list[Leftover],
                task_queue=queue,
                start_to_close_timeout=_TIMEOUT,
                schedule_to_start_timeout=_PICK_UP,
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                retry_policy=RetryPolicy(maximum_attempts=3),
            )
            return found
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            code, message = describe(error)
            report.problems.append(f"{activity}: {code} {message}")
            return []
