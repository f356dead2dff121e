"""Where and how a machine comes home: original or alternate location, generation, download all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from lab.stack.lab import Lab
from lab.world import World
from models.messages import Abort, Commit, RunFailover
from models.status import Phase
from tests.e2e.driver import Driver, leftovers, powershell

NewLab = Callable[[World], Lab]


@pytest.mark.parametrize("generation", [1, 2])
async def test_a_machine_is_created_at_an_alternate_location(
    new_lab: NewLab, generation: int
) -> None:
    lab = new_lab(World.small(original=False, generation=generation))
    run = await Driver.connect(lab, original=False)
    await run.start()
    state = await run.until_phase(Phase.READY)
    assert {d.method for d in state.rounds[0].disks} == {"full"}
    # What the run created goes when it is undone, and nothing else.
    await run.say("abort", Abort(by="alice"))
    assert (await run.ended()).phase is Phase.ROLLED_BACK
    assert "web01" not in powershell(lab, "Get-VM | ForEach-Object { $_.Name }").split()
    assert leftovers(lab) == {}

    await run.start()
    await run.until_phase(Phase.READY)
    await run.say("run_failover", RunFailover(by="alice"))
    await run.until_phase(Phase.COMMIT_PENDING)
    assert lab.differences() == {}
    await run.say("commit", Commit(by="alice"))
    assert (await run.ended()).phase is Phase.COMPLETED
    verdict = lab.verify_records()
    assert (verdict.missing, verdict.corrupt) == ([], [])
    assert leftovers(lab) == {}


async def test_download_all_reads_nothing_before_the_machine_is_stopped(run: Driver) -> None:
    await run.start(sync={"mode": "full"})
    state = await run.until(lambda s: bool(s.waiting))
    assert state.rounds == []
    await run.say("run_failover", RunFailover(by="alice"))
    state = await run.until_phase(Phase.COMMIT_PENDING)
    assert {d.method for d in state.rounds[0].disks} == {"full"}
    assert run.lab.differences() == {}
    await run.say("abort", Abort(by="alice", discard_onprem_changes=True))
    await run.ended()
    await run.both_sides_are_as_they_were()


async def test_failover_begins_by_itself_at_the_set_time(run: Driver) -> None:
    at = datetime.now(UTC) + timedelta(seconds=4)
    await run.start(run_failover={"at": at.isoformat()}, sync={"interval": "1h"})
    state = await run.until_phase(Phase.COMMIT_PENDING)
    assert state.downtime.began_at is not None
    assert state.downtime.began_at >= at
    assert "the set time has come" in [entry.reason for entry in state.audit]
    await run.say("abort", Abort(by="alice", discard_onprem_changes=True))
    await run.ended()
    await run.both_sides_are_as_they_were()


async def test_failover_begins_by_itself_when_the_downtime_fits(run: Driver) -> None:
    await run.start(
        run_failover={
            "when_downtime_below": "30s",
            "expected_shutdown": "2s",
            "expected_boot": "1s",
        }
    )
    state = await run.until_phase(Phase.COMMIT_PENDING)
    assert state.downtime.predicted_seconds is not None
    assert state.downtime.predicted_seconds <= 30
    await run.say("abort", Abort(by="alice", discard_onprem_changes=True))
    await run.ended()
    await run.both_sides_are_as_they_were()


async def test_two_people_have_to_say_commit_where_the_spec_wants_it(new_lab: NewLab) -> None:
    lab = new_lab(World.small())
    run = await Driver.connect(lab)
    await run.start(commit={"approvers": 2, "delete_azure_vm": False})
    await run.until_phase(Phase.READY)
    await run.say("run_failover", RunFailover(by="alice"))
    await run.until_phase(Phase.COMMIT_PENDING)
    await run.say("commit", Commit(by="alice"))
    reply = await run.say("commit", Commit(by="alice", reason="again"))
    assert reply.message == "one more person has to say commit"
    await run.say("commit", Commit(by="bob"))
    ended = await run.ended()
    assert ended.approvals == ["alice", "bob"]
    # The Azure machine is kept where the spec says so: stopped, with its disks.
    assert lab.guests()["azure"]["power"] == "deallocated"
    assert leftovers(lab) == {}


async def test_azures_limit_of_snapshots_leaves_room_for_the_last_round(new_lab: NewLab) -> None:
    lab = new_lab(World.small())
    run = await Driver.connect(lab)
    await run.start(sync={"interval": "1s"})
    state = await run.until(
        lambda s: (
            s.next_round_at is not None
            and s.next_round_at > datetime.now(UTC) + timedelta(minutes=2)
        ),
        timeout=90,
    )
    assert state.round_number >= 5
    await run.say("run_failover", RunFailover(by="alice"))
    await run.until_phase(Phase.COMMIT_PENDING)
    assert lab.differences() == {}
