"""Preflight: every read-only check on both sides and on the mover, all reported at once (H1)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from models.calls import (
        CLOUD_INSPECT,
        CONTROL_QUEUE,
        MOVER_INSPECT,
        ON_PREMISES_INSPECT,
        PREFLIGHT_WORKFLOW,
        InspectInput,
        MoverChecks,
        PreflightReport,
        SpecInput,
        mover_queue,
    )
    from models.machine import CheckResult, CloudReport, OnPremisesReport, Verdict
from workflows.steps import HEARTBEAT_TIMEOUT, Result, describe

# Preflight answers a waiting person: a worker that is not there is a finding, not a reason to wait.
_PICK_UP = timedelta(seconds=20)
_TIMEOUT = timedelta(minutes=10)


async def run_preflight(spec_input: SpecInput) -> PreflightReport:
    """Run every check; what cannot even be asked becomes a failed check of its own."""
    checks: list[CheckResult] = []
    cloud = await _answer(
        _call(CLOUD_INSPECT, spec_input, CloudReport, CONTROL_QUEUE, "inspect the Azure machine"),
        "Azure answers",
        checks,
    )
    machine = cloud.machine if cloud else None
    inspect = InspectInput(spec=spec_input.spec, run_id=spec_input.run_id, cloud=machine)
    found: list[CheckResult] = []
    at_mover: list[CheckResult] = []
    on_premises, mover = await asyncio.gather(
        _answer(
            _call(
                ON_PREMISES_INSPECT,
                inspect,
                OnPremisesReport,
                CONTROL_QUEUE,
                "inspect the on-premises machine",
            ),
            "the hypervisor answers",
            found,
        ),
        _answer(
            _call(
                MOVER_INSPECT,
                inspect,
                MoverChecks,
                mover_queue(spec_input.spec.mover),
                "inspect the mover",
            ),
            f"mover {spec_input.spec.mover} answers",
            at_mover,
        ),
    )
    checks += cloud.checks if cloud else []
    checks += found + (on_premises.checks if on_premises else [])
    checks += at_mover + (mover.checks if mover else [])
    return PreflightReport(
        checks=checks, cloud=machine, on_premises=on_premises.machine if on_premises else None
    )


async def _call(
    activity: str, argument: SpecInput, result_type: type[Result], queue: str, summary: str
) -> Result:
    result: Result = await workflow.execute_activity(
        activity,
        argument,
        result_type=result_type,
        task_queue=queue,
        start_to_close_timeout=_TIMEOUT,
        schedule_to_start_timeout=_PICK_UP,
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        retry_policy=RetryPolicy(maximum_attempts=2),
        cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        summary=summary,
    )
    return result


async def _answer(call: Awaitable[Result], name: str, checks: list[CheckResult]) -> Result | None:
    try:
        return await call
    except ActivityError as error:
        if is_cancelled_exception(error):
            raise
        code, message = describe(error)
        nobody = code == "FB-TIMEOUT"
        checks.append(
            CheckResult(
                name=name,
                verdict=Verdict.FAILED,
                code="FB-CHK-NO-WORKER" if nobody else code,
                seen=message,
                advice="Start that worker, or see why it does not answer: `failback worker --help`."
                if nobody
                else "Mend what the message names, then check again.",
            )
        )
        return None


@workflow.defn(name=PREFLIGHT_WORKFLOW)
class PreflightWorkflow:
    """Preflight alone; touches nothing. Started by `failback check` and before `failback start`."""

    @workflow.run
    async def run(self, spec_input: SpecInput) -> PreflightReport:
        """Run every check once."""
        return await run_preflight(spec_input)
