"""Options and arguments that several commands share, with their help and completion."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from models.errors import InvalidSpec
from models.spec import FailbackSpec, parse_spec

_COMPLETION_SECONDS = 1.5
"""A person who presses TAB does not wait longer."""


def _machines(*, running_only: bool) -> list[str]:
    # Completion is a convenience: whatever goes wrong, there is just nothing to propose.
    try:
        from starter.runs import known_machines

        return asyncio.run(
            asyncio.wait_for(known_machines(running_only=running_only), _COMPLETION_SECONDS)
        )
    except Exception:
        return []


def complete_running(incomplete: str) -> list[str]:
    """Machines whose failback goes on."""
    return [name for name in _machines(running_only=True) if name.startswith(incomplete)]


def complete_known(incomplete: str) -> list[str]:
    """Machines whose failback goes on or has ended."""
    return [name for name in _machines(running_only=False) if name.startswith(incomplete)]


SpecFile = Annotated[
    str,
    typer.Argument(metavar="SPEC", help="The spec, a YAML file; `-` reads standard input."),
]
RunningMachine = Annotated[
    str,
    typer.Argument(
        metavar="MACHINE",
        help="The machine's name, as in its spec.",
        autocompletion=complete_running,
    ),
]
KnownMachine = Annotated[
    str,
    typer.Argument(
        metavar="MACHINE", help="The machine's name, as in its spec.", autocompletion=complete_known
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
By = Annotated[
    str | None,
    typer.Option(
        help="Who says it; kept in the audit trail. Else FAILBACK_BY, else the login name."
    ),
]


def read_spec(path: str) -> FailbackSpec:
    """The spec in a file, or on standard input for `-`.

    Raises:
        InvalidSpec: The file cannot be read or does not describe a failback.
    """
    if path == "-":
        return parse_spec(sys.stdin.read(), origin="standard input")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InvalidSpec(
            f"The spec {path!r} cannot be read: {reason}.",
            hint="Give the path of a YAML file; `failback schema` describes its fields.",
        ) from error
    return parse_spec(text, origin=path)
