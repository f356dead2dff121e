"""Every phase before the point of no return × {cancel, abort}: both sides end as they were."""

from __future__ import annotations

import pytest

from models.messages import Abort, RunFailover
from models.status import Phase
from tests.e2e.driver import Driver

ABORT = Abort(by="alice", reason="changed our mind", discard_onprem_changes=True)
# What keeps a run in a phase long enough to be caught there. `verifying` needs nothing: it is asked
# for every few milliseconds.
HOLDS: dict[Phase, tuple[str, str, float]] = {
    Phase.PREFLIGHT: ("Get-VMHost", "delay", 1.0),
    Phase.PREPARING: ("Add-VMHardDiskDrive", "delay", 1.0),
    Phase.SHUTTING_DOWN: ("virtualMachines.powerOff", "delay", 1.0),
    Phase.STARTING: ("Checkpoint-VM", "delay", 1.0),
    Phase.VALIDATING: ("Start-VM", "no_heartbeat", 0),
}
BOOTED = (Phase.VALIDATING, Phase.COMMIT_PENDING)
PHASES = [phase for phase in Phase if phase.position < Phase.COMMITTING.position]


async def reach(run: Driver, phase: Phase) -> None:
    """Bring a new run into a phase, and return while it is in there."""
    if phase in HOLDS:
        operation, action, seconds = HOLDS[phase]
        run.lab.add_rule(operation, action, **({"seconds": seconds} if seconds else {}))
    slow = {"bandwidth_limit": "4MiB/s"} if phase is Phase.SYNCING else {}
    await run.start(sync=slow)
    if phase.position > Phase.READY.position:
        await run.until_phase(Phase.READY)
        if phase is Phase.FINAL_SYNC:
            run.lab.add_rule("snapshots.createOrUpdate", "delay", seconds=0.5)
        await run.say("run_failover", RunFailover(by="alice"))
    await run.until_phase(phase)


@pytest.mark.parametrize("how", ["abort", "cancel"])
@pytest.mark.parametrize("phase", PHASES, ids=[phase.value for phase in PHASES])
async def test_both_sides_end_as_they_were(run: Driver, phase: Phase, how: str) -> None:
    await reach(run, phase)
    if how == "abort":
        reply = await run.say("abort", ABORT)
        assert reply.accepted
    else:
        await run.cancel()
        if phase in BOOTED:
            # Cancel does not say that what the booted machine wrote may be lost.
            await run.until_blocked("FB-DISCARD")
            await run.say("abort", ABORT)
    state = await run.ended()
    left = state.timeline[-3].phase
    # `verifying` may be over by the time the word arrives; any other phase was held.
    assert left is phase or phase is Phase.VERIFYING, [e.phase.value for e in state.timeline]
    assert state.phase is Phase.ROLLED_BACK
    await run.both_sides_are_as_they_were()
