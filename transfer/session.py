"""The engine's front door: one disk, one run, one writer.

`open_session` takes the disk; rounds are applied, verified and rolled back through the session it
gives. State is kept in `STATE_DIR/DISK_ID/` (lock, generation, manifest) and below it one
directory per run (ledger, journals). Everything may be called again after a kill and goes on where
it was.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from models.errors import BaseUnavailable, JournalFull, StateCorrupt
from transfer.control import Control
from transfer.files import (
    full_disk_is_reported,
    make_private_directory,
    open_private,
    sync_directory,
)
from transfer.journal import Record, close_lanes, lane_paths, open_lanes
from transfer.ledger import Layer, Ledger
from transfer.lock import WriterLock
from transfer.manifest import Manifest
from transfer.plan import (
    ProgressCallback,
    RollbackResult,
    RoundPlan,
    RoundResult,
    VerifyResult,
    ignore_progress,
)
from transfer.progress import Meter
from transfer.ranges import Ranges, one_pass, whole_blocks
from transfer.rollback import Restorer
from transfer.round import RoundRunner
from transfer.runs import disk_directory, remove_run, run_directory, safe_name
from transfer.source import Source
from transfer.target import DeviceTarget
from transfer.verify import Verifier

_RESERVE_BYTES = 8 * 1024 * 1024
"""Kept free on the state's disk, so that a run that filled it can still be rolled back."""


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """Where a disk's run stands.

    Attributes:
        generation: Of this writer.
        rounds: Numbers that are durable, oldest first.
        open_round: Begun and not durable, or None.
        rolling_back: Whether a rollback was begun and not finished.
        journal_bytes: What the journals take.
        manifest_source_id: The recovery point the manifest is of, or None.
        manifest_root: Its root, hexadecimal, or empty.
        manifest_complete: Whether it can be the base of a delta.
    """

    generation: int
    rounds: tuple[int, ...]
    open_round: int | None
    rolling_back: bool
    journal_bytes: int
    manifest_source_id: str | None
    manifest_root: str
    manifest_complete: bool


def open_session(
    state_dir: str | Path,
    disk_id: str,
    run_id: str,
    target: DeviceTarget,
    *,
    wait_for_lock_seconds: float = 30.0,
) -> DiskSession:
    """Take a disk for writing.

    Args:
        state_dir: Where journals, ledgers and manifests are kept; apart from the target's own disk.
        disk_id: Names the disk across runs.
        run_id: Names the run; rounds and rollback are of one run.
        target: Not opened yet; the session opens and closes it.
        wait_for_lock_seconds: How long an older writer may take to stop.

    Raises:
        DiskBusy, DiskMissing, DiskMismatch, DiskInUse, JournalFull, StateCorrupt
    """
    return DiskSession(
        disk_directory(Path(state_dir), disk_id), run_id, target, wait_for_lock_seconds
    )


class DiskSession:
    """A disk held for writing; see `open_session`. A context manager; not for several threads."""

    def __init__(
        self, directory: Path, run: str, target: DeviceTarget, wait_seconds: float
    ) -> None:
        self._directory = directory
        self._run = safe_name(run)
        self._run_directory = run_directory(directory, run)
        self._reserve = self._run_directory / "reserve"
        self._target = target
        with contextlib.ExitStack() as undo:
            make_private_directory(directory)
            self._lock = undo.enter_context(contextlib.closing(WriterLock(directory, wait_seconds)))
            undo.enter_context(target)
            make_private_directory(self._run_directory)
            ledger = contextlib.closing(Ledger(self._run_directory / "ledger"))
            self._ledger = undo.enter_context(ledger)
            self._note_opened()
            manifest = contextlib.closing(Manifest(directory, target.size))
            self._manifest = undo.enter_context(manifest)
            self._open_things = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the disk. May be called again."""
        self._open_things.close()

    def apply_round(
        self,
        plan: RoundPlan,
        source: Source,
        ranges: Ranges,
        control: Control | None = None,
        progress: ProgressCallback = ignore_progress,
    ) -> RoundResult:
        """Bring the target to the source's recovery point.

        A round that is durable already gives its result at once; one that was killed goes on. A
        round begun with another source is taken back first if the new one is a delta, or built
        upon if the new one looks at everything.

        Args:
            plan: What to do, and within which bounds.
            source: Of the target's size; not closed.
            ranges: `full`, `compare`: what the source has allocated, all else is zeros.
                `changed-ranges`: what changed since `plan.base_id`.
            control: To stop, hold or slow the round.
            progress: Called a few times per second from this thread; what it raises ends the round.

        Raises:
            BaseUnavailable: If the delta's base is not what the manifest is of.
            BaseUntrusted: If the audit found a change that the delta lacks; nothing was written.
            SourceChanged, SourceDenied, SourceUnavailable: If the source gives no more.
            JournalFull, DeviceFailed, VerificationFailed: If a disk on this side does not.
            Stopped, Superseded: If it was told to, or a newer writer came.
            StateCorrupt: If journal or ledger cannot be read.
        """
        self._lock.check()
        self._finish_rollbacks(control or Control(), progress)
        self._keep_reserve()
        known = [layer for layer in self._ledger.layers if layer.number >= plan.number]
        durable = next((one for one in known if one.state == "durable"), None)
        if durable is not None:
            return _stored_result(durable, plan)
        if plan.method == "changed-ranges" and known and known[-1].source_id != plan.source_id:
            self.roll_back(plan.number - 1, control, progress)
        runner = RoundRunner(
            self._run,
            self._run_directory,
            self._lock,
            self._target,
            self._ledger,
            self._manifest,
            control or Control(),
            progress,
        )
        return runner.run(plan, source, one_pass(ranges))

    def verify_round(
        self,
        number: int,
        control: Control | None = None,
        progress: ProgressCallback = ignore_progress,
    ) -> VerifyResult:
        """Read back from the device what a round touched and compare it with the manifest.

        Raises:
            VerificationFailed: If a block differs.
            BaseUnavailable: If that round is not durable.
        """
        layers = [layer for layer in self._ledger.layers if layer.number == number]
        if not layers or layers[-1].state != "durable":
            raise BaseUnavailable(f"Round {number} is not durable, so it cannot be verified.")
        total = sum(one.counters.bytes_written + one.counters.bytes_zeroed for one in layers)
        meter = Meter(number, None, "verify", total, progress)
        verifier = Verifier(self._target, self._manifest, control or Control(), meter)
        blocks, size = verifier.touched(self._records(layers))
        return VerifyResult(self._manifest.root(), blocks, size)

    def verify_all(
        self,
        control: Control | None = None,
        progress: ProgressCallback = ignore_progress,
        source: Source | None = None,
        ranges: Ranges | None = None,
    ) -> VerifyResult:
        """Read the whole target, and the whole source if given, against the manifest.

        Args:
            control: To stop it, or to slow the source.
            progress: See `apply_round`.
            source: At the manifest's recovery point; not closed.
            ranges: What the source has allocated; None reads all of it.

        Raises:
            VerificationFailed: If a block differs on either side.
            BaseUnavailable: If there is no complete manifest.
        """
        if not self._manifest.is_base:
            raise BaseUnavailable(
                "There is no complete manifest of this disk to verify against.",
                hint="A round must be durable first.",
            )
        meter = Meter(0, None, "verify", self._target.size, progress)
        verifier = Verifier(self._target, self._manifest, control or Control(), meter, source)
        allocated = None
        if ranges is not None:
            allocated = whole_blocks(one_pass(ranges), self._target.size, fill=True)
        blocks, size = verifier.everything(allocated)
        return VerifyResult(self._manifest.root(), blocks, size)

    def roll_back(
        self,
        to_round: int = 0,
        control: Control | None = None,
        progress: ProgressCallback = ignore_progress,
    ) -> RollbackResult:
        """Put the disk back to what it was after `to_round`; 0 is before the run.

        Newest round first; each block put back is read again from the device and compared with the
        digest taken before it was first overwritten. Rounds that were never durable count too.
        Call it again after a kill or `Stopped`; once all is back it does nothing.

        Raises:
            VerificationFailed: If the device reads back as something else.
            StateCorrupt: If a journal is damaged.
            Stopped, Superseded: If it was told to, or a newer writer came.
        """
        self._lock.check()
        self._reserve.unlink(missing_ok=True)
        rounds, blocks, size = list[int](), 0, 0
        while self._ledger.layers and self._ledger.layers[-1].number > to_round:
            layer = self._ledger.layers[-1]
            restorer = self._roll_back_layer(layer, control or Control(), progress)
            if layer.number not in rounds:
                rounds.append(layer.number)
            blocks += restorer.blocks
            size += restorer.bytes
        return RollbackResult(tuple(rounds), blocks, size)

    def status(self) -> SessionStatus:
        """Where the run stands."""
        layers = self._ledger.layers
        open_layers = [layer for layer in layers if layer.state == "open"]
        header = self._manifest.header
        return SessionStatus(
            generation=self._lock.generation,
            rounds=tuple(layer.number for layer in layers if layer.state == "durable"),
            open_round=open_layers[-1].number if open_layers else None,
            rolling_back=any(layer.state == "rolling-back" for layer in layers),
            journal_bytes=sum(
                _allocated(path) for layer in layers for path in self._lanes_of(layer)
            ),
            manifest_source_id=header.source_id,
            manifest_root=header.root,
            manifest_complete=self._manifest.is_base,
        )

    def discard(self) -> None:
        """Remove the run's journals and ledger, after the commit, and close the session.

        The manifest stays: it is the base of the way back.

        Raises:
            StateCorrupt: If a round is open or half rolled back: the journal is still needed.
        """
        if any(layer.state != "durable" for layer in self._ledger.layers):
            raise StateCorrupt(
                "A round is neither durable nor rolled back: its journal is still needed.",
                hint="Finish the round or roll it back first.",
            )
        self._lock.check()
        remove_run(self._run_directory)
        self.close()

    def _note_opened(self) -> None:
        """On a full disk the reserve is given up: the run may be opened to be rolled back."""
        try:
            self._ledger.opened(self._lock.generation, self._target.size)
        except JournalFull:
            if not self._reserve.exists():
                raise
            self._reserve.unlink()
            self._ledger.opened(self._lock.generation, self._target.size)

    def _roll_back_layer(
        self, layer: Layer, control: Control, progress: ProgressCallback
    ) -> Restorer:
        if layer.state != "rolling-back":
            self._ledger.rolling_back(layer)
        self._manifest.write_header(writer=f"{self._run}/{layer.layer}")
        total = layer.counters.bytes_written + layer.counters.bytes_zeroed
        meter = Meter(layer.number, None, "rollback", total, progress)
        restorer = Restorer(
            self._lock, self._target, self._manifest, self._ledger, layer, control, meter
        )
        lanes = open_lanes(
            self._run_directory, layer.layer, layer.number, layer.lane_ends, writable=False
        )
        try:
            restorer.restore(lanes)
        finally:
            close_lanes(lanes)
        meter.report(now=True)
        self._forget(layer)
        return restorer

    def _forget(self, layer: Layer) -> None:
        """The layer's blocks are back: restore the header, drop the journal."""
        below = [one for one in self._ledger.layers if one is not layer]
        writer = f"{self._run}/{below[-1].layer}" if below and below[-1].state != "durable" else ""
        before = layer.before
        self._manifest.write_header(
            source_id=before["source_id"],
            complete=before["complete"],
            root=before["root"],
            writer=writer,
        )
        self._ledger.rolled_back(layer)
        for path in self._lanes_of(layer):
            path.unlink(missing_ok=True)
        sync_directory(self._run_directory)

    def _finish_rollbacks(self, control: Control, progress: ProgressCallback) -> None:
        """A rollback that was begun is finished before anything new is written."""
        begun = [one.number for one in self._ledger.layers if one.state == "rolling-back"]
        if begun:
            self.roll_back(min(begun) - 1, control, progress)

    def _records(self, layers: list[Layer]) -> Iterator[Record]:
        for layer in layers:
            lanes = open_lanes(
                self._run_directory, layer.layer, layer.number, layer.lane_ends, writable=False
            )
            try:
                for lane in lanes:
                    yield from lane.records()
            finally:
                close_lanes(lanes)

    def _lanes_of(self, layer: Layer) -> list[Path]:
        return lane_paths(self._run_directory, layer.layer, layer.number)

    def _keep_reserve(self) -> None:
        if self._reserve.exists():
            return
        descriptor = open_private(self._reserve)
        try:
            with full_disk_is_reported(self._reserve):
                os.posix_fallocate(descriptor, 0, _RESERVE_BYTES)
        except BaseException:
            self._reserve.unlink()
            raise
        finally:
            os.close(descriptor)


def _stored_result(layer: Layer, plan: RoundPlan) -> RoundResult:
    if (layer.number, layer.source_id) != (plan.number, plan.source_id):
        raise ValueError(
            f"round {layer.number} is durable with source {layer.source_id}; "
            f"it cannot become round {plan.number} with source {plan.source_id}"
        )
    assert layer.result is not None
    return RoundResult(**layer.result)


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
