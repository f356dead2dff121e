"""What ``failback lab`` shows of a lab: facts first (for ``--json``), then tables of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.markup import escape

from lab.stack.lab import Lab
from lab.stack.supervisor import NAMES
from lab.stack.terminal import failback_word, human_size, lab_words, say, short, table


def welcome(lab: Lab, seconds: float) -> None:
    """What runs where, and what to try."""
    word = failback_word()
    spec, environment = short(lab.spec_file), short(lab.directory / "env.sh")
    name = lab.machine

    def words(*command: str) -> str:
        return escape(lab_words(lab.directory, *command))

    say(f"[bold green]The lab is up[/bold green] after {seconds:.1f} s: {', '.join(lab.running())}")
    say(
        f"  Temporal's Web UI   [bold]{lab.temporal.web_ui}[/bold]",
        f"  Spec of {name:<12}{escape(spec)}",
        f"  Workers' settings   {escape(short(lab.config_file))}",
        "",
        "In a shell of your own:",
        f"  . {environment}",
        f"  {word} check {spec}",
        f"  {word} start {spec}",
        f"  {word} watch {name}",
        f"  {word} run-failover {name}",
        f"  {word} commit {name}",
        "",
        "Make trouble meanwhile:",
        f"  {words('kill', 'mover')}",
        f"  {words('restart', 'mover')}",
        f"  {words('misbehave', 'GET blob', 'revoke_sas', '--times', '1')}",
        f"  {words('guest')}",
        "",
        f"Stop: {words('down')}",
    )


def status(lab: Lab) -> dict[str, Any]:
    """Processes and addresses."""
    running = lab.running()
    ports = lab.ports
    where = {
        "temporal": lab.temporal.address,
        "azure": f"https://127.0.0.1:{ports['azure-arm']}",
        "hyperv": f"https://127.0.0.1:{ports['hyperv-https']}/wsman",
    }
    processes = {
        name: {
            "running": name in running,
            "pid": running.get(name),
            "address": where.get(name, ""),
            "peak_memory_bytes": lab.peak_memory_bytes(name),
            "log": str(lab.log_file(name)),
        }
        for name in NAMES
    }
    return {
        "directory": str(lab.directory),
        "web_ui": lab.temporal.web_ui,
        "temporal_http": lab.temporal.http,
        "spec": str(lab.spec_file),
        "processes": processes,
        "rules": len(lab.rules()),
    }


def status_table(facts: dict[str, Any]) -> None:
    """The same for people."""
    rows = table("process", "state", "address", "peak memory", "log")
    for name, one in facts["processes"].items():
        state = f"[green]runs[/green] as {one['pid']}" if one["running"] else "[red]down[/red]"
        peak = one["peak_memory_bytes"]
        log = escape(short(Path(one["log"])))
        rows.add_row(name, state, one["address"], human_size(peak) if peak else "", log)
    say(rows, "", f"Web UI {facts['web_ui']}", f"Spec   {escape(facts['spec'])}")
    if facts["rules"]:
        listed = lab_words(Path(facts["directory"]), "rules")
        say(f"{facts['rules']} rule(s) of misbehaviour in force: {escape(listed)}")


def world(lab: Lab) -> dict[str, Any]:
    """Machines, disks and switches on both sides, from the emulators' states on disk."""
    state = json.loads((lab.directory / "azure.state.json").read_text())
    resources = list(state["resources"].values())
    host = json.loads((lab.directory / "hyperv-state.json").read_text())
    return {
        "azure": {
            "machines": [
                _azure_machine(r) for r in resources if r["type"].endswith("/virtualMachines")
            ],
            "snapshots": [r["name"] for r in resources if r["type"].endswith("/snapshots")],
        },
        "hyperv": {
            "host": host["name"],
            "switches": [switch["name"] for switch in host["switches"]],
            "machines": [_host_machine(machine) for machine in host["machines"]],
        },
    }


def _azure_machine(resource: dict[str, Any]) -> dict[str, Any]:
    storage = resource["body"]["properties"].get("storageProfile") or {}
    disks = {"os": storage["osDisk"]} if storage.get("osDisk") else {}
    disks |= {f"lun{disk['lun']}": disk for disk in storage.get("dataDisks") or []}
    return {
        "name": resource["name"],
        "power": resource["lab"]["power"],
        "disks": {disk_id: disk["name"] for disk_id, disk in disks.items()},
    }


def _host_machine(machine: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": machine["name"],
        "state": machine["state"],
        "generation": machine["generation"],
        "mover": machine["mover"],
        "disks": [drive["path"] for drive in machine["drives"]],
        "adapters": {one["name"]: one["switch"] for one in machine["adapters"]},
        "checkpoints": [one["name"] for one in machine["checkpoints"]],
    }


def world_tables(facts: dict[str, Any]) -> None:
    """The same for people."""
    azure, host = facts["azure"], facts["hyperv"]
    rows = table("Azure machine", "power", "disks")
    for machine in azure["machines"]:
        disks = ", ".join(f"{disk_id}: {name}" for disk_id, name in machine["disks"].items())
        rows.add_row(machine["name"], machine["power"], disks)
    say(rows, f"Snapshots: {', '.join(azure['snapshots']) or 'none'}", "")
    rows = table(f"machine on {host['host']}", "state", "disks", "switch", "checkpoints")
    for machine in host["machines"]:
        rows.add_row(
            machine["name"] + (" (mover)" if machine["mover"] else ""),
            machine["state"],
            escape("\n".join(machine["disks"])),
            ", ".join(str(switch) for switch in machine["adapters"].values()),
            ", ".join(machine["checkpoints"]),
        )
    say(rows, f"Switches: {', '.join(host['switches'])}")


def guest_table(facts: dict[str, Any]) -> None:
    """Both sides of the guest."""
    rows = table("side", "power", "heartbeat", "acknowledged records", "newest", "last write")
    for side, said in facts["guests"].items():
        kept = facts["acknowledged"][side]
        newest = kept["last"]["sequence"] if kept["last"] else ""
        power, heartbeat = str(said.get("power", "")), str(said.get("heartbeat", ""))
        rows.add_row(
            side,
            power,
            heartbeat,
            str(kept["records"]),
            str(newest),
            str(said.get("last_write") or ""),
        )
    say(rows)
    for side, said in facts["guests"].items():
        if said.get("error"):
            say(f"{side}: {escape(str(said['error']))}")


def rules_table(listed: dict[str, dict[str, Any]]) -> None:
    """The rules in force."""
    if not listed:
        say("No rule is in force: everything behaves.")
        return
    rows = table("rule", "operation", "action", "more", "matched")
    for rule_id, rule in listed.items():
        more = {k: v for k, v in rule.items() if k not in ("operation", "action", "matched")}
        words = ", ".join(f"{name} {value}" for name, value in more.items())
        matched = str(rule["matched"])
        rows.add_row(rule_id, escape(rule["operation"]), rule["action"], escape(words), matched)
    say(rows)
