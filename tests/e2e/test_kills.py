"""`kill -9` of every process at random instants of a run: it ends in the same bytes all the same.

A seed names the victim and the instant. More seeds: `FAILBACK_KILL_SEEDS=200 make test`. Each seed
goes forward to `commit_pending`, where the two sides are compared, and then all the way back.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable

import pytest

from lab.stack.supervisor import NAMES
from models.messages import Abort, RunFailover
from models.status import Phase, RunState
from tests.e2e.driver import Driver

SEEDS = range(int(os.environ.get("FAILBACK_KILL_SEEDS", "20")))
# About as long as such a run takes from start to `commit_pending`.
RUN_SECONDS = 6.0
# And from abort to `rolled_back`.
UNDO_SECONDS = 2.0
IN_FLIGHT_BYTES = 64 * 2**20


async def kill_at(run: Driver, victim: str, seconds: float) -> None:
    """Kill a process at an instant of the run and start it again, as systemd would."""
    await asyncio.sleep(seconds)
    await asyncio.to_thread(run.lab.kill, victim)
    await asyncio.to_thread(run.lab.start, victim)


def recopied(state: RunState) -> int:
    """Bytes that were copied twice."""
    return sum(disk.bytes_recopied for done in state.rounds for disk in done.disks)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_killed_process_changes_nothing_but_the_time(
    run: Driver, seed: int, record_property: Callable[[str, object], None]
) -> None:
    # Every process has its turn; the instant is the seed's.
    victim = NAMES[seed % len(NAMES)]
    instant = random.Random(seed).uniform(0, RUN_SECONDS)
    print(f"seed {seed}: kill -9 {victim} after {instant:.2f} s")
    await run.start(sync={"bandwidth_limit": "24MiB/s"})
    killer = asyncio.create_task(kill_at(run, victim, instant))
    try:
        await run.until(lambda s: s.phase is Phase.READY, timeout=120, patient=True)
        await say_until_heard(run)
        await run.until(lambda s: s.phase is Phase.COMMIT_PENDING, timeout=120, patient=True)
    finally:
        await killer
    state = await run.until(lambda s: s.phase is Phase.COMMIT_PENDING, timeout=60, patient=True)
    record_property(
        "figure",
        f"seed {seed}: kill -9 {victim} after {instant:.2f} s; {recopied(state)} bytes copied "
        f"again, {state.downtime.seconds:.1f} s down",
    )
    assert recopied(state) <= IN_FLIGHT_BYTES
    assert run.lab.differences() == {}
    verdict = run.lab.verify_records()
    assert (verdict.missing, verdict.corrupt) == ([], [])
    await run.say("abort", Abort(by="test", discard_onprem_changes=True))
    ended = await run.ended()
    assert ended.phase is Phase.ROLLED_BACK
    await run.both_sides_are_as_they_were()


@pytest.mark.parametrize("seed", SEEDS[: max(len(NAMES), len(SEEDS) // 4)])
async def test_a_process_killed_during_the_undo_does_not_stop_it(run: Driver, seed: int) -> None:
    victim = NAMES[seed % len(NAMES)]
    instant = random.Random(1000 + seed).uniform(0, UNDO_SECONDS)
    print(f"seed {seed}: kill -9 {victim} {instant:.2f} s after the abort")
    await run.start()
    await run.until_phase(Phase.READY)
    await run.say("run_failover", RunFailover(by="test"))
    await run.until_phase(Phase.COMMIT_PENDING)
    await run.say("abort", Abort(by="test", discard_onprem_changes=True))
    await kill_at(run, victim, instant)
    await run.until(lambda s: s.phase is Phase.ROLLED_BACK, timeout=120, patient=True)
    await run.both_sides_are_as_they_were()


async def say_until_heard(run: Driver) -> None:
    """A signal needs a server; while that one is dead it is sent again, with one request id."""
    order = RunFailover(by="test", request_id=os.urandom(8).hex())
    for _ in range(100):
        try:
            await run.signal("run_failover", order)
            return
        except Exception as error:
            print(f"not heard yet: {error}")
            await asyncio.sleep(0.2)
    raise AssertionError("the server never came back")
