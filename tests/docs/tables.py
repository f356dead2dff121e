"""Reading tables out of the documentation, and fields out of the models that they describe."""

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

DOCS = Path(__file__).parents[2] / "docs"


def rows(page: str, columns: int) -> list[list[str]]:
    """The cells of every row of every table with so many columns, headings left out."""
    found = []
    for line in (DOCS / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) >= columns:
            found.append([*cells[: columns - 1], " | ".join(cells[columns - 1 :])])
    return found


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field of a model and of the models in it, by its path in a document."""
    for name, info in model.model_fields.items():
        path = prefix + (info.alias or name)
        yield path, info
        origin = typing.get_origin(info.annotation)
        joint = "[]." if origin is list else ".NAME." if origin is dict else "."
        for part in (info.annotation, *typing.get_args(info.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from fields(part, path + joint)


def same_default(info: FieldInfo, said: str) -> bool:
    """Whether a table's cell says the field's default, in whatever unit."""
    if info.is_required():
        return said == "needed"
    if said == "see below":
        return isinstance(info.get_default(call_default_factory=True), BaseModel)
    if said == "–":
        return info.default is None
    # Through the field's own validators, which take units.
    adapter: TypeAdapter[Any] = TypeAdapter(info.rebuild_annotation())
    value = yaml.safe_load(said.strip("`"))
    return bool(adapter.validate_python(value) == info.get_default(call_default_factory=True))
