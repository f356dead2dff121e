"""Makes the histories kept in `tests/histories`: `python -m tests.e2e.record_histories FOLDER`.

Runs every path once in labs of its own and writes one file per path into FOLDER.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from lab.stack import temporal as lab_temporal
from lab.stack.lab import Lab
from lab.world import World
from models.messages import Abort, Commit, Retry, RunFailover
from models.status import Phase
from tests.e2e.driver import Driver, allow_many_snapshots

DISCARD = Abort(by="alice", discard_onprem_changes=True)
GO = RunFailover(by="alice")


async def record(folder: Path) -> None:
    """Every path, one after the other."""
    with tempfile.TemporaryDirectory(prefix="lab-", dir="/srv") as place:
        with Lab(Path(place) / "one", World.small()) as lab:
            lab.start()
            allow_many_snapshots(lab)
            run = await Driver.connect(lab)
            await undone(run, folder)
            await completed(run, folder, "completed")
            await keep(run, folder, "doctor", f"doctor-{lab.machine}")
            await keep(run, folder, "preflight", f"check-{lab.machine}")
        with Lab(Path(place) / "two", World.small(original=False)) as lab:
            lab.start()
            await completed(await Driver.connect(lab, original=False), folder, "created-machine")
        short = "limit.historyCount.suggestContinueAsNew=120"
        lab_temporal.SETTINGS = (*lab_temporal.SETTINGS, short)
        with Lab(Path(place) / "three", World.small()) as lab:
            lab.start()
            await continued(await Driver.connect(lab), folder)


async def undone(run: Driver, folder: Path) -> None:
    """The paths that end in `rolled_back`."""
    await run.start()
    await run.until(lambda s: s.round_number >= 2)
    await run.say("abort", Abort(by="alice"))
    await run.ended()
    await keep(run, folder, "aborted-in-ready")

    await run.start()
    await run.until_phase(Phase.READY)
    await run.say("run_failover", GO)
    await run.until_phase(Phase.COMMIT_PENDING)
    await run.cancel()
    await run.until_blocked("FB-DISCARD")
    await run.say("abort", DISCARD)
    await run.ended()
    await keep(run, folder, "cancelled-in-commit-pending")

    rule = run.lab.add_rule("virtualMachines.start", "lro_fail", code="AllocationFailed")
    await run.start()
    await run.until_phase(Phase.READY)
    await run.say("run_failover", GO)
    await run.until_phase(Phase.COMMIT_PENDING)
    await run.say("abort", DISCARD)
    await run.until_blocked("FB-UNDO")
    run.lab.remove_rule(rule)
    await run.say("retry", Retry(by="alice"))
    await run.ended()
    await keep(run, folder, "retried-when-blocked")


async def completed(run: Driver, folder: Path, name: str) -> None:
    """The whole job, as a person does it."""
    await asyncio.to_thread(run.lab.start_failback)
    run.follow_latest()
    await run.until(lambda s: s.round_number >= 2)
    await run.say("run_failover", GO)
    await run.until_phase(Phase.COMMIT_PENDING)
    await run.say("commit", Commit(by="alice"))
    await run.ended()
    await asyncio.to_thread(run.lab.doctor)
    await keep(run, folder, name)


async def continued(run: Driver, folder: Path) -> None:
    """Both halves of a run that continued as new; the file is the second."""
    await run.start()
    await run.until_continued_as_new()
    await run.say("abort", Abort(by="alice"))
    await run.ended()
    await keep(run, folder, "continued-as-new")


async def keep(run: Driver, folder: Path, name: str, workflow_id: str = "") -> None:
    """Write a history down, without the names of this host."""
    handle = run.client.get_workflow_handle(workflow_id or run.spec().workflow_id)
    document = json.loads((await handle.fetch_history()).to_json())
    text = json.dumps(_nameless(document), separators=(",", ":")).encode()
    (folder / f"{name}.json.gz").write_bytes(gzip.compress(text, mtime=0))


def _nameless(node: Any) -> Any:
    if isinstance(node, dict):
        hidden = {"identity": "worker", "stackTrace": ""}
        return {name: hidden.get(name, _nameless(value)) for name, value in node.items()}
    if isinstance(node, list):
        return [_nameless(value) for value in node]
    return node


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    asyncio.run(record(Path(sys.argv[1])))
