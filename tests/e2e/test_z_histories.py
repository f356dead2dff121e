"""After all the trouble: what Temporal kept of it replays, and holds no secret."""

from __future__ import annotations

from tests.e2e.driver import Driver
from tests.e2e.histories import all_histories, replay, secrets_in
from tests.e2e.test_whole_job import secrets_of


async def test_histories_of_all_runs_in_this_lab_replay_and_hold_no_secret(run: Driver) -> None:
    if not run.run_started:
        await run.start()
        await run.until(lambda s: s.round_number >= 1)
    histories = await all_histories(run.lab.temporal.address)
    assert await replay(histories) >= 1
    print(f"{len(histories)} histories replayed")
    secrets = secrets_of(run.lab)
    assert [h.workflow_id for h in histories if secrets_in(h, secrets)] == []
