"""One small lab for the tests that look at a running one; each puts back what it changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.stack import Lab
from lab.world import World


@pytest.fixture(scope="package")
def package_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("stack"), World.small()) as lab:
        lab.start()
        yield lab
    assert lab.running() == {}


@pytest.fixture
def lab(package_lab: Lab) -> Iterator[Lab]:
    """The lab, with every process up before and after, and everything behaving."""
    package_lab.start()
    yield package_lab
    package_lab.remove_rule()
