"""One failback as one HTML page, complete in itself: no scripts, nothing loaded from elsewhere,
every value escaped. The page's look is in `templates/report.html`; this computes what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from models.machine import Verdict
from models.spec import FailbackSpec
from models.status import Phase, Round, RunState
from models.units import human_duration, human_size
from starter import render

_TEMPLATES = Path(__file__).parent / "templates"

CHART_WIDTH = 1000
"""Units across the timeline; it scales to the page."""

_MINIMAL_WIDTH = 2
"""A phase of a few milliseconds must still be seen."""

_CUTOVER = (
    "shutting_down",
    "final_sync",
    "verifying",
    "starting",
    "validating",
)
"""Phases in which nobody serves, drawn in the colour of the downtime."""


@dataclass(frozen=True)
class Bar:
    """One bar of the timeline; `x` and `width` in units of the chart."""

    label: str
    title: str
    kind: str
    x: float
    width: float


@dataclass(frozen=True)
class PhaseRow:
    """One phase in the table of phases."""

    name: str
    began: str
    took: str


@dataclass(frozen=True)
class Chart:
    """The timeline: rows of bars over one common stretch of time."""

    began: str
    ended: str
    phases: list[Bar]
    rounds: list[Bar]
    downtime: list[Bar]


def render_report(state: RunState, *, now: datetime) -> str:
    """The page of one run as HTML text. `now` ends what still goes on."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        size=human_size, duration=human_duration, moment=moment, words=render.words
    )
    source, target = render.endpoints(state.spec)
    return environment.get_template("report.html").render(
        state=state,
        spec=state.spec,
        source=source,
        target=target,
        now=now,
        chart=chart(state, now),
        phase_rows=phase_rows(state, now),
        totals=totals(state.rounds),
        roots=state.manifest_roots,
        headline=headline(state),
        tone=tone(state),
        failed_checks=sum(check.verdict is Verdict.FAILED for check in state.checks),
        settings=settings(state.spec),
    )


def moment(at: datetime | None) -> str:
    """A moment in UTC, to the second; reports cross time zones."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at else "–"


def headline(state: RunState) -> str:
    """How it stands, in one sentence."""
    machine = state.spec.machine
    if state.phase is Phase.COMPLETED:
        return f"{machine} is home."
    if state.phase is Phase.ROLLED_BACK:
        return f"The failback of {machine} was rolled back; both sides are as they were."
    if state.blocked:
        return f"The failback of {machine} waits for a person."
    return f"The failback of {machine} goes on: {render.words(state.phase.value)}."


def tone(state: RunState) -> str:
    """`good`, `bad` or `busy`, for the colour of the headline."""
    if state.blocked and not state.phase.ended:
        return "bad"
    return {Phase.COMPLETED: "good", Phase.ROLLED_BACK: "warn"}.get(state.phase, "busy")


def totals(rounds: list[Round]) -> dict[str, float]:
    """Sums over all rounds that are kept: bytes, and blocks for the audit."""
    disks = [disk for done in rounds for disk in done.disks]
    return {
        "read": sum(disk.bytes_read for disk in disks),
        "written": sum(disk.bytes_written for disk in disks),
        "zeroed": sum(disk.bytes_zeroed for disk in disks),
        "equal": sum(disk.bytes_equal for disk in disks),
        "recopied": sum(disk.bytes_recopied for disk in disks),
        "audited": sum(disk.audited_blocks for disk in disks),
    }


def settings(spec: FailbackSpec) -> dict[str, str]:
    """What the operator asked for, in words."""
    sync, commit = spec.sync, spec.commit
    limit = f"{human_size(sync.bandwidth_limit)}/s" if sync.bandwidth_limit else "none"
    return {
        "Sync": f"{sync.mode.value}, every {human_duration(sync.interval)} while ready",
        "Bandwidth limit": limit,
        "Forced power-off allowed": "yes" if spec.shutdown.force else "no",
        "Approvers of commit": str(commit.approvers),
        "Commit deletes the Azure machine": "yes" if commit.delete_azure_vm else "no",
        "Recovery plan": spec.plan or "none",
    }


def phase_rows(state: RunState, now: datetime) -> list[PhaseRow]:
    """When each phase began and how long it took."""
    rows = []
    for phase, began, ended in _spans(state, now):
        took = "" if phase.ended else human_duration((ended - began).total_seconds())
        rows.append(PhaseRow(render.words(phase.value), moment(began), took))
    return rows


def _spans(state: RunState, now: datetime) -> list[tuple[Phase, datetime, datetime]]:
    entries = state.timeline
    ends = [entry.at for entry in entries[1:]]
    if entries:
        last = entries[-1]
        ends.append(last.at if last.phase.ended else max(now, last.at))
    return [(entry.phase, entry.at, end) for entry, end in zip(entries, ends, strict=True)]


def chart(state: RunState, now: datetime) -> Chart | None:
    """The timeline; `None` before the first phase."""
    spans = _spans(state, now)
    if not spans:
        return None
    begin, end = spans[0][1], max(span[2] for span in spans)
    length = max((end - begin).total_seconds(), 0.001)

    def bar(label: str, kind: str, since: datetime, until: datetime) -> Bar:
        # Clocks of different hosts meet here; a bar never leaves the chart.
        left = min(max((since - begin).total_seconds() / length, 0.0), 1.0)
        right = min(max((until - begin).total_seconds() / length, left), 1.0)
        width = max((right - left) * CHART_WIDTH, _MINIMAL_WIDTH)
        took = human_duration(max((until - since).total_seconds(), 0.0))
        x = min(left * CHART_WIDTH, CHART_WIDTH - width)
        return Bar(label, f"{label}: {took}", kind, round(x, 2), round(width, 2))

    phases = [
        bar(render.words(phase.value), _kind(phase), since, until)
        for phase, since, until in spans
        if not phase.ended
    ]
    rounds = [
        bar(
            f"round {done.number}{' (final)' if done.final else ''}",
            "final" if done.final else "round",
            done.started_at,
            done.ended_at or now,
        )
        for done in state.rounds
    ]
    down = state.downtime
    downtime = (
        [bar("downtime", "down", down.began_at, down.ended_at or now)] if down.began_at else []
    )
    return Chart(moment(begin), moment(end), phases, rounds, downtime)


def _kind(phase: Phase) -> str:
    if phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK):
        return "back"
    if phase.value in _CUTOVER:
        return "cutover"
    return "wait" if phase in (Phase.READY, Phase.COMMIT_PENDING) else "work"
