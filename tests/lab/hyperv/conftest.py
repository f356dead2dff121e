"""Fixtures: a host of one's own where a test changes much, else one for the whole module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.hyperv.harness import LabHost


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LabHost]:
    lab = LabHost(tmp_path)
    lab.start()
    yield lab
    lab.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    lab = LabHost(tmp_path_factory.mktemp("host"))
    lab.start()
    yield lab
    lab.stop()
