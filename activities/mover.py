"""What the mover does with the disks attached to it: one activity per operation of the block
engine. The read grant of a snapshot is asked for, used and forgotten in here; it never leaves the
activity."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from temporalio import activity

from activities.controls import Controls
from activities.devices import find_device
from activities.running import run_blocking
from models.calls import (
    MOVER_CONTROL,
    MOVER_COPY,
    MOVER_FORGET,
    MOVER_INSPECT,
    MOVER_LEFTOVERS,
    MOVER_PREPARE,
    MOVER_ROLL_BACK,
    MOVER_VERIFY_ALL,
    MOVER_VERIFY_ROUND,
    ControlInput,
    CopyInput,
    DiskInput,
    InspectInput,
    LeftoverInput,
    MoverChecks,
    RollBackInput,
    RollBackResult,
    VerifyAllInput,
    VerifyRoundInput,
)
from models.errors import DiskMismatch, FailbackError, StateCorrupt, VerificationFailed
from models.machine import CheckResult, Leftover, Snapshot, Verdict
from models.status import DiskProgress, DiskRound, VerificationRecord
from models.units import human_size
from platforms.base import Call, CloudPlatform, SnapshotReader, SourceRange
from transfer.control import Control
from transfer.http_source import HttpRangeSource
from transfer.plan import Progress, RoundPlan, RoundResult
from transfer.ranges import Range
from transfer.runs import forget_run, has_journal, known_runs, mark_undone, was_undone
from transfer.session import DiskSession, open_session
from transfer.target import DeviceTarget

Result = TypeVar("Result")

# Below this a journal would be full at once.
_LEAST_JOURNAL_BYTES = 256 * 2**20


@dataclass(frozen=True)
class MoverOptions:
    """What a mover is told by its configuration; see `worker.settings.MoverSection`."""

    name: str
    state_dir: Path
    device_dir: Path
    device_timeout: float
    threads: int
    in_flight_bytes: int
    lock_timeout: float


class MoverActivities:
    """Activities of one mover; they run on its own task queue."""

    def __init__(self, cloud: CloudPlatform, options: MoverOptions) -> None:
        self._cloud = cloud
        self._options = options
        self._controls = Controls(options.state_dir / "control")

    @activity.defn(name=MOVER_INSPECT)
    async def inspect(self, asked: InspectInput) -> MoverChecks:
        """The mover's side of preflight; read-only."""
        return await run_blocking(lambda _call: MoverChecks(checks=self._inspect(asked)))

    @activity.defn(name=MOVER_PREPARE)
    async def prepare_disk(self, asked: DiskInput) -> None:
        """See that the disk is there, of the right size, unused, and that its journal opens."""

        def work(call: Call) -> None:
            with self._session(asked, call, new=True):
                return

        await run_blocking(work)

    @activity.defn(name=MOVER_COPY)
    async def copy_round(self, asked: CopyInput) -> DiskRound:
        """Bring one disk to one snapshot."""
        return await self._watched(
            asked, asked.round, lambda call, see: self._copy(asked, call, see)
        )

    @activity.defn(name=MOVER_VERIFY_ROUND)
    async def verify_round(self, asked: VerifyRoundInput) -> DiskRound:
        """Read back from the device what a round wrote."""

        def work(call: Call, see: Callable[[Progress], None]) -> DiskRound:
            with self._session(asked, call) as session:
                result = session.verify_round(asked.round, Control(stopping=call.stop), see)
            return DiskRound(
                disk_id=asked.disk.disk_id,
                round=asked.round,
                method="verify",
                bytes_read=result.bytes,
                manifest_root=result.root,
                verified=True,
            )

        return await self._watched(asked, asked.round, work)

    @activity.defn(name=MOVER_VERIFY_ALL)
    async def verify_all(self, asked: VerifyAllInput) -> VerificationRecord:
        """Read both sides whole; a difference is an answer, not an error."""
        return await self._watched(
            asked, asked.round, lambda call, see: self._verify_all(asked, call, see)
        )

    @activity.defn(name=MOVER_ROLL_BACK)
    async def roll_back(self, asked: RollBackInput) -> RollBackResult:
        """Put every block back that this run overwrote, and see that it is as it was."""
        return await self._watched(asked, 0, lambda call, see: self._roll_back(asked, call, see))

    @activity.defn(name=MOVER_FORGET)
    async def forget_run(self, asked: DiskInput) -> None:
        """Remove the run's journal of a disk; its manifest stays."""
        await run_blocking(lambda _call: self._forget(asked))

    @activity.defn(name=MOVER_CONTROL)
    async def set_control(self, asked: ControlInput) -> None:
        """Pause, resume or limit the run's copies."""
        await run_blocking(lambda _call: self._controls.order(asked))

    @activity.defn(name=MOVER_LEFTOVERS)
    async def leftovers(self, asked: LeftoverInput) -> list[Leftover]:
        """Journals that are still kept on this mover, of whatever machine."""
        del asked  # every run's, as on the platforms
        return await run_blocking(
            lambda _call: [
                Leftover(
                    kind="journal",
                    name=disk_id,
                    place=f"mover {self._options.name}",
                    run_id=run_id,
                    machine=disk_id.rsplit("/", 1)[0],
                )
                for disk_id, run_id in known_runs(self._options.state_dir)
            ]
        )

    # --- the work itself, in a thread --------------------------------------------------------

    def _copy(self, asked: CopyInput, call: Call, see: Callable[[Progress], None]) -> DiskRound:
        options = self._options
        delta = asked.method == "changed-ranges"
        _same_size(asked.disk.size_bytes, asked.snapshot)
        order = ControlInput(
            run_id=asked.run_id, paused=asked.paused, bandwidth_limit=asked.bandwidth_limit
        )
        plan = RoundPlan(
            number=asked.round,
            source_id=asked.snapshot.name,
            base_id=asked.base.name if delta and asked.base else None,
            method=asked.method,  # type: ignore[arg-type]  # the engine checks it
            extent_bytes=asked.spec.sync.extent,
            threads=options.threads,
            in_flight_bytes=options.in_flight_bytes,
            audit_samples=asked.spec.sync.audit_samples,
            verify=asked.verify,
            new_disk=asked.disk.created,
        )
        with (
            self._session(asked, call) as session,
            self._controls.copying(order, call.stop) as control,
            self._cloud.open_snapshot(
                asked.snapshot, asked.base if delta else None, call
            ) as reader,
            closing(_source(reader)) as source,
        ):
            result = session.apply_round(
                plan,
                source,
                lambda: _ranges(reader.changed() if delta else reader.allocated()),
                control,
                see,
            )
        return _disk_round(asked, result)

    def _roll_back(
        self, asked: RollBackInput, call: Call, see: Callable[[Progress], None]
    ) -> RollBackResult:
        """Needs the disk only while there is something to put back."""
        place = (self._options.state_dir, _engine_id(asked), asked.run_id)
        restored = 0
        # A journal that is here is always rolled back: a run that was reset has its name again.
        if has_journal(*place) or (asked.journal_expected and not was_undone(*place)):
            with self._session(asked, call) as session:
                restored = session.roll_back(0, Control(stopping=call.stop), see).bytes
                mark_undone(*place)
        self._forget(asked)
        return RollBackResult(disk_id=asked.disk.disk_id, bytes_restored=restored, verified=True)

    def _forget(self, asked: DiskInput) -> None:
        forget_run(
            self._options.state_dir,
            _engine_id(asked),
            asked.run_id,
            wait_for_lock_seconds=self._options.lock_timeout,
        )
        self._controls.forget(asked.run_id)

    def _require_journal(self, asked: DiskInput) -> None:
        """A journal that is gone must never pass for one that is empty."""
        if not has_journal(self._options.state_dir, _engine_id(asked), asked.run_id):
            raise StateCorrupt(
                f"Mover {self._options.name} has no journal of this run for disk "
                f"{asked.disk.disk_id}, although it opened one.",
                hint=f"Bring {self._options.state_dir} back as it was, then retry: without it the "
                "disk cannot be put back.",
            )

    def _verify_all(
        self, asked: VerifyAllInput, call: Call, see: Callable[[Progress], None]
    ) -> VerificationRecord:
        record = VerificationRecord(
            at=datetime.now(UTC),
            disk_id=asked.disk.disk_id,
            equal=False,
            bytes_read=0,
            manifest_root="",
        )
        with (
            self._session(asked, call) as session,
            self._cloud.open_snapshot(asked.snapshot, None, call) as reader,
            closing(_source(reader)) as source,
        ):
            try:
                result = session.verify_all(
                    Control(stopping=call.stop), see, source, lambda: _ranges(reader.allocated())
                )
            except VerificationFailed as error:
                return record.model_copy(update={"detail": str(error)})
        return record.model_copy(
            update={"equal": True, "bytes_read": result.bytes, "manifest_root": result.root}
        )

    @contextmanager
    def _session(self, asked: DiskInput, call: Call, *, new: bool = False) -> Iterator[DiskSession]:
        """The disk held for writing. Only the first session of a run may be `new`: any other finds
        the journal that one made."""
        options = self._options
        if not new:
            self._require_journal(asked)
        device = find_device(options.device_dir, asked.disk, options.device_timeout, call.stop)
        target = DeviceTarget(device, asked.disk.size_bytes)
        with open_session(
            options.state_dir,
            _engine_id(asked),
            asked.run_id,
            target,
            wait_for_lock_seconds=options.lock_timeout,
        ) as session:
            yield session

    async def _watched(
        self,
        asked: DiskInput,
        number: int,
        work: Callable[[Call, Callable[[Progress], None]], Result],
    ) -> Result:
        """Run `work` and let its progress travel in the heartbeat."""
        latest = DiskProgress(disk_id=asked.disk.disk_id, round=number, stage="opening")

        def see(progress: Progress) -> None:
            nonlocal latest
            latest = DiskProgress(
                disk_id=asked.disk.disk_id,
                round=number,
                stage=progress.phase,
                method=progress.method or "",
                bytes_total=progress.bytes_total,
                bytes_done=progress.bytes_done,
                bytes_written=progress.bytes_written + progress.bytes_zeroed,
                rate=progress.rate_bytes_per_second,
            )

        def beat() -> dict[str, Any]:
            return latest.model_dump(mode="json")

        return await run_blocking(lambda call: work(call, see), beat)

    # --- preflight ---------------------------------------------------------------------------

    def _inspect(self, asked: InspectInput) -> list[CheckResult]:
        return [self._check_state(asked), self._check_devices(), self._check_azure(asked)]

    def _check_state(self, asked: InspectInput) -> CheckResult:
        name, path = f"mover {self._options.name} can keep a journal", self._options.state_dir
        try:
            path.mkdir(parents=True, exist_ok=True)
            writable = os.access(path, os.W_OK)
            free = shutil.disk_usage(path).free
        except OSError as error:
            return _failed(name, "FB-CHK-MOVER-STATE", f"{path}: {error.strerror}", _STATE_ADVICE)
        if not writable or free < _LEAST_JOURNAL_BYTES:
            seen = f"{path}: {'writable' if writable else 'not writable'}, {human_size(free)} free"
            return _failed(name, "FB-CHK-MOVER-STATE", seen, _STATE_ADVICE)
        needed = sum(disk.size_bytes for disk in asked.cloud.disks) if asked.cloud else 0
        seen = f"{path} has {human_size(free)} free; the disks are {human_size(needed)} in all"
        if free < needed:
            advice = "The journal grows by what changes; see that this is less than what is free."
            return CheckResult(name=name, verdict=Verdict.WARNING, seen=seen, advice=advice)
        return CheckResult(name=name, verdict=Verdict.PASSED, seen=seen)

    def _check_devices(self) -> CheckResult:
        name, path = f"mover {self._options.name} sees attached disks", self._options.device_dir
        if path.is_dir() or path.parent == Path("/dev"):
            return CheckResult(name=name, verdict=Verdict.PASSED, seen=f"looks in {path}")
        return _failed(
            name,
            "FB-CHK-MOVER-DEVICES",
            f"{path} does not exist",
            "Install the mover's device rules, or set mover.device_dir.",
        )

    def _check_azure(self, asked: InspectInput) -> CheckResult:
        name = f"mover {self._options.name} reaches Azure"
        try:
            state = self._cloud.power_state(asked.spec.azure)
        except FailbackError as error:
            return _failed(
                name, "FB-CHK-MOVER-AZURE", str(error), "Give the mover its own way to Azure."
            )
        return CheckResult(
            name=name, verdict=Verdict.PASSED, seen=f"sees the machine as {state} from here"
        )


_STATE_ADVICE = "Give mover.state_dir a disk with room for what changes; 256 MiB is the least."


def _failed(name: str, code: str, seen: str, advice: str) -> CheckResult:
    return CheckResult(name=name, verdict=Verdict.FAILED, code=code, seen=seen, advice=advice)


def _engine_id(asked: DiskInput) -> str:
    """The engine's name of a disk; it outlives the run."""
    return f"{asked.spec.machine}/{asked.disk.disk_id}"


def _same_size(size_bytes: int, snapshot: Snapshot) -> None:
    if snapshot.size_bytes != size_bytes:
        raise DiskMismatch(
            f"Disk {snapshot.disk_id} is {snapshot.size_bytes} bytes in Azure and {size_bytes} "
            "bytes on-premises.",
            hint="It was resized during the run: abort, make both sizes equal, start again.",
        )


def _source(reader: SnapshotReader) -> HttpRangeSource:
    return HttpRangeSource(reader.url, size=reader.size_bytes, ca_file=reader.ca_file)


def _ranges(ranges: Iterator[SourceRange]) -> Iterator[Range]:
    return (Range(r.offset, r.length, "zero" if r.cleared else "data") for r in ranges)


def _disk_round(asked: CopyInput, result: RoundResult) -> DiskRound:
    return DiskRound(
        disk_id=asked.disk.disk_id,
        round=asked.round,
        method=result.method,
        source_snapshot=asked.snapshot.name,
        bytes_read=result.bytes_read,
        bytes_written=result.bytes_written,
        bytes_zeroed=result.bytes_zeroed,
        bytes_equal=result.bytes_skipped_equal,
        bytes_recopied=result.bytes_recopied,
        audited_blocks=result.audited_blocks,
        journal_bytes=result.journal_bytes,
        seconds=result.seconds,
        manifest_root=result.root,
        verified=result.verified,
    )
