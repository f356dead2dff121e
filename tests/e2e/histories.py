"""What Temporal kept of runs: replayed against today's workflow code, and searched for secrets."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

from temporalio.client import Client, WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from lab.stack.lab import Lab
from worker.main import WORKFLOWS, sandbox


def replayer() -> Replayer:
    """Replays histories of every workflow of ours, as the workers run them."""
    return Replayer(
        workflows=WORKFLOWS,
        data_converter=pydantic_data_converter,
        workflow_runner=sandbox(),
    )


async def all_histories(address: str) -> list[WorkflowHistory]:
    """The history of every workflow on a server."""
    client = await Client.connect(address, data_converter=pydantic_data_converter)
    return [
        await client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history()
        async for run in client.list_workflows()
    ]


async def replay(histories: Iterable[WorkflowHistory]) -> int:
    """Replay them all; raises on the first that does not fit. Returns how many there were."""
    count = 0
    for history in histories:
        await replayer().replay_workflow(history)
        count += 1
    return count


def secrets_of(lab: Lab) -> list[str]:
    """Everything secret that this lab knows of."""
    azure = json.loads((lab.directory / "azure.json").read_text())
    password = next(lab.directory.glob("*.password")).read_text().strip()
    return [azure["identity_header"], azure["signing_key"], password]


def secrets_in(history: WorkflowHistory, secrets: Iterable[str]) -> list[str]:
    """Which of the secrets, and whether any signed URL, stands in a history's payloads."""
    text = "\n".join(_texts(json.loads(history.to_json())))
    found = [secret for secret in secrets if secret in text]
    return found + [mark for mark in ("sig=", "accessSAS", "Bearer ") if mark in text]


def _texts(node: Any) -> Iterable[str]:
    """Every string of a history, payloads decoded."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "data" and isinstance(value, str):
                yield base64.b64decode(value).decode(errors="replace")
            else:
                yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)
    elif isinstance(node, str):
        yield node
