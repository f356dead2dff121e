"""What goes to the terminal and how: text for people, one JSON document for programs, errors on
standard error with their code, and the questions a person is asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from models.errors import FailbackError

_PIPE_WIDTH = 120
"""Columns where the output is not a terminal; narrower would wrap what scripts grep."""


def console(*, stderr: bool = False) -> Console:
    """A console on the present standard output (or error)."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False)


def say(*parts: RenderableType) -> None:
    """Show something to a person. Strings are rich markup; values must be escaped by the caller."""
    out = console()
    for part in parts:
        out.print(part)


def emit(document: Mapping[str, Any]) -> None:
    """Print one JSON document on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n")


def emit_line(document: Mapping[str, Any]) -> None:
    """Print one JSON document on one line at once, for streams."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def describe_error(code: str, message: str, hint: str = "") -> dict[str, Any]:
    """The JSON shape of every error."""
    return {"error": {"code": code, "message": message, "hint": hint}}


def error_document(error: FailbackError) -> dict[str, Any]:
    """The JSON shape of one of the product's errors."""
    return describe_error(error.code, error.message, error.hint)


def show_error(code: str, message: str, hint: str = "") -> None:
    """One clear message on standard error: the code, what happened, what to do."""
    out = console(stderr=True)
    text = Text()
    text.append(f"{code}: ", style="bold red")
    text.append(message)
    out.print(text, soft_wrap=True)
    if hint:
        out.print(Text(f"  → {hint}"), soft_wrap=True)


def interactive() -> bool:
    """Whether a person sits at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def confirm(question: str) -> None:
    """Ask a person; anything but yes ends the command.

    Raises:
        typer.Abort: The answer was no.
    """
    typer.confirm(question, default=False, abort=True)
