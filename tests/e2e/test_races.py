"""Two things at once: somebody starts the Azure machine, a worker dies while its run is aborted, a
check is slower than a heartbeat."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from lab.stack.lab import Lab
from lab.world import World
from models.messages import Abort, Commit, RunFailover
from models.status import Phase
from platforms.base import Call
from tests.e2e.driver import Driver, powershell
from worker.platforms import build_cloud
from worker.settings import load_settings

NewLab = Callable[[World], Lab]
ABORT = Abort(by="alice", discard_onprem_changes=True)
GO = RunFailover(by="alice")


def start_in_azure(run: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody starts the machine in Azure, by hand or by a schedule."""
    for name, value in run.lab.identity.items():
        monkeypatch.setenv(name, value)
    cloud = build_cloud(load_settings(run.lab.config_file).azure)
    cloud.start(run.spec().azure, Call())


async def test_an_azure_machine_started_during_the_cut_over_keeps_the_other_one_off(
    run: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.lab.add_rule("Checkpoint-VM", "delay", seconds=3)
    await run.start()
    await run.until_phase(Phase.READY)
    await run.say("run_failover", GO)
    await run.until_phase(Phase.STARTING)
    await asyncio.to_thread(start_in_azure, run, monkeypatch)
    await run.until_blocked("FB-AZURE-CONFLICT")
    assert run.lab.guests()["onprem"]["power"] == "Off"
    await run.say("abort", ABORT)
    assert (await run.ended()).phase is Phase.ROLLED_BACK
    await run.both_sides_are_as_they_were()


async def test_an_azure_machine_started_after_the_cut_over_is_not_deleted(
    new_lab: NewLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = new_lab(World.small())
    run = await Driver.connect(lab)
    await run.start()
    await run.until_phase(Phase.READY)
    await run.say("run_failover", GO)
    await run.until_phase(Phase.COMMIT_PENDING)
    await asyncio.to_thread(start_in_azure, run, monkeypatch)
    await run.say("commit", Commit(by="alice"))
    await run.until_blocked("FB-AZURE-CONFLICT")
    assert lab.guests()["azure"]["power"] == "running"


async def test_a_mover_that_dies_while_its_run_is_aborted_does_not_park_the_abort(
    run: Driver,
) -> None:
    await run.start(sync={"bandwidth_limit": "2MiB/s"})
    await run.until_phase(Phase.SYNCING)
    await asyncio.sleep(1.0)
    run.lab.kill("mover")
    await run.say("abort", ABORT)
    state = await run.until(lambda s: s.phase is Phase.ROLLING_BACK, timeout=60)
    assert state.blocked is None
    run.lab.start("mover")
    assert (await run.ended(120)).phase is Phase.ROLLED_BACK
    await run.both_sides_are_as_they_were()


async def test_a_check_slower_than_a_heartbeat_is_waited_for(run: Driver) -> None:
    scripts = run.lab.directory / "scripts"
    await asyncio.to_thread(scripts.mkdir)
    script = scripts / "slow"
    script.write_text('#!/bin/sh\nsleep 13\necho "$FAILBACK_MACHINE answers"\n')
    script.chmod(0o755)
    broken = scripts / "broken"
    broken.write_text("not a program")
    before = run.lab.config_file.read_text()
    run.lab.config_file.write_text(f'{before}\n[health]\nscript_dir = "{scripts}"\n')
    run.lab.restart("control")
    try:
        await run.start(
            validation=[
                {"kind": "heartbeat"},
                {"kind": "script", "script": "slow"},
                {"kind": "script", "script": "broken", "timeout": "2s"},
            ]
        )
        await run.until_phase(Phase.READY)
        await run.say("run_failover", GO)
        state = await run.until_blocked("FB-UNHEALTHY")
        by_check = {result.check: result for result in state.health}
        assert by_check["script slow"].healthy, by_check
        assert "web01 answers" in by_check["script slow"].detail
        assert "cannot be started" in by_check["script broken"].detail
        await run.say("abort", ABORT)
        await run.ended()
        await run.both_sides_are_as_they_were()
    finally:
        run.lab.config_file.write_text(before)
        run.lab.restart("control")


async def test_a_static_address_is_set_before_the_checks_that_need_it(new_lab: NewLab) -> None:
    lab = new_lab(World.small(static_address=True))
    run = await Driver.connect(lab)
    static = run.spec().on_premises.adapters[0].static
    assert static is not None
    await run.start(
        validation=[
            {"kind": "address", "address": static.addresses[0], "timeout": "20s"},
            {"kind": "heartbeat"},
        ]
    )
    await run.until_phase(Phase.READY)
    await run.say("run_failover", GO)
    state = await run.until_phase(Phase.COMMIT_PENDING)
    assert all(result.healthy for result in state.health)
    assert static.addresses[0] in powershell(
        lab, "(Get-VMNetworkAdapter -VMName web01).IPAddresses"
    )
