"""One emulator per module; every test uses machines of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import chaos
from platforms.azure import AzurePlatform
from tests.platforms.azure.cloud import Cloud


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path_factory.mktemp("azure"))
    cloud.start()
    yield cloud
    cloud.stop()


@pytest.fixture(scope="module")
def platform(cloud: Cloud) -> AzurePlatform:
    return cloud.platform()


@pytest.fixture(autouse=True)
def _fair_weather(cloud: Cloud) -> Iterator[None]:
    yield
    chaos.clear(cloud.directory)
