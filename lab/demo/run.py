"""The demo from beginning to end: build, run, watch, prove, clean up.

Everything that is said to the product is said by its command line; `lab.demo.proof` then looks
for itself. Whatever happens, nothing is left running, unless one asked for that.
"""

from __future__ import annotations

import shlex
import shutil
import signal
import time
from argparse import Namespace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape

from lab.demo import figures
from lab.demo.proof import Proof
from lab.demo.watching import Seen, Watch
from lab.stack.errors import LabError
from lab.stack.lab import Lab, is_ours
from lab.stack.supervisor import shell_exports
from lab.stack.terminal import console, emit, failback_word, lab_words, short
from lab.world import World

SUBDIRECTORY = "demo"
PHASE_SECONDS = 240.0


def run(arguments: Namespace) -> int:
    """Run the demo; 0 if everything holds."""
    out = _console(quiet=arguments.json)
    signal.signal(signal.SIGTERM, _interrupt)
    directory = _fresh_directory(arguments.dir / SUBDIRECTORY)
    demo = Demo(directory, arguments, out)
    try:
        with demo.lab:
            result = demo.play()
            if arguments.keep:
                demo.lab.release()
                demo.say_kept()
    except LabError as error:
        out.print(f"\n[bold red]The demo failed.[/bold red] {escape(str(error))}")
        out.print(f"Logs are in {escape(short(directory / 'logs'))}.")
        if arguments.json:
            emit({"holds": False, "error": str(error)})
        return 1
    return result


class Demo:
    """One showing."""

    def __init__(self, directory: Path, arguments: Namespace, out: Console) -> None:
        self._arguments = arguments
        self._out = out
        self._began = time.monotonic()
        self._seconds: dict[str, float] = {}
        out.print("[bold]A machine comes home from Azure.[/bold]")
        out.print(
            "Both clouds are emulated, at the wire; the disks, Temporal and failback are real.\n"
        )
        self.lab = self._timed("build", lambda: Lab(directory, _world(arguments)))
        self._watch = Watch(self.lab, out, self._began)
        self._proof = Proof(self.lab)

    def play(self) -> int:
        """The whole job; the exit status."""
        lab, watch = self.lab, self._watch
        disks = ", ".join(_disk_words(lab, disk_id) for disk_id in lab.world.disk_ids)
        watch.say(f"world built: {lab.machine} runs in Azure ({disks})")
        self._timed("up", lab.start)
        watch.say(f"processes ready: {', '.join(lab.running())}")
        watch.say(f"Temporal's Web UI: [bold]{lab.temporal.web_ui}[/bold]")
        passed = lab.failback_json("check", str(lab.spec_file))["checks"]
        watch.say(f"[bold]failback check[/bold]: {len(passed)} checks hold; nothing was touched")
        job = time.monotonic()
        lab.start_failback("--by", "demo")
        watch.say("[bold]failback start[/bold]")
        state = self._until_failover()
        if state["phase"] != "rolled_back":
            state = self._until_committed()
        self._seconds["job"] = time.monotonic() - job
        if state["phase"] == "rolled_back":
            return self._rolled_back()
        return self._judge(state)

    def _until_failover(self) -> Seen:
        """Rounds while the guest writes, then the order to fail over."""
        wanted, watch = self._arguments.rounds, self._watch

        def enough(state: Seen) -> bool:
            return bool(state["phase"] == "ready") and len(_ended_rounds(state)) >= wanted

        interactive = self._arguments.interactive
        if not interactive:
            watch.until(enough, f"round {wanted}", timeout=_sync_seconds(wanted), patient=False)
            self.lab.run_failover("--by", "demo", "--reason", "the demo has seen enough rounds")
            watch.say("[bold]failback run-failover[/bold]")
        else:
            watch.until(lambda s: s["phase"] == "ready", "ready", timeout=None, patient=True)
            self._invite(
                "run-failover", "It is in step and goes on writing in Azure. When you like"
            )
        return watch.until(
            lambda s: s["phase"] in ("commit_pending", "completed", "rolled_back"),
            "commit_pending",
            timeout=None if interactive else PHASE_SECONDS,
            patient=interactive,
        )

    def _until_committed(self) -> Seen:
        """Compare the two sides while there are two, then commit."""
        watch, interactive = self._watch, self._arguments.interactive
        self._timed("compare", self._proof.before_commit)
        watch.say("both sides compared, byte by byte")
        if not interactive:
            self.lab.commit("--by", "demo")
            watch.say("[bold]failback commit[/bold]")
        else:
            self._invite("commit", "The machine runs on-premises. When you have looked at it")
        return watch.until(
            lambda s: s["phase"] in ("completed", "rolled_back"),
            "completed",
            timeout=None if interactive else PHASE_SECONDS,
            patient=interactive,
        )

    def _judge(self, state: Seen) -> int:
        lab, proof = self.lab, self._proof
        verdict = self._timed("prove", proof.after_commit)
        proof.limits(verdict.downtime, lab.peak_memory_bytes("mover"))
        before = [one for one in _ended_rounds(state) if not one.get("final")]
        needed = 1 if self._arguments.interactive else self._arguments.rounds
        counted = f"{len(before)}; at least {needed} wanted"
        proof.add("rounds before the failover", len(before) >= needed, counted)
        report = lab.directory / f"failback-{lab.machine}.html"
        lab.failback("report", lab.machine, "--output", str(report))
        self._seconds["all"] = time.monotonic() - self._began
        measured = figures.collect(lab, state, proof, self._seconds)
        if self._arguments.json:
            emit(measured)
        figures.show(self._out, measured)
        self._out.print(f"Report: {escape(short(report))}")
        self._out.print(_verdict_line(proof, self._seconds))
        return 0 if proof.holds else 1

    def _rolled_back(self) -> int:
        """Somebody said abort: then both sides must be as they were."""
        left, power = self.lab.leftovers(), self.lab.guests()["azure"].get("power")
        holds = not left and power == "running"
        self._out.print(
            f"The run was rolled back. Azure's machine: {power}; left over: {left or 'nothing'}."
        )
        if self._arguments.json:
            emit({"holds": holds, "rolled_back": True, "leftovers": left})
        return 0 if holds else 1

    def _invite(self, verb: str, when: str) -> None:
        address = f"TEMPORAL_ADDRESS={self.lab.temporal.address}"
        self._out.print(f"\n{when}, say in a second terminal:\n")
        self._out.print(f"    [bold]{address} {failback_word()} {verb} {self.lab.machine}[/bold]\n")
        others = f"{failback_word()} watch {self.lab.machine}"
        self._out.print(f"[dim]To watch it there: {address} {others}; or in the Web UI.[/dim]\n")

    def say_kept(self) -> None:
        """How to go on with a lab that was kept."""
        path = self.lab.directory / "env.sh"
        path.write_text("\n".join([*shell_exports(self.lab.env), ""]))
        path.chmod(0o600)
        directory = shlex.quote(short(self.lab.directory))
        self._out.print(f"The lab goes on. Point a shell at it: . {directory}/env.sh")
        self._out.print(f"Stop it: {lab_words(self.lab.directory, 'down')}")

    def _timed(self, name: str, work: Any) -> Any:
        began = time.monotonic()
        result = work()
        self._seconds[name] = time.monotonic() - began
        return result


def _console(*, quiet: bool) -> Console:
    return Console(quiet=True) if quiet else console()


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _fresh_directory(directory: Path) -> Path:
    """An empty directory; what an earlier demo left there is ended and removed."""
    directory = directory.resolve()
    if not is_ours(directory):
        raise LabError(f"{directory} holds something that is no demo; choose another --dir.")
    if World.load(directory) is not None:
        Lab(directory).stop()
    shutil.rmtree(directory, ignore_errors=True)
    return directory


def _world(arguments: Namespace) -> World:
    disk: Path | None = arguments.disk
    if disk is not None and not disk.is_file():
        raise LabError(f"There is no file {disk}.")
    if arguments.small:
        return World.small(quick=False)
    return World.demo(disk=disk)


def _disk_words(lab: Lab, disk_id: str) -> str:
    size = lab.azure_disk(disk_id).size
    return f"{disk_id} {size / 2**30:.1f} GiB"


def _ended_rounds(state: Seen) -> list[Seen]:
    return [one for one in state.get("rounds") or [] if one.get("ended_at")]


def _sync_seconds(rounds: int) -> float:
    # More than five rounds in five minutes are more snapshots than Azure allows.
    return PHASE_SECONDS + 60.0 * max(0, rounds - 5)


def _verdict_line(proof: Proof, seconds: dict[str, float]) -> str:
    times = f"{seconds['job']:.0f} s for the job, {seconds['all']:.0f} s in all"
    if proof.holds:
        return f"[bold green]Everything holds.[/bold green] {times}."
    failed = [check.name for check in proof.checks if not check.holds]
    return f"[bold red]{len(failed)} check(s) FAIL:[/bold red] {'; '.join(failed)}. {times}."
