"""The words of ``failback lab`` (``python -m lab``), and help that teaches them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lab import chaos
from lab.filesystem import ImageError
from lab.stack import commands
from lab.stack.errors import LabError
from lab.stack.supervisor import NAMES
from lab.stack.terminal import DEFAULT_DIRECTORY, complain

_PROGRAM = "failback lab"

_DESCRIPTION = """\
A whole failback on one machine: an emulated Azure and an emulated Hyper-V host that speak
the platforms' own protocols over TLS, a real Temporal server, a guest that never stops
writing, and the product's own workers. Everything is on loopback and in one directory.
"""
_EPILOG = """\
first steps:
  failback lab up                      start everything; prints addresses and what to try
  . .lab/env.sh                        point `failback` at the lab in this shell
  failback check .lab/web01.yaml       preflight, touching nothing
  failback start .lab/web01.yaml       bring the machine home
  failback watch web01                 then: failback run-failover web01, failback commit web01
  failback lab down                    stop everything; `--delete` removes the directory, too

make trouble, while a run goes on:
  failback lab kill mover              kill -9; `failback lab restart mover` brings it back
  failback lab misbehave 'snapshots.*' throttle --times 3 --retry-after 5
  failback lab misbehave 'GET blob' revoke_sas --times 1
  failback lab rules                   what is in force and how often it struck
  failback lab behave                  end all of it

`failback lab COMMAND --help` has more examples. `failback demo` shows the whole job by itself.
"""
_MISBEHAVE = """\
A rule says which operations (a glob) go wrong, and how. It takes effect at once, survives
restarts, and ends with `failback lab behave`. The oldest rule that matches wins.

operations:
  azure-arm    snapshots.createOrUpdate, snapshots.beginGetAccess, snapshots.endGetAccess,
               snapshots.delete, virtualMachines.powerOff, virtualMachines.deallocate,
               virtualMachines.start, virtualMachines.delete, virtualMachines.instanceView, ...
  azure-data   'GET blob' (reading a disk), 'GET pagelist', 'GET pagelist-diff'
  hyperv       every cmdlet by its name (Start-VM, Add-VMHardDiskDrive, Checkpoint-VM, ...), and
               the protocol below it: wsman.*

actions:
  throttle         refuse for now, with Retry-After (--retry-after)
  delay, hang      answer late (--seconds), or not at all until the rule ends
  drop             cut the connection, --when before or after the work is done
  fail             refuse with --status, --code, --message
  lro_fail         accept, and fail later while the client polls (--code)
  revoke_sas       take back the grant that the request came with
  short_read       end a body after --bytes, --how length (honestly) or close (promising all)
  lie_unchanged    keep silent about a changed range (--offset, --length)
  refuse_shutdown  the guest does not shut down (virtualMachines.powerOff, Stop-VM)
  boot_failure     the machine starts and its guest does not boot (Start-VM)
  no_heartbeat     the guest runs and is not heard of (Start-VM)
"""
_MISBEHAVE_EXAMPLES = """\
examples:
  failback lab misbehave 'snapshots.createOrUpdate' throttle --times 2 --retry-after 10
  failback lab misbehave 'GET blob' drop --probability 0.05
  failback lab misbehave 'GET blob' delay --seconds 0.2
  failback lab misbehave 'virtualMachines.powerOff' refuse_shutdown --code Conflict
  failback lab misbehave 'Start-VM' boot_failure --times 1 --resource web01
  failback lab misbehave 'virtualMachines.start' fail --status 409 --code AllocationFailed
"""


def main(arguments: Sequence[str]) -> int:
    """Run one command line of the lab; returns the exit status."""
    parsed = parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except (LabError, ImageError, chaos.ChaosRuleError) as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog=_PROGRAM,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words = top.add_subparsers(metavar="COMMAND", required=True)
    up = _add(words, "up", "start everything (building the world first, if there is none)")
    _world_options(up)
    up.add_argument("--foreground", action="store_true", help="stay, and end all with Ctrl-C")
    up.add_argument("--no-workers", action="store_true", help="leave the product's workers out")
    down = _add(words, "down", "stop everything; what is on disk stays")
    down.add_argument("--delete", action="store_true", help="remove the lab's directory as well")
    _json(_add(words, "status", "which processes run, and where they listen"))
    _add(words, "env", "lines for a shell that point `failback` at the lab")
    _json(_add(words, "world", "which machines, disks and switches there are on both sides"))
    _json(_add(words, "guest", "where the guest runs, and what it was promised to be kept"))
    _misbehave_options(words)
    behave = _add(words, "behave", "end one rule, or all of them")
    behave.add_argument(
        "rule", nargs="?", metavar="ID", help="as `rules` shows it; all if not said"
    )
    _json(_add(words, "rules", "the rules in force, and how often they struck"))
    for name, what in (
        ("kill", "kill -9 one process, at once"),
        ("restart", "end one process in good order if it runs, and start it"),
        ("logs", "what a process wrote"),
    ):
        one = _add(words, name, what)
        one.add_argument("process", choices=NAMES)
        if name == "logs":
            one.add_argument("--lines", type=int, default=50, help="how many (default 50)")
            one.add_argument("--follow", "-f", action="store_true", help="go on until Ctrl-C")
    demo_options(_add(words, "demo", "show the whole job, and check it"))
    return top


def _add(
    words: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str
) -> argparse.ArgumentParser:
    one = words.add_parser(
        name,
        help=what,
        description=what[0].upper() + what[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument(
        "--dir",
        type=Path,
        default=DEFAULT_DIRECTORY,
        help=f"the lab's directory (default {DEFAULT_DIRECTORY})",
    )
    one.set_defaults(run=getattr(commands, name))
    return one


def _json(one: argparse.ArgumentParser) -> None:
    one.add_argument("--json", action="store_true", help="JSON instead of text")


def _world_options(one: argparse.ArgumentParser) -> None:
    world = one.add_argument_group("the world, where it is not built yet")
    world.add_argument("--small", action="store_true", help="disks of some MiB: quick")
    world.add_argument("--disk", type=Path, metavar="FILE", help="your raw or VHD image as OS disk")
    world.add_argument("--data-disks", type=int, metavar="N", help="with --small: how many")
    world.add_argument("--generation", type=int, choices=(1, 2), help="of the machine (default 1)")
    world.add_argument(
        "--alternate", action="store_true", help="the machine is gone on-premises: it is created"
    )


def _misbehave_options(words: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    one = _add(words, "misbehave", "make an emulator throttle, fail, drop, hang or lie")
    one.description = _MISBEHAVE
    one.epilog = _MISBEHAVE_EXAMPLES
    one.add_argument("operation", metavar="OPERATION", help="a glob, such as 'snapshots.*'")
    one.add_argument("action", metavar="ACTION", choices=sorted(chaos.ACTIONS), help="see above")
    number, text = {"type": int, "metavar": "N"}, {"metavar": "TEXT"}
    for name, options, what in (
        ("emulator", text, "azure-arm, azure-data or hyperv (default: all)"),
        ("resource", text, "glob on what the operation is about"),
        ("skip", number, "let that many pass first"),
        ("times", number, "strike at most that often (default: without end)"),
        ("probability", {"type": float, "metavar": "P"}, "strike with this chance"),
        ("seed", number, "of that chance"),
        ("status", number, "HTTP status"),
        ("code", text, "the platform's error code"),
        ("message", text, "error text"),
        ("retry-after", {"type": float, "metavar": "S"}, "seconds, in a throttle's answer"),
        ("seconds", {"type": float, "metavar": "S"}, "length of a delay or hang"),
        ("when", {"choices": ["before", "after"]}, "the moment of a drop"),
        ("bytes", number, "how much a short_read lets through"),
        ("how", {"choices": ["length", "close"]}, "a short_read's manner"),
        ("offset", number, "where lie_unchanged begins, in bytes"),
        ("length", number, "how long it is, in bytes"),
    ):
        one.add_argument(f"--{name}", help=what, **options)


def demo_options(one: argparse.ArgumentParser) -> None:
    """The demo's own words."""
    one.add_argument(
        "--interactive",
        action="store_true",
        help="wait for your own `run-failover` and `commit` from a second terminal",
    )
    one.add_argument(
        "--disk", type=Path, metavar="FILE", help="your raw or VHD image as OS disk; not changed"
    )
    one.add_argument("--rounds", type=int, default=3, help="rounds before failover (default 3)")
    one.add_argument("--keep", action="store_true", help="keep the lab running afterwards")
    one.add_argument("--small", action="store_true", help="disks of some MiB: a quick look")
    one.add_argument("--json", action="store_true", help="the final figures as JSON, nothing else")
