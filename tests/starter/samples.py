"""A run's state with something in every field, hostile text included."""

from datetime import UTC, datetime, timedelta

from models.machine import CheckResult, CloudAdapter, CloudDisk, CloudMachine, Verdict
from models.spec import parse_spec
from models.status import (
    AuditEntry,
    Blocked,
    DiskRound,
    Downtime,
    Effect,
    EffectKind,
    EffectState,
    HealthResult,
    Phase,
    PhaseEntry,
    Round,
    RunState,
    VerificationRecord,
)
from tests.starter.conftest import spec_text

BEGIN = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)
HOSTILE = "</td><script>alert('x')</script>[bold]&amp;"
GIB = 2**30


def at(seconds: float) -> datetime:
    """A moment after the beginning."""
    return BEGIN + timedelta(seconds=seconds)


def timeline(*phases: Phase) -> list[PhaseEntry]:
    """A phase every minute."""
    return [PhaseEntry(phase=phase, at=at(60 * i)) for i, phase in enumerate(phases)]


def finished(number: int, *, final: bool = False) -> Round:
    """A round that took half a minute."""
    disk = DiskRound(
        disk_id="os",
        round=number,
        method="compare",
        fallback=HOSTILE if number == 1 else "",
        bytes_read=GIB,
        bytes_written=GIB // 2,
        bytes_zeroed=GIB // 4,
        seconds=30,
        manifest_root=f"root-{number}",
        verified=final,
    )
    return Round(
        number=number,
        started_at=at(60 * number),
        ended_at=at(60 * number + 30),
        final=final,
        disks=[disk],
    )


def cloud() -> CloudMachine:
    """The Azure machine; one of its adapters goes with it."""
    return CloudMachine(
        name="vm-1",
        resource_id="/vms/vm-1",
        location="westeurope",
        vm_id="v",
        generation=2,
        power_state="running",
        disks=[
            CloudDisk(disk_id="os", name="disk-os", resource_id="/d", unique_id="u", size_bytes=GIB)
        ],
        adapters=[
            CloudAdapter(resource_id="/nics/nic-goes", delete_option="Delete"),
            CloudAdapter(resource_id="/nics/nic-stays"),
        ],
    )


def run_state(phase: Phase = Phase.COMPLETED) -> RunState:
    """A run that has seen everything."""
    return RunState(
        spec=parse_spec(spec_text("app01", plan="shop")),
        run_id="abc123",
        started_by=HOSTILE,
        phase=phase,
        timeline=timeline(Phase.PREFLIGHT, Phase.SYNCING, Phase.READY, Phase.SHUTTING_DOWN, phase),
        checks=[
            CheckResult(name="good", verdict=Verdict.PASSED, seen="as it should be"),
            CheckResult(
                name="bad", verdict=Verdict.FAILED, code="FB-CHK-X", seen=HOSTILE, advice="mend"
            ),
        ],
        cloud=cloud(),
        effects=[
            Effect(
                name="fb-abc123-r1-os",
                kind=EffectKind.SNAPSHOT,
                state=EffectState.DONE,
                at=BEGIN,
                problem=HOSTILE,
            )
        ],
        audit=[AuditEntry(at=BEGIN, by=HOSTILE, what="commit", reason=HOSTILE, request_id="r")],
        rounds=[finished(1), finished(2, final=True)],
        round_number=2,
        blocked=Blocked(
            code="FB-UNHEALTHY",
            message=HOSTILE,
            step="health checks",
            since=BEGIN,
            choices=["retry", "abort", "commit with override"],
        ),
        health=[HealthResult(check="tcp", healthy=False, detail=HOSTILE)],
        downtime=Downtime(predicted_seconds=10, began_at=at(180), ended_at=at(188)),
        approvals=["alice"],
        verifications=[
            VerificationRecord(
                at=BEGIN, disk_id="os", equal=True, bytes_read=GIB, manifest_root="whole"
            )
        ],
        waiting="a person",
        result="done",
    )
