"""Follows a run on the screen: a line for every phase and round, and, on a terminal, bars below."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lab.stack.errors import LabError
from lab.stack.lab import Lab, RunStuckError
from lab.stack.terminal import human_size

_LOOK_SECONDS = 0.2
_PATIENCE_SECONDS = 30.0
"""How long the run may be out of reach, as when somebody kills its worker to see what happens."""
_ENDED = ("completed", "rolled_back")

Seen = dict[str, Any]


class Watch:
    """One run, from its start to its end."""

    def __init__(self, lab: Lab, console: Console, began: float) -> None:
        """``began`` is the moment, on the monotonic clock, that times on the screen count from."""
        self._lab = lab
        self._console = console
        self._began = began
        self._phase = ""
        self._rounds = 0
        self._blocked = ""

    def say(self, line: str) -> None:
        """A line with the time in front of it. Rich markup."""
        self._console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/dim]  {line}")

    def until(
        self, reached: Callable[[Seen], bool], what: str, *, timeout: float | None, patient: bool
    ) -> Seen:
        """Follow the run until ``reached`` says so of its status; returns that.

        Args:
            reached: Also asked after the run has ended.
            what: What is waited for, as the end of an error message.
            timeout: Seconds; None waits for ever.
            patient: Wait also while the run is blocked: somebody is there to help it.

        Raises:
            LabError: the time is over, the run ended otherwise, or (not ``patient``) it is blocked.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        heard = time.monotonic()
        with Live(console=self._console, refresh_per_second=8, transient=True) as live:
            while True:
                try:
                    state, copies = self._lab.status(), self._lab.copies()
                    heard = time.monotonic()
                except LabError as error:
                    if time.monotonic() - heard > _PATIENCE_SECONDS and not patient:
                        raise LabError(f"The run cannot be asked any more: {error}") from error
                    live.update(Text("The run cannot be asked just now …"))
                else:
                    self._tell(state)
                    if self._console.is_terminal:
                        live.update(self._page(state, copies))
                    if reached(state):
                        return state
                    self._refuse(state, what, patient=patient)
                if deadline is not None and time.monotonic() > deadline:
                    raise LabError(f"{timeout:.0f} s were not enough until {what}.")
                time.sleep(_LOOK_SECONDS)

    def _refuse(self, state: Seen, what: str, *, patient: bool) -> None:
        if state["phase"] in _ENDED:
            raise LabError(f"The run ended as {state['phase']} before {what}.")
        blocked = state.get("blocked")
        if blocked and not patient:
            raise RunStuckError(
                f"The run is blocked before {what}: {blocked['step']}: {blocked['code']} "
                f"{blocked['message']}"
            )

    def _tell(self, state: Seen) -> None:
        done = [one for one in state.get("rounds") or [] if one.get("ended_at")]
        for one in done[self._rounds :]:
            self.say(round_line(one))
        self._rounds = max(self._rounds, len(done))
        if state["phase"] != self._phase:
            self._phase = state["phase"]
            self.say(f"[bold]{self._phase}[/bold]{_explained(state)}")
        blocked = state.get("blocked") or {}
        words = f"{blocked.get('step')}: {blocked.get('code')} {blocked.get('message')}"
        if blocked and words != self._blocked:
            self._blocked = words
            self.say(f"[red]blocked[/red] at {escape(words)} (retry or abort)")

    def _page(self, state: Seen, copies: list[dict[str, Any]]) -> RenderableType:
        """What moves: the copies, and the guest."""
        bars = Table.grid(padding=(0, 2))
        for copy in copies:
            total = copy.get("bytes_total") or 1
            bar = ProgressBar(total=total, completed=copy.get("bytes_done") or 0, width=40)
            rate = f"{human_size(copy.get('rate') or 0)}/s"
            what = f"{copy.get('disk_id')}, {copy.get('stage')} by {copy.get('method') or '…'}"
            bars.add_row(f"  {what}", bar, rate)
        waiting = Text(f"  {state.get('waiting') or state['phase']}", style="dim")
        return Group(bars, waiting, Text(self._guest_line(), style="dim"))

    def _guest_line(self) -> str:
        try:
            guests = self._lab.guests()
        except LabError:
            return ""
        words = []
        for side, said in guests.items():
            if said.get("sequence"):
                words.append(f"{side}: {said['heartbeat']}, record {said['sequence']}")
        return "  guest " + "; ".join(words) if words else ""


def round_line(one: Seen) -> str:
    """A round in a line."""
    disks = one.get("disks") or []
    total = {
        name: sum(disk.get(name) or 0 for disk in disks)
        for name in ("bytes_read", "bytes_written", "bytes_zeroed")
    }
    methods = ", ".join(f"{disk['disk_id']} by {disk['method']}" for disk in disks)
    changed = human_size(total["bytes_written"] + total["bytes_zeroed"])
    last = " (last, machine stopped)" if one.get("final") else ""
    return (
        f"round {one['number']}{last}: {human_size(total['bytes_read'])} read, {changed} changed "
        f"[dim]({methods})[/dim]"
    )


def _explained(state: Seen) -> str:
    words = {
        "ready": "the disks are in step; rounds go on",
        "shutting_down": "the downtime begins",
        "final_sync": "the last delta, from the stopped machine",
        "verifying": "what the last round wrote is read back",
        "validating": "health of the machine on-premises",
        "commit_pending": "the machine runs on-premises; Azure's is stopped and still there",
        "committing": "Azure's machine and disks go",
    }
    said = words.get(state["phase"], "")
    return f"  [dim]{said}[/dim]" if said else ""
