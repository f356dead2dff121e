"""What a caller asks of the engine and what it answers: plans, results, progress. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from transfer.blocks import BLOCK

MIB = 1024 * 1024

BATCHES_IN_FLIGHT = 4
"""One is read while the ones before are saved, written and proven: a stage for each."""

Method = Literal["full", "compare", "changed-ranges"]
Phase = Literal["copy", "verify", "rollback", "audit"]


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """One pass that brings the target to one source snapshot.

    Attributes:
        number: Rounds of a run count from 1.
        source_id: Names the snapshot; the same number and source again is the same round.
        base_id: `source_id` of the snapshot the changes are counted from; `changed-ranges` only.
        method: How the round finds what to send.
        extent_bytes: Unit of progress; cut down to a batch where it is larger.
        threads: Readers at work, if the source does not ask for more.
        in_flight_bytes: Most bytes read but not durable, so also the most a killed round repeats.
        audit_samples: Blocks said to be unchanged that are compared too; `changed-ranges` only.
        audit_seed: Repeats an audit's choice; None draws one, which is reported.
        verify: Whether what was written is read back from the device before it counts.
        new_disk: The target was created for this run and reads as zeros; it is not read.
    """

    number: int
    source_id: str
    base_id: str | None = None
    method: Method = "compare"
    extent_bytes: int = 16 * MIB
    threads: int = 4
    in_flight_bytes: int = 64 * MIB
    audit_samples: int = 64
    audit_seed: int | None = None
    verify: bool = True
    new_disk: bool = False

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError(f"rounds count from 1, not {self.number}")
        if self.in_flight_bytes < BATCHES_IN_FLIGHT * BLOCK:
            raise ValueError(f"in_flight_bytes must hold {BATCHES_IN_FLIGHT} blocks at least")
        if self.method == "changed-ranges" and self.base_id is None:
            raise ValueError("changed-ranges needs the base_id its changes are counted from")

    @property
    def batch_bytes(self) -> int:
        """Most bytes of one batch."""
        return self.in_flight_bytes // BATCHES_IN_FLIGHT

    @property
    def effective_extent_bytes(self) -> int:
        """`extent_bytes`, in whole blocks, no larger than a batch."""
        return max(BLOCK, min(self.extent_bytes, self.batch_bytes) // BLOCK * BLOCK)


@dataclass(slots=True)
class Counters:
    """Bytes of a round so far; kept in the ledger, so they survive a kill.

    Attributes:
        bytes_done: Of the ranges, applied.
        bytes_read: Read from the source.
        bytes_written: Written to the target as data.
        bytes_zeroed: Punched or zeroed on the target.
        bytes_skipped_equal: Read from the source and found equal on the target.
        bytes_recopied: Begun by a killed attempt and copied again.
    """

    bytes_done: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_zeroed: int = 0
    bytes_skipped_equal: int = 0
    bytes_recopied: int = 0

    def add(self, other: Counters) -> None:
        """Count the other's bytes too."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@dataclass(frozen=True, slots=True)
class RoundResult:
    """What a durable round did; the same, from the ledger, when it is asked for again.

    Attributes:
        root: The manifest's root after the round, hexadecimal.
        seconds: Of this attempt, wall clock.
        resumed: Whether an earlier attempt was killed or failed on the way.
        journal_bytes: Of the old content this round keeps.
        audited_blocks: Said to be unchanged, compared, found equal.
        audit_seed: Of the audit's sample.
    """

    number: int
    source_id: str
    method: Method
    root: str
    seconds: float
    resumed: bool
    bytes_total: int
    bytes_done: int
    bytes_read: int
    bytes_written: int
    bytes_zeroed: int
    bytes_skipped_equal: int
    bytes_recopied: int
    journal_bytes: int
    audited_blocks: int
    audit_seed: int
    verified: bool

    def to_json(self) -> dict[str, Any]:
        """As the ledger keeps it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What was read back and found equal to the manifest.

    Attributes:
        root: The manifest's root, hexadecimal.
        blocks: Compared, holes included.
        bytes: Of those blocks, on the target's device (and on the source, if it was read too).
    """

    root: str
    blocks: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RollbackResult:
    """What was put back.

    Attributes:
        rounds: Numbers rolled back by this call, newest first.
        blocks: Put back and read again from the device.
        bytes: Of those blocks.
        verified: Always true: a difference raises `VerificationFailed`.
    """

    rounds: tuple[int, ...]
    blocks: int
    bytes: int
    verified: bool = True


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a phase is; given to the progress callback a few times per second.

    Attributes:
        bytes_total: Of the phase; 0 if it is not known.
        rate_bytes_per_second: Over the last few seconds.
        in_flight: Bytes read but not durable.
    """

    round: int
    method: Method | None
    phase: Phase
    bytes_total: int
    bytes_done: int
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_zeroed: int = 0
    bytes_skipped_equal: int = 0
    bytes_recopied: int = 0
    rate_bytes_per_second: float = 0.0
    in_flight: int = 0


ProgressCallback = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """The callback of a caller that does not look."""
