"""Tables and pages for people: the direction of a failback, checks, lists of runs, one run in full,
leftovers. Takes models, gives what rich prints; no input or output of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from models.calls import DoctorReport
from models.machine import CheckResult, CloudMachine, Leftover, Verdict
from models.spec import FailbackSpec, Location
from models.status import EffectState, Phase, RunState
from models.units import human_duration, human_size
from starter.runs import RunRow

_VERDICTS = {
    Verdict.PASSED: "[green]✔ passed[/green]",
    Verdict.WARNING: "[yellow]! warning[/yellow]",
    Verdict.FAILED: "[bold red]✘ failed[/bold red]",
}


def plain(models: Iterable[BaseModel]) -> list[dict[str, Any]]:
    """Models as JSON values."""
    return [model.model_dump(mode="json", by_alias=True) for model in models]


def local(moment: datetime | None) -> str:
    """A moment in the reader's time zone, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else "–"


def words(name: str) -> str:
    """`final_sync` as people say it."""
    return name.replace("_", " ")


def phase_markup(phase: str) -> str:
    """A phase in its colour."""
    colour = {
        Phase.READY: "cyan",
        Phase.COMMIT_PENDING: "cyan",
        Phase.COMPLETED: "green",
        Phase.ROLLING_BACK: "yellow",
        Phase.ROLLED_BACK: "yellow",
    }.get(Phase(phase) if phase in list(Phase) else Phase.SYNCING, "bold")
    return f"[{colour}]{escape(words(phase))}[/{colour}]"


def endpoints(spec: FailbackSpec) -> tuple[str, str]:
    """Source and target of a failback, in words."""
    azure, home = spec.azure, spec.on_premises
    source = f"{azure.vm} in resource group {azure.resource_group} (Azure)"
    place = "its original place" if home.location is Location.ORIGINAL else "an alternate place"
    created = ", created if missing" if home.creates else ""
    target = f"{spec.on_premises_name} on host {home.host} (Hyper-V), {place}{created}"
    return source, target


def direction(spec: FailbackSpec) -> dict[str, Any]:
    """The direction, source and target of a failback, for JSON (H2)."""
    return {
        "machine": spec.machine,
        "direction": "azure-to-on-premises",
        "source": spec.azure.model_dump(mode="json"),
        "target": {
            "platform": spec.on_premises.platform,
            "host": spec.on_premises.host,
            "vm": spec.on_premises_name,
            "location": spec.on_premises.location.value,
        },
        "mover": spec.mover,
    }


def direction_panel(spec: FailbackSpec) -> Panel:
    """The direction, source and target of a failback (H2)."""
    source, target = endpoints(spec)
    table = Table.grid(padding=(0, 2))
    table.add_row("Direction", "[bold]Azure → on-premises[/bold] (failback)")
    table.add_row("Source", escape(source))
    table.add_row("Target", escape(target))
    table.add_row("Mover", escape(spec.mover))
    return Panel(table, title=f"Failback of {escape(spec.machine)}", title_align="left")


def details_markdown(spec: FailbackSpec, by: str) -> str:
    """What the Web UI shows of a run that does not change."""
    source, target = endpoints(spec)
    rows = {
        "Direction": "Azure → on-premises (failback)",
        "Source": source,
        "Target": target,
        "Mover": spec.mover,
        "Sync": spec.sync.mode.value,
        "Started by": by,
    }
    # A backquote would end the code span that keeps a value from being read as Markdown.
    lines = [f"- **{name}:** `{value.replace('`', '')}`" for name, value in rows.items()]
    return "\n".join(lines)


def checks_table(checks: Sequence[CheckResult]) -> RenderableType:
    """Every preflight check: verdict, what was seen, what to do."""
    table = Table(title="Preflight", title_justify="left", show_lines=False, expand=False)
    table.add_column("Check", overflow="fold")
    table.add_column("Verdict", no_wrap=True)
    table.add_column("Seen", overflow="fold")
    table.add_column("What to do", overflow="fold")
    for check in checks:
        name = escape(check.name) + (f"\n[dim]{escape(check.code)}[/dim]" if check.code else "")
        table.add_row(name, _VERDICTS[check.verdict], escape(check.seen), escape(check.advice))
    return table


def started(spec: FailbackSpec) -> str:
    """What to say after a start."""
    name = escape(spec.machine)
    return (
        f"[green]Started[/green] {escape(spec.workflow_id)}.\n"
        f"Next: [bold]failback watch {name}[/bold]; when it is ready, "
        f"[bold]failback run-failover {name}[/bold]."
    )


def runs_table(rows: Sequence[RunRow], *, everything: bool) -> RenderableType:
    """The list of runs."""
    if not rows:
        return "No failback goes on." + ("" if everything else " `--all` shows those that ended.")
    table = Table()
    for column in ("Machine", "Phase", "Plan", "Platform", "Started"):
        table.add_column(column, overflow="fold")
    if everything:
        table.add_column("Ended")
        table.add_column("Temporal")
    for row in rows:
        cells = [escape(row.machine), phase_markup(row.phase), escape(row.plan)]
        cells += [escape(row.platform), local(row.started_at)]
        table.add_row(*cells, *([local(row.ended_at), row.status] if everything else []))
    return table


def state_page(state: RunState) -> RenderableType:
    """Everything about one run, on one page."""
    parts: list[RenderableType] = [direction_panel(state.spec), summary(state)]
    if state.blocked:
        parts.append(blocked_panel(state))
    parts.append(_timeline(state))
    if state.checks:
        parts.append(checks_table(state.checks))
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
    table.add_row("Phase", phase_markup(state.phase.value) + (" (paused)" if state.paused else ""))
    table.add_row("Run", f"{escape(state.run_id)}, started by {escape(state.started_by)}")
    table.add_row("Downtime", downtime_words(state))
    limit = state.bandwidth_limit
    table.add_row("Bandwidth limit", f"{human_size(limit)}/s" if limit else "none")
    if state.next_round_at and state.phase is Phase.READY:
        table.add_row("Next round", local(state.next_round_at))
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
        said.append(f"since {local(downtime.began_at)}")
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
        f"{escape(blocked.code)} in {escape(blocked.step)}, since {local(blocked.since)}\n"
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
        table.add_row(phase_markup(entry.phase.value), local(entry.at), took)
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
            local(record.at),
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
        kind = words(effect.kind.value)
        table.add_row(escape(effect.name), kind, stands, local(effect.at), style=colour)
    return table


def _audit(state: RunState) -> Table:
    table = Table(title="Who said what", title_justify="left")
    for column in ("At", "By", "What", "Reason"):
        table.add_column(column, overflow="fold")
    for entry in state.audit:
        cells = (local(entry.at), entry.by, entry.what, entry.reason)
        table.add_row(*(escape(cell) for cell in cells))
    return table


def deletions(cloud: CloudMachine | None, spec: FailbackSpec) -> RenderableType:
    """What `commit` deletes for good, by name."""
    if not spec.commit.delete_azure_vm:
        return "Nothing is deleted in Azure but the snapshots of this run."
    lines = [f"virtual machine [bold]{escape(cloud.name if cloud else spec.azure.vm)}[/bold]"]
    if cloud is None:
        lines.append("its disks")
    else:
        lines += [
            f"disk {escape(d.name)} ({escape(d.disk_id)}, {human_size(d.size_bytes)})"
            for d in cloud.disks
        ]
        lines += [
            f"network interface {escape(a.resource_id.rsplit('/', 1)[-1])}"
            for a in cloud.adapters
            if a.delete_option.lower() == "delete"
        ]
    text = "\n".join(f"  • {line}" for line in lines)
    return Panel(
        text, title="Commit deletes in Azure, for good", title_align="left", border_style="red"
    )


def doctor_table(report: DoctorReport) -> RenderableType:
    """What runs left behind."""
    parts: list[RenderableType] = []
    if report.leftovers:
        table = Table(title="Left behind", title_justify="left")
        for column in ("Kind", "Name", "Where", "Run", "Machine", ""):
            table.add_column(column, overflow="fold")
        removed = {_key(item) for item in report.removed}
        for item in report.leftovers:
            gone = "[green]removed[/green]" if _key(item) in removed else ""
            cells = (item.kind, item.name, item.place, item.run_id, item.machine)
            table.add_row(*(escape(cell) for cell in cells), gone)
        parts.append(table)
    else:
        parts.append("[green]Nothing was left behind.[/green]")
    parts += [Text(f"Not looked at: {problem}", style="yellow") for problem in report.problems]
    return Group(*parts)


def _key(item: Leftover) -> tuple[str, str, str]:
    return item.kind, item.place, item.name
