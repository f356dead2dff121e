"""The main job from start to commit, with everything a person may say on the way."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from temporalio.client import WorkflowUpdateFailedError

from lab.stack import temporal as lab_temporal
from lab.stack.lab import Lab
from lab.world import DiskPlan, World
from models.messages import (
    Abort,
    Commit,
    Pause,
    Resume,
    RunFailover,
    SetLimits,
    Verify,
)
from models.status import Phase
from tests.e2e.driver import Driver, another_mover, command, leftovers
from tests.e2e.histories import all_histories, replay, secrets_in, secrets_of

NewLab = Callable[[World], Lab]
GO = RunFailover(by="alice", request_id="go-1")
# What the design promises for two disks.
EVENTS_PER_ROUND = 40


async def test_a_machine_comes_home(new_lab: NewLab) -> None:
    lab = new_lab(World.small(static_address=True))
    run = await Driver.connect(lab)
    lab.failback("start", str(lab.spec_file), "--yes", "--by", "alice")
    await run.until(lambda s: s.round_number >= 2)
    before = await run.history_length()
    await run.until(lambda s: s.round_number >= 3 and bool(s.waiting))
    assert await run.history_length() - before <= EVENTS_PER_ROUND

    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await run.say("commit", Commit(by="alice"))
    assert str(refused.value.__cause__).startswith("FB-REJECTED: commit is not possible now")
    assert "Allowed now" in str(refused.value.__cause__)
    assert (await run.say("run_failover", GO)).repeated is False
    assert (await run.say("run_failover", GO)).repeated is True
    state = await run.until_phase(Phase.COMMIT_PENDING)
    assert [entry.what for entry in state.audit].count("run_failover") == 1
    assert state.rounds[0].disks[0].method == "compare"
    assert {d.method for r in state.rounds[1:] for d in r.disks} == {"changed-ranges"}
    assert all(disk.verified for r in state.rounds for disk in r.disks)
    assert state.downtime.seconds is not None
    assert lab.differences() == {}

    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await run.say("abort", Abort(by="bob"))
    assert "discard_onprem_changes" in str(refused.value.__cause__)
    lab.commit("--by", "bob")
    ended = await run.ended()
    assert ended.phase is Phase.COMPLETED
    verdict = lab.verify_records()
    assert (verdict.missing, verdict.corrupt) == ([], [])
    assert verdict.checked > 0
    assert lab.guests()["azure"] == {}
    assert lab.guests()["onprem"]["power"] == "Running"
    assert leftovers(lab) == {}
    assert lab.doctor()["leftovers"] == []
    page = lab.directory / "report.html"
    lab.failback("report", "web01", "--output", str(page))
    assert all(word in page.read_text() for word in ("bob", "changed-ranges", "completed"))

    histories = await all_histories(lab.temporal.address)
    assert await replay(histories) >= 2
    assert [secrets_in(history, secrets_of(lab)) for history in histories] == [[]] * len(histories)


async def test_a_signal_sent_while_nothing_runs_arrives(run: Driver) -> None:
    await run.start(sync={"interval": "1h"})
    await run.until_phase(Phase.READY)
    for name in ("control", "mover", "azure", "hyperv"):
        run.lab.kill(name)
    words = ["workflow", "signal", "-w", run.spec().workflow_id, "--name", "run_failover"]
    words += ["-i", '{"by":"chat","request_id":"r1"}', "--address", run.lab.temporal.address]
    temporal = Path(sys.executable).with_name("temporal")
    command(temporal, *words)
    run.lab.kill("temporal")
    run.lab.start()
    state = await run.until(lambda s: s.phase is Phase.COMMIT_PENDING, patient=True)
    assert [(e.by, e.what) for e in state.audit] == [("chat", "run_failover")]
    await run.say("abort", Abort(by="alice", discard_onprem_changes=True))
    await run.ended()
    await run.both_sides_are_as_they_were()


async def test_a_running_copy_obeys_limits_and_pause(run: Driver) -> None:
    await run.start(sync={"bandwidth_limit": "1MiB/s", "interval": "1h"})
    await run.until_phase(Phase.SYNCING)
    await run.say("pause", Pause(by="alice"))
    assert "resume" in (await run.status()).allowed_messages
    await run.say("set_limits", SetLimits(by="alice", bandwidth_limit=None))
    held = run.digests()
    await asyncio.sleep(1.0)
    assert (await run.status()).phase is Phase.SYNCING
    assert run.digests() == held
    await run.say("resume", Resume(by="alice"))
    state = await run.until_phase(Phase.READY, timeout=20)
    # At the first limit this round would have taken half a minute.
    assert sum(d.bytes_read for d in state.rounds[0].disks) > 20 * 2**20
    await run.say("abort", Abort(by="alice"))
    await run.ended()
    await run.both_sides_are_as_they_were()


async def test_verify_reads_both_sides_whole_and_finds_a_changed_byte(run: Driver) -> None:
    await run.start(sync={"interval": "1h"})
    await run.until_phase(Phase.READY)
    await run.say("verify", Verify(by="alice"))
    state = await run.until(lambda s: len(s.verifications) == 2)
    assert all(record.equal for record in state.verifications)
    device = next((run.lab.directory / "devices" / "mover01").glob("scsi-*")).resolve()
    with device.open("r+b") as disk:
        disk.seek(33 * 2**20 - 7)
        old = disk.read(1)
        disk.seek(33 * 2**20 - 7)
        disk.write(bytes([old[0] ^ 1]))
    await run.say("verify", Verify(by="alice"))
    state = await run.until(lambda s: len(s.verifications) == 4)
    assert sorted(record.equal for record in state.verifications[2:]) == [False, True]
    with device.open("r+b") as disk:
        disk.seek(33 * 2**20 - 7)
        disk.write(old)
    await run.say("abort", Abort(by="alice"))
    await run.ended()
    await run.both_sides_are_as_they_were()


async def test_a_long_ready_phase_continues_as_new(
    new_lab: NewLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = (*lab_temporal.SETTINGS, "limit.historyCount.suggestContinueAsNew=120")
    monkeypatch.setattr(lab_temporal, "SETTINGS", short)
    lab = new_lab(World.small())
    run = await Driver.connect(lab)
    await run.start()
    await run.until_continued_as_new()
    assert (await run.status()).phase is Phase.READY
    await run.say("run_failover", GO)
    state = await run.until_phase(Phase.COMMIT_PENDING)
    assert len({d.source_snapshot.split("-r")[0] for r in state.rounds for d in r.disks}) == 1
    assert lab.differences() == {}
    await run.say("abort", Abort(by="alice", discard_onprem_changes=True))
    assert (await run.ended()).phase is Phase.ROLLED_BACK
    await run.both_sides_are_as_they_were()
    await replay(await all_histories(lab.temporal.address))


async def test_the_second_disk_is_brought_home_although_the_first_did_not_change(
    new_lab: NewLab,
) -> None:
    mib = 2**20
    quiet = DiskPlan(32 * mib, records_bytes=0, scratch_bytes=0)
    busy = DiskPlan(32 * mib, records_bytes=8 * mib, scratch_bytes=0)
    lab = new_lab(World.small(disks=(quiet, busy), stale_blocks=0))
    run = await Driver.connect(lab)
    await run.start()
    await run.until(lambda s: s.round_number >= 2)
    await run.say("run_failover", GO)
    state = await run.until_phase(Phase.COMMIT_PENDING)
    changed = {d.disk_id: d.bytes_written + d.bytes_zeroed for d in state.rounds[-1].disks}
    assert changed["os"] == 0
    assert changed["lun0"] > 0
    assert lab.differences() == {}
    verdict = lab.verify_records()
    assert (verdict.missing, verdict.corrupt) == ([], [])


async def test_a_full_journal_disk_waits_for_room_and_loses_nothing(new_lab: NewLab) -> None:
    lab = new_lab(World.small())
    run = await Driver.connect(lab)
    lab.stop("mover")
    state_dir = lab.directory / "mover-state"
    state_dir.mkdir(exist_ok=True)
    command("mount", "-t", "tmpfs", "-o", "size=300m", "none", state_dir)
    try:
        lab.start("mover")
        filler = state_dir / "filler"
        await run.start()
        await run.until(lambda s: s.phase.position >= Phase.PREPARING.position)
        fill(filler)
        await run.until_blocked("FB-JOURNAL-FULL")
        filler.unlink()
        while (state := await run.until(lambda _s: True)).phase is Phase.SYNCING or state.blocked:
            if state.blocked:
                await run.say("retry", Resume(by="alice"))
            await asyncio.sleep(0.1)
        await run.say("abort", Abort(by="alice"))
        assert (await run.ended()).phase is Phase.ROLLED_BACK
        await run.both_sides_are_as_they_were()
    finally:
        lab.stop("mover")
        command("umount", state_dir)


def fill(path: Path) -> None:
    """Somebody else's data takes all the room there is."""
    with path.open("wb", buffering=0) as other_data, contextlib.suppress(OSError):
        while True:
            other_data.write(bytes(2**20))


async def test_two_attempts_at_one_disk_cannot_both_write(run: Driver) -> None:
    """A mover that hangs is taken for dead; another takes over; the first comes back to life."""
    await run.start(sync={"bandwidth_limit": "4MiB/s"})
    await run.until_phase(Phase.SYNCING)
    first = run.lab.pid("mover")
    assert first is not None
    await asyncio.sleep(1.0)
    command("kill", "-STOP", first)
    second = another_mover(run.lab)
    try:
        # The server gives the copies to the second mover once the heartbeats of the first fail.
        await asyncio.sleep(12)
        command("kill", "-CONT", first)
        await run.until(lambda s: s.phase is Phase.READY, timeout=90, patient=True)
    finally:
        command("kill", "-CONT", first)
        second.terminate()
        second.wait(40)
    await run.say("run_failover", GO)
    await run.until_phase(Phase.COMMIT_PENDING, timeout=90)
    assert run.lab.differences() == {}
    await run.say("abort", Abort(by="alice", discard_onprem_changes=True))
    await run.ended()
    await run.both_sides_are_as_they_were()
