"""The demo's figures: one document for programs, one page for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape

from lab.demo.proof import Proof
from lab.stack.lab import Lab
from lab.stack.terminal import human_size, table


def collect(lab: Lab, state: dict[str, Any], proof: Proof, seconds: dict[str, float]) -> Any:
    """Everything that was measured, as one document. Sizes are bytes."""
    rounds = [_round(one) for one in state.get("rounds") or []]
    verdict = proof.verdict
    assert verdict is not None
    kept = lab.evidence.acknowledged(lab.machine)
    return {
        "holds": proof.holds,
        "machine": lab.machine,
        "directory": str(lab.directory),
        "web_ui": lab.temporal.web_ui,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "rounds": rounds,
        "bytes_moved": sum(one["bytes_read"] for one in rounds),
        "bytes_changed": sum(one["bytes_changed"] for one in rounds),
        "downtime_seconds": verdict.downtime,
        "last_write_in_azure": verdict.last_azure_write,
        "first_write_on_premises": verdict.first_onprem_write,
        "manifest_roots": _manifest_roots(state),
        "disk_digests": proof.digests,
        "mover_peak_bytes": lab.peak_memory_bytes("mover"),
        "records": {
            "acknowledged_in_azure": kept["azure"]["records"],
            "acknowledged_on_premises": kept["onprem"]["records"],
            "read_back": verdict.checked,
            "overwritten_since": verdict.overwritten,
            "missing": verdict.missing,
            "corrupt": verdict.corrupt,
        },
        "checks": [vars(check) for check in proof.checks],
    }


def _round(one: dict[str, Any]) -> dict[str, Any]:
    disks = one.get("disks") or []
    return {
        "number": one["number"],
        "final": one.get("final", False),
        "methods": {disk["disk_id"]: disk["method"] for disk in disks},
        "bytes_read": sum(disk["bytes_read"] for disk in disks),
        "bytes_changed": sum(disk["bytes_written"] + disk["bytes_zeroed"] for disk in disks),
        "bytes_equal": sum(disk["bytes_equal"] for disk in disks),
        "seconds": round(max((disk["seconds"] for disk in disks), default=0.0), 2),
        "verified": all(disk["verified"] for disk in disks),
    }


def _manifest_roots(state: dict[str, Any]) -> dict[str, str]:
    roots: dict[str, str] = {}
    for one in state.get("rounds") or []:
        for disk in one.get("disks") or []:
            if disk.get("manifest_root"):
                roots[disk["disk_id"]] = disk["manifest_root"]
    return roots


def show(console: Console, figures: Any) -> None:
    """The page for people."""
    rows = table("round", "methods", "read from Azure", "changed", "time", "verified")
    for one in figures["rounds"]:
        rows.add_row(
            f"{one['number']}{' (last)' if one['final'] else ''}",
            ", ".join(f"{disk_id}: {method}" for disk_id, method in one["methods"].items()),
            human_size(one["bytes_read"]),
            human_size(one["bytes_changed"]),
            f"{one['seconds']:.1f} s",
            "yes" if one["verified"] else "no",
        )
    console.print()
    console.print(rows)
    _facts(console, figures)
    console.print()
    marks = {True: "[green]holds[/green]", False: "[bold red]FAILS[/bold red]"}
    for check in figures["checks"]:
        seen = escape(check["seen"])
        console.print(f"  {marks[check['holds']]}  {check['name']}  [dim]{seen}[/dim]")
    console.print()


def _facts(console: Console, figures: Any) -> None:
    records, downtime = figures["records"], figures["downtime_seconds"]
    peak = figures["mover_peak_bytes"]
    lines = {
        "Bytes moved": f"{human_size(figures['bytes_moved'])} read from Azure, "
        f"{human_size(figures['bytes_changed'])} of them differed and were written",
        "Downtime": "not measured"
        if downtime is None
        else f"{downtime:.1f} s, from the guest's last acknowledged write in Azure to its first "
        "on-premises",
        "Records": f"{records['acknowledged_in_azure']} acknowledged in Azure, "
        f"{records['acknowledged_on_premises']} on-premises so far; "
        f"{len(records['missing'])} missing, {len(records['corrupt'])} corrupt",
        "Mover's memory": f"{human_size(peak)} at its peak" if peak else "not measured",
    }
    for disk_id, root in figures["manifest_roots"].items():
        lines[f"Manifest root of {disk_id}"] = root
    lines["Web UI"] = figures["web_ui"]
    console.print()
    for name, value in lines.items():
        console.print(f"  {name:<22}  {escape(value)}")
