"""One emulated host per module; a module puts its machines into it in `seed`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import chaos
from platforms.hyperv import HyperVPlatform
from tests.platforms.hyperv.hypervisor import Hypervisor


@pytest.fixture(scope="module")
def hypervisor(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hypervisor]:
    host = Hypervisor(tmp_path_factory.mktemp("hyperv"))
    seed = getattr(request.module, "seed", None)
    if seed is not None:
        seed(host)
    host.start()
    yield host
    host.stop()


@pytest.fixture(scope="module")
def platform(hypervisor: Hypervisor) -> Iterator[HyperVPlatform]:
    platform = hypervisor.platform()
    yield platform
    platform.close()


@pytest.fixture
def fair_weather(hypervisor: Hypervisor) -> Iterator[None]:
    """For tests that make the host misbehave."""
    yield
    chaos.clear(hypervisor.directory)
