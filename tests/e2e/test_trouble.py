"""What goes wrong on real sites: each is survived, or waits for a person and says why."""

from __future__ import annotations

import shutil

import pytest

from models.messages import Abort, Commit, Retry, RunFailover
from models.status import Phase, RunState
from tests.e2e.driver import Driver

ABORT = Abort(by="alice", discard_onprem_changes=True)
GO = RunFailover(by="alice")


async def over_and_back(run: Driver, timeout: float = 60) -> RunState:
    """Fail over, compare the two sides, undo everything; the state before the undo."""
    await run.until_phase(Phase.READY, timeout)
    await run.say("run_failover", GO)
    state = await run.until_phase(Phase.COMMIT_PENDING, timeout)
    assert run.lab.differences() == {}
    await undone(run)
    return state


async def undone(run: Driver) -> RunState:
    """Abort; both sides as they were."""
    await run.say("abort", ABORT)
    ended = await run.ended()
    assert ended.phase is Phase.ROLLED_BACK
    await run.both_sides_are_as_they_were()
    return ended


async def test_a_guest_that_refuses_to_shut_down_waits_for_a_person(run: Driver) -> None:
    run.lab.set_guest(refuse_shutdown=True)
    rule = run.lab.add_rule("virtualMachines.powerOff", "refuse_shutdown")
    await run.start(shutdown={"graceful_timeout": "3s"})
    await run.until_phase(Phase.READY)
    await run.say("run_failover", GO)
    await run.until_blocked("FB-GUEST-SHUTDOWN")
    # Azure is still asking the guest; nothing was forced.
    assert run.lab.guests()["azure"]["power"] in ("running", "stopping")
    run.lab.remove_rule(rule)
    run.lab.set_guest(refuse_shutdown=False)
    await run.say("retry", Retry(by="alice"))
    await run.until_phase(Phase.COMMIT_PENDING)
    assert run.lab.differences() == {}
    await undone(run)


async def test_a_guest_that_refuses_is_powered_off_where_the_spec_says_so(run: Driver) -> None:
    run.lab.add_rule("virtualMachines.powerOff", "refuse_shutdown", times=1)
    await run.start(shutdown={"graceful_timeout": "3s", "force": True})
    state = await over_and_back(run)
    assert "powers the Azure machine off" in [entry.what for entry in state.audit]


async def test_a_grant_revoked_in_mid_copy_is_renewed(run: Driver) -> None:
    rule = run.lab.add_rule("GET blob", "revoke_sas", times=2, skip=2)
    await run.start()
    await over_and_back(run)
    assert run.lab.hits(rule) >= 1


async def test_throttling_is_waited_out_as_long_as_azure_says(run: Driver) -> None:
    plane = run.lab.add_rule("snapshots.beginGetAccess", "throttle", retry_after=2, times=2)
    data = run.lab.add_rule("GET blob", "throttle", retry_after=1, times=3)
    await run.start()
    await over_and_back(run)
    assert run.lab.hits(plane) >= 2
    assert run.lab.hits(data) >= 3


async def test_dropped_connections_cost_time_and_nothing_else(run: Driver) -> None:
    for operation in ("snapshots.createOrUpdate", "GET blob", "virtualMachines.deallocate"):
        run.lab.add_rule(operation, "drop", times=2, when="after")
    await run.start()
    await over_and_back(run)


async def test_an_azure_machine_that_does_not_start_again_parks_the_undo(run: Driver) -> None:
    rule = run.lab.add_rule("virtualMachines.start", "lro_fail", code="AllocationFailed")
    await run.start()
    await run.until_phase(Phase.READY)
    await run.say("run_failover", GO)
    await run.until_phase(Phase.COMMIT_PENDING)
    await run.say("abort", ABORT)
    state = await run.until_blocked("FB-UNDO")
    assert state.blocked is not None
    assert "FB-AZURE-CAPACITY" in state.blocked.message
    # What could be undone was: the disks are back although Azure is not.
    assert run.digests() == run.before
    run.lab.remove_rule(rule)
    await run.say("retry", Retry(by="alice"))
    assert (await run.ended()).phase is Phase.ROLLED_BACK
    await run.both_sides_are_as_they_were()


async def test_a_wrong_audit_sample_falls_back_to_a_whole_comparison(run: Driver) -> None:
    await run.start(sync={"interval": "1h", "audit_samples": 65536})
    await run.until_phase(Phase.READY)
    offset = 40 * 2**20
    run.lab.add_rule("GET pagelist-diff", "lie_unchanged", offset=offset, length=65536)
    run.lab.write_azure("os", offset, b"changed behind our back " * 100)
    await run.say("run_failover", GO)
    state = await run.until_phase(Phase.COMMIT_PENDING)
    last = {disk.disk_id: disk for disk in state.rounds[-1].disks}
    assert (last["os"].method, last["os"].fallback) == ("compare", "FB-BASE-UNTRUSTED")
    assert last["lun0"].fallback == ""
    assert any("compares the whole disk" in entry.what for entry in state.audit)
    assert run.lab.differences() == {}
    await undone(run)


async def test_a_base_that_is_gone_falls_back_to_a_whole_comparison(run: Driver) -> None:
    run.lab.add_rule(
        "GET pagelist-diff", "fail", status=409, code="PreviousSnapshotNotFound", times=4
    )
    await run.start()
    state = await over_and_back(run)
    fallbacks = {d.fallback for done in state.rounds for d in done.disks if d.fallback}
    assert fallbacks == {"FB-BASE-UNAVAILABLE"}


async def test_cleared_ranges_become_zeros(run: Driver) -> None:
    await run.start(sync={"interval": "1h"})
    await run.until_phase(Phase.READY)
    offset, length = 44 * 2**20, 2**20
    run.lab.write_azure("os", offset, b"\xa5" * length)
    run.lab.clear_azure("os", offset, length // 2)
    state = await over_and_back(run)
    last = {disk.disk_id: disk for disk in state.rounds[-1].disks}
    assert last["os"].method == "changed-ranges"


async def test_a_machine_that_does_not_boot_waits_and_can_be_undone(run: Driver) -> None:
    run.lab.add_rule("Start-VM", "boot_failure", times=1)
    await run.start(validation=[{"kind": "heartbeat", "timeout": "2s"}])
    await run.until_phase(Phase.READY)
    await run.say("run_failover", GO)
    state = await run.until_blocked("FB-UNHEALTHY")
    assert "retry" in state.allowed_messages
    await undone(run)


async def test_commit_before_health_needs_an_override(run: Driver) -> None:
    run.lab.add_rule("Start-VM", "no_heartbeat")
    await run.start(validation=[{"kind": "heartbeat", "timeout": "2s"}], commit={"approvers": 2})
    await run.until_phase(Phase.READY)
    await run.say("run_failover", GO)
    await run.until_blocked("FB-UNHEALTHY")
    with pytest.raises(Exception, match="update failed") as raised:
        await run.say("commit", Commit(by="alice"))
    assert "override" in str(raised.value.__cause__)
    await run.say("commit", Commit(by="alice", override=True))
    # A second person is still missing.
    state = await run.until_phase(Phase.COMMIT_PENDING)
    assert state.approvals == ["alice"]
    await undone(run)


async def test_a_failed_check_inside_the_run_waits_until_it_is_mended(run: Driver) -> None:
    rule = run.lab.add_rule("Get-VMSwitch", "fail", message="The service is busy.")
    await run.start()
    await run.until_blocked("FB-PREFLIGHT")
    run.lab.remove_rule(rule)
    await run.say("retry", Retry(by="alice"))
    await run.until_phase(Phase.READY)
    await undone(run)


@pytest.mark.parametrize(
    "operation",
    ["Add-VMHardDiskDrive", "Remove-VMHardDiskDrive", "Checkpoint-VM", "Start-VM"],
)
async def test_a_failing_cmdlet_is_tried_again(run: Driver, operation: str) -> None:
    rule = run.lab.add_rule(operation, "fail", message="The RPC server is unavailable.", times=2)
    await run.start()
    await over_and_back(run)
    assert run.lab.hits(rule) >= 2


async def test_a_lost_journal_never_passes_for_an_empty_one(run: Driver) -> None:
    await run.start(sync={"interval": "1h"})
    await run.until_phase(Phase.READY)
    kept = run.lab.directory / "mover-state"
    elsewhere = run.lab.directory / "mover-state-elsewhere"
    run.lab.stop("mover")
    kept.rename(elsewhere)
    run.lab.start("mover")
    await run.say("abort", ABORT)
    state = await run.until_blocked("FB-UNDO")
    assert state.blocked is not None
    assert "FB-STATE-CORRUPT" in state.blocked.message
    # The disks stay at the mover: without its journal nothing may take them away.
    assert [e.kind for e in state.effects if e.problem] == ["blocks_written", "blocks_written"]
    run.lab.stop("mover")
    shutil.rmtree(kept, ignore_errors=True)
    elsewhere.rename(kept)
    run.lab.start("mover")
    await run.say("retry", Retry(by="alice"))
    assert (await run.ended()).phase is Phase.ROLLED_BACK
    await run.both_sides_are_as_they_were()
