"""The run as Markdown, for the Web UI. Texts that come from outside stand in fenced blocks."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from models.status import Round, RunState
    from models.units import human_duration, human_size

# The Web UI's limit is 20 000 characters; a page a person reads is far below it.
_ROUNDS_SHOWN = 10
_AUDIT_SHOWN = 15
_LIMIT = 19_000


def markdown(state: RunState) -> str:
    """A page about the run: phase, what to say next, rounds, effects, who said what."""
    parts = [_headline(state), _blocked(state), _rounds(state), _audit(state)]
    return "\n\n".join(part for part in parts if part)[:_LIMIT]


def _headline(state: RunState) -> str:
    azure, target = state.spec.azure, state.spec.on_premises
    lines = [
        f"**{state.phase.value}**, Azure `{azure.resource_group}/{azure.vm}` to "
        f"{target.platform} `{target.host}/{state.spec.on_premises_name}`",
    ]
    if state.waiting:
        lines.append(f"Waits for: {state.waiting}")
    if state.paused:
        lines.append("Paused: `resume` goes on.")
    downtime = state.downtime
    if downtime.seconds is not None:
        lines.append(f"Downtime: {human_duration(downtime.seconds)}")
    elif downtime.predicted_seconds is not None:
        lines.append(f"Predicted downtime: {human_duration(downtime.predicted_seconds)}")
    if state.result:
        lines.append(state.result)
    if state.allowed_messages:
        lines.append("You may say: " + ", ".join(f"`{m}`" for m in state.allowed_messages))
    return "\n\n".join(lines)


def _blocked(state: RunState) -> str:
    if state.blocked is None:
        return ""
    fenced = state.blocked.message.replace("```", "'''")
    return (
        f"### Blocked: {state.blocked.code} at {state.blocked.step}\n\n```\n{fenced}\n```\n\n"
        f"Choices: {', '.join(state.blocked.choices)}"
    )


def _rounds(state: RunState) -> str:
    if not state.rounds:
        return ""
    rows = [_round_row(done) for done in state.rounds[-_ROUNDS_SHOWN:]]
    return "\n".join(
        ["| round | method | read | changed | seconds |", "|---|---|---|---|---|", *rows]
    )


def _round_row(done: Round) -> str:
    methods = ", ".join(
        f"{d.disk_id}: {d.method}{' (' + d.fallback + ')' if d.fallback else ''}"
        for d in done.disks
    )
    seconds = (
        f"{(done.ended_at - done.started_at).total_seconds():.1f}" if done.ended_at else "runs"
    )
    return (
        f"| {done.number}{' (final)' if done.final else ''} | {methods} "
        f"| {human_size(done.bytes_read)} | {human_size(done.bytes_changed)} | {seconds} |"
    )


def _audit(state: RunState) -> str:
    if not state.audit:
        return ""
    rows = [
        f"- {entry.at:%Y-%m-%d %H:%M:%S} UTC, {entry.by}: {entry.what}"
        + (f" ({entry.reason[:200]})" if entry.reason else "")
        for entry in state.audit[-_AUDIT_SHOWN:]
    ]
    return "\n".join(["### Who said what", *rows]).replace("```", "'''")
