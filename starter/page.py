"""One run in full, on one page for a terminal: where it stands, its phases, rounds, proofs, effects
and who said what. The pieces are also used by the live view."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from models.status import EffectState, Phase, RunState
from models.units import human_duration, human_size
from starter import render


def state_page(state: RunState) -> RenderableType:
    """Everything about one run, on one page."""
    parts: list[RenderableType] = [render.direction_panel(state.spec), summary(state)]
    if state.blocked:
        parts.append(blocked_panel(state))
    parts.append(_timeline(state))
    if state.checks:
        parts.append(render.checks_summary(state.checks))
    if state.rounds:
        parts.append(rounds_table(state))
    if state.health:
        parts.append(_health(state))
    if state.verifications:
        parts.append(verifications_table(state))
    if state.effects:
        parts.append(_effects(state))
    if state.audit:
        parts.append(_audit(state))
    return Group(*parts)


def summary(state: RunState) -> RenderableType:
    """Where a run stands, in a few lines."""
    table = Table.grid(padding=(0, 2))
    table.add_row(
        "Phase", render.phase_markup(state.phase.value) + (" (paused)" if state.paused else "")
    )
    table.add_row("Run", f"{escape(state.run_id)}, started by {escape(state.started_by)}")
    table.add_row("Downtime", downtime_words(state))
    limit = state.bandwidth_limit
    table.add_row("Bandwidth limit", f"{human_size(limit)}/s" if limit else "none")
    if state.next_round_at and state.phase is Phase.READY:
        table.add_row("Next round", render.local(state.next_round_at))
    for disk, root in state.manifest_roots.items():
        table.add_row(f"Manifest root {escape(disk)}", escape(root))
    if state.waiting:
        table.add_row("Waits for", escape(state.waiting))
    if state.approvals:
        table.add_row("Approved by", escape(", ".join(state.approvals)))
    if state.result:
        table.add_row("Result", escape(state.result))
    table.add_row("You may say", escape(", ".join(commands(state))) or "nothing any more")
    return table


def downtime_words(state: RunState) -> str:
    """Predicted and measured downtime."""
    downtime = state.downtime
    said = []
    if downtime.predicted_seconds is not None:
        said.append(f"predicted {human_duration(downtime.predicted_seconds)}")
    if downtime.seconds is not None:
        said.append(f"measured {human_duration(downtime.seconds)}")
    elif downtime.began_at is not None:
        said.append(f"since {render.local(downtime.began_at)}")
    return ", ".join(said) or "not known before the first delta round"


def commands(state: RunState) -> list[str]:
    """The commands that a run accepts now."""
    named = {"run_failover": "run-failover", "set_limits": "limit"}
    return [named.get(message, message) for message in state.allowed_messages]


def choice_commands(state: RunState) -> list[str]:
    """The command lines for what a person may say to a blocked run."""
    lines = []
    for choice in state.blocked.choices if state.blocked else []:
        # A choice reads like `commit with override`; the field's name is the option's name.
        command, _, field = choice.partition(" with ")
        if command == "abort" and state.booted:
            field = "discard_onprem_changes"
        option = f" --{field.replace('_', '-')}" if field else ""
        lines.append(f"failback {command} {state.spec.machine}{option}")
    return lines


def blocked_panel(state: RunState) -> Panel:
    """Why a run waits for a person, and what they may say."""
    assert state.blocked is not None
    blocked = state.blocked
    choices = "\n".join(f"  [bold]{escape(choice)}[/bold]" for choice in choice_commands(state))
    return Panel(
        f"{escape(blocked.code)} in {escape(blocked.step)}, since {render.local(blocked.since)}\n"
        f"{escape(blocked.message)}\n\nSay one of:\n{choices}",
        title="Blocked: waits for a person",
        title_align="left",
        border_style="red",
    )


def _timeline(state: RunState) -> Table:
    table = Table(title="Phases", title_justify="left")
    for column in ("Phase", "Began", "Took"):
        table.add_column(column)
    entries = state.timeline
    for entry, following in zip(entries, [*entries[1:], None], strict=True):
        took = human_duration((following.at - entry.at).total_seconds()) if following else ""
        table.add_row(render.phase_markup(entry.phase.value), render.local(entry.at), took)
    return table


def rounds_table(state: RunState, *, newest: int = 10) -> Table:
    """The newest rounds, disk by disk."""
    table = Table(title="Rounds", title_justify="left")
    for column in ("Round", "Disk", "Method"):
        table.add_column(column, overflow="fold")
    for column in ("Read", "Written", "Zeroed", "Took"):
        table.add_column(column, justify="right")
    table.add_column("Verified")
    for done in state.rounds[-newest:]:
        for disk in done.disks:
            method = escape(disk.method)
            if disk.fallback:
                method += f"\n[yellow]{escape(disk.fallback)}[/yellow]"
            table.add_row(
                f"{done.number}{' (final)' if done.final else ''}",
                escape(disk.disk_id),
                method,
                human_size(disk.bytes_read),
                human_size(disk.bytes_written),
                human_size(disk.bytes_zeroed),
                human_duration(disk.seconds),
                "✔" if disk.verified else "",
            )
    return table


def verifications_table(state: RunState) -> Table:
    """Full verifications that were asked for."""
    table = Table(title="Full verifications", title_justify="left")
    for column in ("At", "Disk", "Outcome", "Read", "Manifest root"):
        table.add_column(column, overflow="fold")
    for record in state.verifications:
        verdict = "[green]equal[/green]" if record.equal else "[bold red]different[/bold red]"
        detail = f" {escape(record.detail)}" if record.detail else ""
        table.add_row(
            render.local(record.at),
            escape(record.disk_id),
            verdict + detail,
            human_size(record.bytes_read),
            escape(record.manifest_root),
        )
    return table


def _health(state: RunState) -> Table:
    table = Table(title="Health after boot", title_justify="left")
    for column in ("Check", "Outcome", "Detail"):
        table.add_column(column, overflow="fold")
    for result in state.health:
        verdict = "[green]✔[/green]" if result.healthy else "[bold red]✘[/bold red]"
        table.add_row(escape(result.check), verdict, escape(result.detail))
    return table


def _effects(state: RunState) -> Table:
    table = Table(title="What the run changed", title_justify="left")
    for column in ("Effect", "Kind", "State", "At"):
        table.add_column(column, overflow="fold")
    for effect in state.effects:
        colour = "dim" if effect.state is EffectState.UNDONE else "default"
        stands = escape(effect.state.value)
        if effect.problem:
            stands += f"\n[red]{escape(effect.problem)}[/red]"
        kind = render.words(effect.kind.value)
        table.add_row(escape(effect.name), kind, stands, render.local(effect.at), style=colour)
    return table


def _audit(state: RunState) -> Table:
    table = Table(title="Who said what", title_justify="left")
    for column in ("At", "By", "What", "Reason"):
        table.add_column(column, overflow="fold")
    for entry in state.audit:
        cells = (render.local(entry.at), entry.by, entry.what, entry.reason)
        table.add_row(*(escape(cell) for cell in cells))
    return table
