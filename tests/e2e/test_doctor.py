"""A run that somebody terminated is found by what it left, and only that is removed."""

from __future__ import annotations

from collections.abc import Callable

from lab.stack.lab import Lab
from lab.world import World
from models.messages import RunFailover
from models.status import Phase
from tests.e2e.driver import Driver, leftovers

NewLab = Callable[[World], Lab]


async def test_what_a_terminated_run_left_is_found_and_removed(new_lab: NewLab) -> None:
    lab = new_lab(World.small())
    run = await Driver.connect(lab)
    await run.start(sync={"interval": "1h"})
    state = await run.until_phase(Phase.READY)
    assert lab.doctor()["leftovers"] == []  # a living run's things are not left over
    await run.client.get_workflow_handle(run.spec().workflow_id).terminate("by mistake")

    found = lab.failback("doctor", str(lab.spec_file), check=False)
    assert found.returncode == 7
    assert "FB-LEFTOVERS" in found.stderr
    lab.failback("doctor", str(lab.spec_file), "--remove", "--yes", check=False)
    left = leftovers(lab)
    # The journals stay: they are the only copy of what the disks were.
    assert set(left) == {"journals"}, left
    assert all(state.run_id in name for name in left["journals"])
    assert lab.guests()["azure"]["power"] == "running"
    assert lab.guests()["onprem"]["power"] == "Off"

    await run.start()
    await run.until_phase(Phase.READY)
    await run.say("run_failover", RunFailover(by="alice"))
    await run.until_phase(Phase.COMMIT_PENDING)
    assert lab.differences() == {}
