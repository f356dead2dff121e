"""Tables for people: the direction of a failback, checks, lists of runs, what commit deletes,
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
from models.status import Phase
from models.units import human_size
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
    table = Table(title="Preflight", title_justify="left")
    table.add_column("Verdict", no_wrap=True)
    table.add_column("Check", overflow="fold", max_width=36)
    table.add_column("Seen, and what to do", overflow="fold")
    for check in checks:
        name = escape(check.name) + (f"\n[dim]{escape(check.code)}[/dim]" if check.code else "")
        seen = escape(check.seen) + (f"\n→ {escape(check.advice)}" if check.advice else "")
        table.add_row(_VERDICTS[check.verdict], name, seen)
    return table


def checks_summary(checks: Sequence[CheckResult]) -> RenderableType:
    """How many checks hold, and in full only those that do not or that warn."""
    notable = [check for check in checks if check.verdict is not Verdict.PASSED]
    hold = f"[green]{len(checks) - len(notable)} of {len(checks)} checks hold.[/green]"
    return Group(hold, checks_table(notable)) if notable else hold


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
