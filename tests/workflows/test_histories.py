"""Histories of every path, kept from runs in the lab, replay against today's workflow code.

A change that breaks one would wedge every run of that kind that is under way: guard it with
`workflow.patched`. `tests/histories/README.md` says how they were made.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory

from tests.e2e.histories import replayer

HISTORIES = sorted((Path(__file__).parents[1] / "histories").glob("*.json.gz"))


def test_there_is_a_history_of_every_path() -> None:
    names = {path.name.split(".")[0] for path in HISTORIES}
    assert names >= {
        "completed",
        "aborted-in-ready",
        "cancelled-in-commit-pending",
        "continued-as-new",
        "retried-when-blocked",
        "created-machine",
        "preflight",
        "doctor",
    }


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.name)
async def test_a_kept_history_replays(path: Path) -> None:
    await replayer().replay_workflow(read(path))


def read(path: Path) -> WorkflowHistory:
    """A kept history."""
    text = gzip.decompress(path.read_bytes()).decode()
    return WorkflowHistory.from_json(path.name.split(".")[0], text)
