"""Every stable code is used by the product, and reached by a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from models.errors import FailbackError, all_error_classes

ROOT = Path(__file__).parents[2]
PRODUCT = ("models", "workflows", "activities", "platforms", "transfer", "worker", "starter")


def text_of(*folders: str, but: Path | None = None) -> str:
    """All Python below some folders."""
    paths = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return "\n".join(path.read_text() for path in paths if path != but)


SOURCES = text_of(*PRODUCT, but=ROOT / "models" / "errors.py")
TESTS = text_of("tests", but=Path(__file__))
CHECKS = sorted(set(re.findall(r'"(FB-CHK-[A-Z-]+[A-Z])"', SOURCES)))


@pytest.mark.parametrize("error", all_error_classes()[1:], ids=lambda error: error.code)
def test_an_error_is_raised_somewhere_and_reached_by_a_test(error: type[FailbackError]) -> None:
    word = re.compile(rf"\b{error.__name__}\b|{error.code}\b")
    assert word.search(SOURCES), f"{error.__name__} is raised nowhere"
    assert word.search(TESTS), f"{error.code} is reached by no test"


@pytest.mark.parametrize("code", CHECKS)
def test_a_preflight_check_is_reached_by_a_test(code: str) -> None:
    # Tests of a platform name its checks by their last words.
    assert code in TESTS or code.split("-", 3)[-1].lower() in TESTS.lower()
