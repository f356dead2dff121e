"""The live view of one run: phases, a progress bar per disk, rates, predicted downtime, what blocks
it and what may be said. One observation in, one picture (or line, or JSON value) out."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from models.status import DiskProgress, Phase, RunState
from models.units import human_duration, human_size
from starter import page, render
from starter.runs import Observation

_PATH = [phase for phase in Phase if phase not in (Phase.ROLLING_BACK, Phase.ROLLED_BACK)]


def picture(seen: Observation) -> RenderableType:
    """What `watch` shows on a terminal."""
    state = seen.state
    if state is None:
        return Text(seen.problem or "Waiting for the first answer …", style="yellow")
    spec = state.spec
    source, target = render.endpoints(spec)
    header = Table.grid(padding=(0, 2))
    header.add_row("From", escape(source))
    header.add_row("To", escape(target))
    header.add_row("Phases", _path(state))
    header.add_row("Round", _round(state))
    header.add_row("Downtime", page.downtime_words(state))
    if state.bandwidth_limit:
        header.add_row("Limit", f"{human_size(state.bandwidth_limit)}/s")
    if state.waiting:
        header.add_row("Waits for", escape(state.waiting))
    parts: list[RenderableType] = [header]
    if seen.progress:
        parts.append(_bars(seen.progress))
    if state.blocked:
        parts.append(page.blocked_panel(state))
    if seen.problem:
        parts.append(Text(f"Not answering now: {seen.problem}", style="yellow"))
    allowed = ", ".join(page.commands(state))
    parts.append(Text(f"You may say: {allowed}" if allowed else "The run is over.", style="dim"))
    title = f"Failback of {escape(spec.machine)}"
    return Panel(Group(*parts), title=title, title_align="left", border_style="cyan")


def _path(state: RunState) -> Text:
    text = Text()
    passed = [entry.phase for entry in state.timeline]
    # Reverse replication is passed by where it is not wanted; a run that turned back shows its way.
    turned_back = state.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK)
    shown = list(dict.fromkeys([*passed, state.phase])) if turned_back else _PATH
    for index, phase in enumerate(shown):
        if index:
            text.append(" › ", style="dim")
        if phase is state.phase:
            text.append(render.words(phase.value), style="bold reverse")
        else:
            text.append(render.words(phase.value), style="green" if phase in passed else "dim")
    if state.paused:
        text.append("  (paused)", style="yellow")
    return text


def _round(state: RunState) -> str:
    running = [done for done in state.rounds if not done.ended_at]
    said = [f"{running[-1].number} runs" if running else f"{state.round_number} done"]
    finished = [done for done in state.rounds if done.ended_at]
    if finished:
        last = finished[-1]
        assert last.ended_at is not None
        took = human_duration((last.ended_at - last.started_at).total_seconds())
        read, changed = human_size(last.bytes_read), human_size(last.bytes_changed)
        said.append(f"last one read {read}, changed {changed}, took {took}")
    if state.next_round_at and state.phase is Phase.READY:
        said.append(f"next at {render.local(state.next_round_at)}")
    return "; ".join(said)


def _bars(progress: list[DiskProgress]) -> Table:
    table = Table.grid(padding=(0, 2))
    for disk in progress:
        share = disk.bytes_done / disk.bytes_total if disk.bytes_total else 0.0
        table.add_row(
            escape(disk.disk_id),
            escape(disk.stage),
            ProgressBar(total=max(disk.bytes_total, 1), completed=disk.bytes_done, width=30),
            f"{share:4.0%}",
            f"{human_size(disk.bytes_done)} of {human_size(disk.bytes_total)}",
            "paused" if disk.paused else f"{human_size(disk.rate)}/s",
        )
    return table


def line(seen: Observation) -> str:
    """One observation as one plain line, for logs. Equal lines mean that nothing happened."""
    state = seen.state
    if state is None:
        return seen.problem or "waiting for the first answer"
    said = [f"{state.spec.machine}: {render.words(state.phase.value)}"]
    if state.rounds:
        newest = state.rounds[-1]
        said.append(f"round {newest.number}{'' if newest.ended_at else ' runs'}")
    for disk in seen.progress:
        share = disk.bytes_done / disk.bytes_total if disk.bytes_total else 0.0
        # Whole tenths only, or a long copy would write a line every second.
        said.append(f"{disk.disk_id} {disk.stage} {int(share * 10) * 10}%".replace("  ", " "))
    if state.downtime.seconds is not None:
        said.append(f"downtime {human_duration(state.downtime.seconds)}")
    elif state.downtime.predicted_seconds is not None:
        said.append(f"downtime predicted {human_duration(state.downtime.predicted_seconds)}")
    if state.paused:
        said.append("paused")
    if state.blocked:
        said.append(f"BLOCKED {state.blocked.code}: {state.blocked.message}")
    if seen.problem:
        said.append(f"not answering: {seen.problem}")
    return ", ".join(said)


def document(seen: Observation) -> dict[str, Any]:
    """One observation for programs, without the time it was made, so that equal means unchanged."""
    state = seen.state
    progress = [disk.model_dump(mode="json") for disk in seen.progress]
    found: dict[str, Any] = {"status": seen.status, "problem": seen.problem, "progress": progress}
    if state is None:
        return found
    newest = state.rounds[-1].model_dump(mode="json") if state.rounds else None
    return {
        **render.direction(state.spec),
        **found,
        "phase": state.phase.value,
        "round": state.round_number,
        "last_round": newest,
        "paused": state.paused,
        "bandwidth_limit": state.bandwidth_limit,
        "waiting": state.waiting,
        "next_round_at": state.next_round_at.isoformat() if state.next_round_at else None,
        "downtime": {
            "predicted_seconds": state.downtime.predicted_seconds,
            "measured_seconds": state.downtime.seconds,
        },
        "blocked": state.blocked.model_dump(mode="json") if state.blocked else None,
        "allowed_messages": state.allowed_messages,
        "manifest_roots": state.manifest_roots,
        "result": state.result,
    }
