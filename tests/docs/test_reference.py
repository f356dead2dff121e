"""The reference pages against the models: every field is there, none is invented, and every default
is the one in force. The specs shown are specs."""

import re
import typing
from collections.abc import Callable

import pytest
from pydantic import BaseModel

from models import spec
from tests.docs.tables import DOCS, fields, rows, same_default
from worker.settings import WorkerSettings

PAGES: list[tuple[str, type[BaseModel]]] = [
    ("spec.md", spec.FailbackSpec),
    ("configuration.md", WorkerSettings),
]


def _documented(page: str) -> dict[str, str]:
    return {row[0].strip("`"): row[1] for row in rows(page, 3) if row[0].startswith("`")}


@pytest.mark.parametrize(("page", "model"), PAGES)
def test_lists_every_field_and_no_other(page: str, model: type[BaseModel]) -> None:
    kinds = {kind.__name__ for kind in _check_models()}
    documented = {name for name in _documented(page) if name not in _check_kinds()}
    assert documented == {path for path, _ in fields(model)}, kinds


@pytest.mark.parametrize(("page", "model"), PAGES)
def test_says_every_default_as_it_is(page: str, model: type[BaseModel]) -> None:
    documented = _documented(page)
    wrong = [path for path, info in fields(model) if not same_default(info, documented[path])]
    assert wrong == []


def _check_models() -> list[type[BaseModel]]:
    union = typing.get_args(spec.HealthCheck)[0]
    return list(typing.get_args(union))


def _check_kinds() -> dict[str, type[BaseModel]]:
    return {model.model_fields["kind"].default: model for model in _check_models()}


def test_lists_every_field_of_every_health_check() -> None:
    kinds = _check_kinds()
    documented = {
        (row[0].strip("`"), row[1].strip("`")): row[2]
        for row in rows("spec.md", 4)
        if row[0].strip("`") in kinds
    }
    known = {
        (kind, name): info
        for kind, model in kinds.items()
        for name, info in model.model_fields.items()
        if name != "kind"
    }
    assert set(documented) == set(known)
    assert [key for key, info in known.items() if not same_default(info, documented[key])] == []


@pytest.mark.parametrize("page", ["spec.md", "first-failback.md"])
def test_every_spec_shown_is_one(page: str) -> None:
    shown = re.findall(r"```yaml\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert shown
    parse: Callable[..., spec.FailbackSpec] = spec.parse_spec
    for text in shown:
        assert parse(text, origin=page).machine
