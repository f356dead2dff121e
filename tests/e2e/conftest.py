"""A lab per test process: its world is whole again after every run that was undone, so that one lab
serves many tests. Tests that commit take a lab of their own from `new_lab`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from lab.stack.lab import Lab
from lab.world import World
from tests.e2e.driver import Driver, allow_many_snapshots
from tests.e2e.histories import all_histories, replay, secrets_in, secrets_of


@pytest.fixture(scope="session")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The lab that undone runs share."""
    with Lab(tmp_path_factory.mktemp("lab"), World.small()) as lab:
        lab.start()
        allow_many_snapshots(lab)
        yield lab
        lab.start()
        asyncio.run(check_histories(lab))


async def check_histories(lab: Lab) -> None:
    """After all the trouble: what Temporal kept of it replays, and holds no secret."""
    histories = await all_histories(lab.temporal.address)
    await replay(histories)
    secrets = secrets_of(lab)
    assert [h.workflow_id for h in histories if secrets_in(h, secrets)] == []


@pytest_asyncio.fixture
async def run(shared_lab: Lab) -> AsyncIterator[Driver]:
    """A driver on the shared lab, everything up and in order before and after."""
    shared_lab.remove_rule()
    shared_lab.set_guest(refuse_shutdown=False)
    shared_lab.start()
    driver = await Driver.connect(shared_lab)
    yield driver
    shared_lab.remove_rule()
    shared_lab.set_guest(refuse_shutdown=False)
    shared_lab.start()
    await driver.leave_nothing()


@pytest.fixture
def new_lab(tmp_path: Path) -> Iterator[Callable[[World], Lab]]:
    """Labs of a test's own, all ended after it."""
    labs: list[Lab] = []

    def make(world: World) -> Lab:
        lab = Lab(tmp_path / f"lab{len(labs)}", world).__enter__()
        labs.append(lab)
        lab.start()
        return lab

    yield make
    for lab in labs:
        lab.__exit__(None, None, None)
