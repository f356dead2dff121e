"""What the words of ``failback lab`` do. Each takes the parsed arguments and returns an exit
status; `lab.stack.commandline` knows the words."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.markup import escape

from lab import chaos
from lab.stack import show
from lab.stack.errors import LabError
from lab.stack.lab import Lab
from lab.stack.processes import POLL_SECONDS
from lab.stack.supervisor import NAMES, PLATFORMS, shell_exports
from lab.stack.terminal import complain, console, emit, lab_words, say, short
from lab.world import World

_WATCH_SECONDS = 0.5
_RULE_FIELDS = (
    *("emulator", "resource", "skip", "times", "probability", "seed", "status", "code", "message"),
    *("retry_after", "seconds", "when", "bytes", "how", "offset", "length"),
)


def up(arguments: Namespace) -> int:
    """Build what is missing, start what does not run."""
    began = time.monotonic()
    directory: Path = arguments.dir
    if World.load(directory) is None:
        say(f"Building the world in {escape(short(directory))} …")
    lab = Lab(directory, _wanted_world(arguments), usual_ports=True)
    write_environment(lab)
    names = PLATFORMS if arguments.no_workers else NAMES
    if arguments.foreground:
        return _stay(lab, names)
    lab.start(*names)
    show.welcome(lab, time.monotonic() - began)
    return 0


def _stay(lab: Lab, names: tuple[str, ...]) -> int:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with lab:
        began = time.monotonic()
        lab.start(*names)
        show.welcome(lab, time.monotonic() - began)
        say("Ctrl-C ends everything.")
        down_now: set[str] = set()
        while not ended.wait(_WATCH_SECONDS):
            dead = set(names) - lab.running().keys()
            for name in sorted(dead - down_now):
                say(f"{name} has ended. Again: {lab_words(lab.directory, 'restart', name)}")
            down_now = dead
    return 0


def _wanted_world(arguments: Namespace) -> World | None:
    """The world that the options describe; None if they describe none."""
    said = (arguments.disk, arguments.data_disks, arguments.generation)
    plain = not any(said) and not arguments.small and not arguments.alternate
    if plain:
        return None
    if arguments.small:
        world = World.small(data_disks=arguments.data_disks or 1, quick=False)
    else:
        world = World.demo(disk=_existing_file(arguments.disk))
    return replace(world, generation=arguments.generation or 1, original=not arguments.alternate)


def _existing_file(path: Path | None) -> Path | None:
    if path is not None and not path.is_file():
        raise LabError(f"There is no file {path}.")
    return path


def down(arguments: Namespace) -> int:
    """Stop everything."""
    lab = _open(arguments)
    running = lab.running()
    lab.stop()
    say(f"Stopped: {', '.join(running) or 'nothing ran'}.")
    if arguments.delete:
        shutil.rmtree(lab.directory)
        say(f"Removed {escape(short(lab.directory))}.")
    return 0


def status(arguments: Namespace) -> int:
    """Which processes run; exit status 1 if some do not."""
    lab = _open(arguments)
    facts = show.status(lab)
    if arguments.json:
        emit(facts)
    else:
        show.status_table(facts)
    return 0 if all(one["running"] for one in facts["processes"].values()) else 1


def env(arguments: Namespace) -> int:
    """Print lines for a shell."""
    lab = _open(arguments)
    for line in shell_exports(lab.env):
        console().print(line, markup=False, highlight=False)
    return 0


def write_environment(lab: Lab) -> Path:
    """``DIR/env.sh``, for `source`."""
    path = lab.directory / "env.sh"
    path.write_text("\n".join([*shell_exports(lab.env), ""]))
    path.chmod(0o600)
    return path


def world(arguments: Namespace) -> int:
    """Both sides, as the emulators have them."""
    lab = _open(arguments)
    facts = show.world(lab)
    if arguments.json:
        emit(facts)
    else:
        show.world_tables(facts)
    return 0


def guest(arguments: Namespace) -> int:
    """Where the guest runs, and what was acknowledged."""
    lab = _open(arguments)
    facts: dict[str, Any] = {
        "machine": lab.machine,
        "guests": lab.guests(),
        "acknowledged": lab.evidence.acknowledged(lab.machine),
    }
    if arguments.json:
        emit(facts)
    else:
        show.guest_table(facts)
    return 0


def misbehave(arguments: Namespace) -> int:
    """Put a rule into force."""
    lab = _open(arguments)
    given = {name: getattr(arguments, name) for name in _RULE_FIELDS}
    fields = {name: value for name, value in given.items() if value is not None}
    rule_id = lab.add_rule(arguments.operation, arguments.action, **fields)
    say(f"In force: {rule_id}. End it: {lab_words(lab.directory, 'behave', rule_id)}")
    return 0


def behave(arguments: Namespace) -> int:
    """End one rule, or all."""
    lab = _open(arguments)
    if arguments.rule is not None and arguments.rule not in lab.rules():
        raise LabError(f"There is no rule {arguments.rule}; `failback lab rules` lists them.")
    ended = [arguments.rule] if arguments.rule else list(lab.rules())
    lab.remove_rule(arguments.rule)
    say(f"{len(ended)} rule(s) ended." if ended else "No rule was in force.")
    return 0


def rules(arguments: Namespace) -> int:
    """List the rules in force."""
    lab = _open(arguments)
    listed = {
        rule_id: {**rule, "matched": chaos.hits(lab.directory, rule_id)}
        for rule_id, rule in lab.rules().items()
    }
    if arguments.json:
        emit(listed)
    else:
        show.rules_table(listed)
    return 0


def kill(arguments: Namespace) -> int:
    """``kill -9`` one process."""
    lab = _open(arguments)
    pid = lab.kill(arguments.process)
    if pid is None:
        complain(f"{arguments.process} does not run.")
        return 1
    again = lab_words(lab.directory, "restart", arguments.process)
    say(f"Killed {arguments.process} (process {pid}). Bring it back: {again}")
    return 0


def restart(arguments: Namespace) -> int:
    """Start one process again."""
    lab = _open(arguments)
    began = time.monotonic()
    lab.restart(arguments.process)
    say(
        f"{arguments.process} is ready as process {lab.pid(arguments.process)}, "
        f"after {time.monotonic() - began:.1f} s."
    )
    return 0


def logs(arguments: Namespace) -> int:
    """The end of a process's log."""
    path = _open(arguments).log_file(arguments.process)
    if not path.exists():
        raise LabError(f"{arguments.process} has written nothing yet.")
    out = console()
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file.readlines()[-arguments.lines :]:
            out.print(line.rstrip("\n"), markup=False)
        while arguments.follow:
            line = file.readline()
            if line:
                out.print(line.rstrip("\n"), markup=False)
            else:
                time.sleep(POLL_SECONDS)
    return 0


def demo(arguments: Namespace) -> int:
    """Show the whole job."""
    from lab.demo import run

    return run(arguments)


def _open(arguments: Namespace) -> Lab:
    if World.load(arguments.dir) is None:
        raise LabError(
            f"There is no lab in {short(arguments.dir)}; `failback lab up --dir DIR` makes one."
        )
    return Lab(arguments.dir)
