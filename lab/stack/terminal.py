"""What the lab says to people: styled on a terminal, plain where the output goes elsewhere."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

from lab.stack.supervisor import product_command

DEFAULT_DIRECTORY = Path(".lab")
_PIPE_WIDTH = 110


def console(*, stderr: bool = False) -> Console:
    """A console on the present standard output (or error)."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream, width=None if stream.isatty() else _PIPE_WIDTH, highlight=False, soft_wrap=True
    )


def say(*parts: RenderableType) -> None:
    """Show something. Strings are rich markup."""
    out = console()
    for part in parts:
        out.print(part)


def complain(message: str) -> None:
    """One message on standard error, as it is."""
    console(stderr=True).print(message, style="red", markup=False)


def emit(document: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def table(*headings: str) -> Table:
    """An empty table in the lab's manner."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        made.add_column(heading, overflow="fold")
    return made


def short(path: Path) -> str:
    """A path as one would type it from here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def failback_word() -> str:
    """The product's command as one would type it from here."""
    command = product_command()
    return short(Path(command[0])) if len(command) == 1 else shlex.join(command)


def lab_words(directory: Path, *words: str) -> str:
    """A command of the lab as one would type it for this directory."""
    usual = directory.resolve() == DEFAULT_DIRECTORY.resolve()
    where = [] if usual else ["--dir", short(directory)]
    return f"{failback_word()} {shlex.join(['lab', words[0], *where, *words[1:]])}"


def human_size(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
