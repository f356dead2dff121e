"""`failback start` refuses before anything is touched: one clear message each, status not 0."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.stack.lab import Lab
from models.messages import Abort
from models.status import Phase
from tests.e2e.driver import Driver, leftovers, powershell
from tests.waiting import wait_until


def spec_file(lab: Lab, directory: Path, **changes: Any) -> Path:
    """The lab's spec with some sections changed."""
    document = yaml.safe_load(lab.spec_file.read_text())
    for name, value in changes.items():
        if isinstance(value, dict):
            document[name] = {**document[name], **value}
        else:
            document[name] = value
    path = directory / "spec.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


REFUSALS: list[tuple[str, dict[str, Any], int, str]] = [
    ("a wrong spec", {"sync": {"intervall": "5s"}}, 2, "intervall"),
    ("a missing machine in Azure", {"azure": {"vm": "nobody"}}, 5, "FB-CHK-AZURE-VM"),
    ("a missing machine on-premises", {"on_premises": {"vm": "nobody"}}, 5, "FB-CHK-HYPERV-"),
    ("a host nobody configured", {"on_premises": {"host": "hv99"}}, 5, "hv99"),
    ("a mover nobody runs", {"mover": "mover99"}, 5, "FB-CHK-"),
    (
        "a missing switch",
        {"on_premises": {"adapters": [{"name": "Network Adapter", "switch": "No such"}]}},
        5,
        "No such",
    ),
]


@pytest.mark.parametrize(
    ("changes", "status", "said"), [case[1:] for case in REFUSALS], ids=[c[0] for c in REFUSALS]
)
def test_a_start_is_refused_and_nothing_is_touched(
    run: Driver, tmp_path: Path, changes: dict[str, Any], status: int, said: str
) -> None:
    before = touched(run.lab)
    done = run.lab.failback(
        "start", str(spec_file(run.lab, tmp_path, **changes)), "--yes", "--json", check=False
    )
    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert touched(run.lab) == before


def test_a_machine_with_checkpoints_is_refused_by_their_names(run: Driver, tmp_path: Path) -> None:
    powershell(run.lab, "Checkpoint-VM -Name web01 -SnapshotName 'before patching'")
    try:
        done = run.lab.failback("start", str(run.lab.spec_file), "--yes", check=False)
        assert done.returncode == 5
        assert "before patching" in " ".join((done.stdout + done.stderr).split())
    finally:
        powershell(run.lab, "Remove-VMSnapshot -VMName web01 -Name 'before patching'")
    wait_until(lambda: leftovers(run.lab) == {}, timeout=10)  # the merge goes on for a moment


@pytest.mark.parametrize(
    ("killed", "said"), [("hyperv", "FB-CHK-HYPERV-HOST"), ("azure", "FB-CHK-AZURE-REACH")]
)
def test_a_side_that_does_not_answer_is_named(run: Driver, killed: str, said: str) -> None:
    run.lab.kill(killed)
    done = run.lab.failback("start", str(run.lab.spec_file), "--yes", "--json", check=False)
    run.lab.start(killed)
    assert done.returncode == 5, done.stdout + done.stderr
    assert said in done.stdout
    assert run.digests() == run.before


def test_without_workers_or_server_the_answer_says_what_to_start(run: Driver) -> None:
    run.lab.stop("control")
    done = run.lab.failback("check", str(run.lab.spec_file), "--timeout", "5", check=False)
    assert done.returncode == 6
    assert "worker" in done.stderr
    run.lab.kill("temporal")
    done = run.lab.failback("list", check=False)
    assert done.returncode == 6
    assert "FB-UNREACHABLE" in done.stderr


def touched(lab: Lab) -> dict[str, Any]:
    """What a refused start must not change."""
    runs = json.loads(lab.failback("list", "--json").stdout)
    return {
        "disks": [lab.onprem_disk_digest(disk_id) for disk_id in lab.world.disk_ids],
        "left": leftovers(lab),
        "runs": len(runs["runs"] if isinstance(runs, dict) else runs),
    }


async def test_a_second_run_on_the_same_machines_under_another_name_is_refused(
    run: Driver, tmp_path: Path
) -> None:
    await run.start(sync={"interval": "1h"})
    await run.until_phase(Phase.READY)
    twin = spec_file(run.lab, tmp_path, machine="twin", on_premises={"vm": "WEB01"})
    done = await asyncio.to_thread(run.lab.failback, "start", str(twin), "--yes", check=False)
    assert done.returncode == 3
    assert "dr-rg/web01" in done.stderr
    await run.say("abort", Abort(by="alice"))
    await run.ended()
    await run.both_sides_are_as_they_were()
