"""Every `failback` command on every page, given to the command line's own parsers: the verb exists,
and so do its options. What is parsed here is not run; the pages on messages and backup are."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from lab.stack import commandline
from starter.main import app
from worker.main import _parser as worker_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "deploy" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _lines(text: str) -> Iterator[str]:
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    yield from re.findall(r"`(failback [^`]+)`", prose)


def _commands() -> list[list[str]]:
    found = []
    for page in PAGES:
        for line in _lines(page.read_text()):
            if not line.startswith("failback ") or "…" in line:
                continue
            for part in line.split(" && "):
                found.append(shlex.split(part, comments=True)[1:])
    return found


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_command_is_one(words: list[str]) -> None:
    root = typer.main.get_command(app)
    context = root.make_context("failback", [], resilient_parsing=True)
    verb, *rest = words
    if verb.startswith("-") or verb.isupper():
        return  # `failback --help`, `failback COMMAND --help`
    assert verb in root.list_commands(context), verb  # type: ignore[attr-defined]
    if "--help" in rest:
        return
    if verb in ("lab", "demo"):
        if rest or verb == "demo":
            commandline.parser().parse_args([*(["demo"] if verb == "demo" else []), *rest])
        return
    if not rest:
        return  # prose names the verb alone, and leaves its arguments out
    if verb == "worker":
        worker_parser().parse_args(rest)
        return
    command = root.get_command(context, verb)  # type: ignore[attr-defined]
    command.make_context(verb, rest, parent=context)


def test_there_are_commands_to_look_at() -> None:
    assert len(_commands()) > 60


def test_every_verb_is_somewhere_in_the_documentation() -> None:
    root = typer.main.get_command(app)
    context = root.make_context("failback", [], resilient_parsing=True)
    shown = {words[0] for words in _commands()}
    text = "".join(page.read_text() for page in [*PAGES, ROOT / "CHANGELOG.md"])
    verbs = root.list_commands(context)  # type: ignore[attr-defined]
    assert [verb for verb in verbs if verb not in shown and f"`{verb}`" not in text] == []
