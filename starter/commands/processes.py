"""`failback worker`, `failback lab` and `failback demo`: long-lived processes under one command.
Their own options are theirs; this passes them on."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Annotated

import typer

from models.errors import InvalidConfiguration

_PASSED_ON = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    # `--help` after more words belongs to the process that is started.
    "help_option_names": [],
}

Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="ARGS...", help="Passed on as they are.")
]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    for command in (worker, demo, lab):
        app.command(
            rich_help_panel="Processes", context_settings=_PASSED_ON, add_help_option=False
        )(command)


def worker(context: typer.Context, arguments: Arguments = None) -> int:
    """Run a worker: the control worker, or a mover beside the disks.

    The control worker holds the decisions and talks to Azure and the hypervisor; one is enough. A
    mover (master target) runs on the virtual machine that the disks are attached to, under
    the name that specs give as `mover`. Both stop at SIGTERM and lose nothing; a run goes on where
    it was when they are back.

    Example:

        failback worker control --config worker.toml

        failback worker mover --name mover1 --config mover.toml

    Next: `failback check SPEC` shows whether both are seen.
    """
    words = list(arguments or [])
    if words in ([], ["--help"], ["-h"]):
        typer.echo(context.get_help())
        return 0
    # By name: the workers bring the platforms' libraries, which no other command needs.
    worker_main = importlib.import_module("worker.main")
    return int(worker_main.main(words))


def demo(context: typer.Context, arguments: Arguments = None) -> int:
    """Show the whole job in two minutes: an emulated Azure and Hyper-V, a real Temporal server.

    A machine with a real file system comes home while it goes on writing, and every acknowledged
    write is counted afterwards. Needs no account and no network.

    Example:

        failback demo

        failback demo --interactive

    Next: with --interactive, say `failback run-failover` and `failback commit` from a second
    terminal. `failback lab up` leaves the emulators running to play with.
    """
    words = list(arguments or [])
    if words in (["--help"], ["-h"]):
        typer.echo(context.get_help())
    return _become_lab(["demo", *words])


def lab(arguments: Arguments = None) -> int:
    """Run the emulators of Azure and Hyper-V, and make them misbehave.

    Example:

        failback lab up

    Next: `failback check` with the spec that `lab up` prints.
    """
    # Its own help says which words there are and how to make trouble.
    return _become_lab(list(arguments or ["--help"]))


def _become_lab(words: list[str]) -> int:
    """Go on as `python -m lab`, in this process's place: signals, terminal and exit status are then
    the lab's own.

    Raises:
        InvalidConfiguration: This installation has no lab.
    """
    if importlib.util.find_spec("lab") is None:
        raise InvalidConfiguration(
            "The lab is not part of this installation.",
            hint="It comes with a checkout of the project: `make setup` installs what it needs.",
        )
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "lab", *words])
