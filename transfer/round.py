"""One round from plan to result: what to resume, audit, pipeline, closing the books."""

from __future__ import annotations

import contextlib
import random
import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from models.errors import BaseUnavailable, SourceChanged
from transfer.audit import audit, draw_unchanged
from transfer.blocks import BLOCK
from transfer.committer import Committer
from transfer.control import Control
from transfer.journal import JournalLane, close_lanes, lane_paths, open_lanes
from transfer.ledger import Layer, Ledger
from transfer.lock import WriterLock
from transfer.manifest import Manifest
from transfer.newness import check_is_new
from transfer.pipeline import Work, run_pipeline
from transfer.plan import Counters, ProgressCallback, RoundPlan, RoundResult
from transfer.progress import Meter
from transfer.ranges import Range, whole_blocks
from transfer.source import Source
from transfer.spool import RangeSpool
from transfer.target import DeviceTarget

_SEED_BITS = 32


class RoundRunner:
    """Runs rounds of one session; see `DiskSession.apply_round` for what it promises.

    Args:
        run: Of the ledger.
        directory: Of the run's journals.
        lock: Held.
        target: Open.
        ledger: Open.
        manifest: Open.
        control: To stop, hold or slow the round.
        progress: Called from the caller's thread.
    """

    def __init__(
        self,
        run: str,
        directory: Path,
        lock: WriterLock,
        target: DeviceTarget,
        ledger: Ledger,
        manifest: Manifest,
        control: Control,
        progress: ProgressCallback,
    ) -> None:
        self._run = run
        self._directory = directory
        self._lock = lock
        self._target = target
        self._ledger = ledger
        self._manifest = manifest
        self._control = control
        self._progress = progress

    def run(self, plan: RoundPlan, source: Source, ranges: Iterable[Range]) -> RoundResult:
        """Apply a round that is not durable yet."""
        started = time.monotonic()
        if source.size != self._target.size:
            raise SourceChanged(
                f"The source has {source.size} bytes, {self._target.path} has {self._target.size}.",
                hint="Resize the on-premises disk, or restore to a new one.",
            )

        fill = plan.method != "changed-ranges"
        blocks = whole_blocks(ranges, self._target.size, fill=fill)
        with contextlib.closing(RangeSpool(self._directory, blocks, self._control)) as spool:
            layer = self._open_layer(plan, source, spool)
            lanes = open_lanes(
                self._directory, layer.layer, layer.number, layer.lane_ends, writable=True
            )
            try:
                self._apply(plan, layer, source, spool, lanes)
                journal_bytes = sum(lane.allocated_bytes for lane in lanes)
            finally:
                close_lanes(lanes)
        return self._finish(plan, layer, spool.total_bytes, journal_bytes, started)

    def _open_layer(self, plan: RoundPlan, source: Source, spool: RangeSpool) -> Layer:
        """The layer to go on with, or a new one once the disk and the base were looked at."""
        layer = self._layer_to_resume(plan)
        audited, seed = 0, 0
        if layer is None and plan.method == "changed-ranges":
            audited, seed = self._audit(plan, source, spool)
        if layer is None and plan.new_disk and not self._ledger.layers:
            check_is_new(self._target)
        return self._begin(plan, layer, audited, seed)

    def _layer_to_resume(self, plan: RoundPlan) -> Layer | None:
        """The open layer, if this plan goes on with it."""
        if not self._ledger.layers:
            return None
        layer = self._ledger.layers[-1]
        same = (layer.number, layer.source_id, layer.method) == (
            plan.number,
            plan.source_id,
            plan.method,
        )
        return layer if layer.state == "open" and same else None

    def _begin(self, plan: RoundPlan, layer: Layer | None, audited: int, seed: int) -> Layer:
        header = self._manifest.header
        if layer is None:
            ours = header.writer.startswith(f"{self._run}/")
            layer = Layer(
                layer=self._ledger.next_layer,
                number=plan.number,
                source_id=plan.source_id,
                method=plan.method,
                extent_bytes=plan.effective_extent_bytes,
                new_disk=plan.new_disk and not self._ledger.layers,
                before={
                    "source_id": header.source_id,
                    "complete": header.complete and (ours or not header.writer),
                    "root": header.root,
                },
                audited=audited,
                audit_seed=seed,
            )
            for path in lane_paths(self._directory, layer.layer, layer.number):
                path.unlink(missing_ok=True)  # nothing of another layer may pass for this one's
        else:
            self._manifest.distrust_tree()
        layer = self._ledger.begin(layer)
        self._manifest.write_header(writer=f"{self._run}/{layer.layer}")
        return layer

    def _audit(self, plan: RoundPlan, source: Source, changed: Iterable[Range]) -> tuple[int, int]:
        header = self._manifest.header
        if not self._manifest.is_base or header.source_id != plan.base_id:
            raise BaseUnavailable(
                f"The changes are counted from {plan.base_id}, "
                f"but this disk's manifest is of {header.source_id or 'no recovery point'}.",
                hint="This disk is compared as a whole instead.",
            )
        seed = plan.audit_seed if plan.audit_seed is not None else secrets.randbits(_SEED_BITS)
        drawn = draw_unchanged(changed, self._target.size, plan.audit_samples, random.Random(seed))
        meter = Meter(plan.number, plan.method, "audit", len(drawn) * BLOCK, self._progress)
        audit(drawn, source, self._target, self._manifest, self._control, meter)
        return len(drawn), seed

    def _apply(
        self,
        plan: RoundPlan,
        layer: Layer,
        source: Source,
        spool: RangeSpool,
        lanes: list[JournalLane],
    ) -> None:
        journalled = self._begun_before(layer, lanes)
        meter = Meter(
            plan.number, plan.method, "copy", spool.total_bytes, self._progress, layer.counters
        )
        committer = Committer(
            self._lock, self._target, lanes, self._ledger, layer, self._manifest, verify=plan.verify
        )
        work = Work(
            plan=plan,
            layer=layer,
            lock=self._lock,
            source=source,
            target=self._target,
            lanes=lanes,
            journalled=journalled,
            target_is_zero=layer.new_disk,
            control=self._control,
            meter=meter,
        )
        try:
            run_pipeline(work, spool, committer)
        finally:
            committer.close()

    def _begun_before(self, layer: Layer, lanes: list[JournalLane]) -> frozenset[int]:
        """Blocks that a killed attempt saved and did not finish: its bytes in flight, no more."""
        places, size = set[int](), 0
        for lane in lanes:
            for record in lane.unconfirmed():
                places.update(range(record.offset, record.offset + record.length, BLOCK))
                size += record.length
        if size:
            again = Counters(bytes_recopied=size)
            self._ledger.applied(layer, [], 0, layer.lane_ends[0], again, durable=False)
        return frozenset(places)

    def _finish(
        self,
        plan: RoundPlan,
        layer: Layer,
        total: int,
        journal_bytes: int,
        started: float,
    ) -> RoundResult:
        root = self._manifest.root()
        self._manifest.flush()
        result = RoundResult(
            number=plan.number,
            source_id=plan.source_id,
            method=plan.method,
            root=root,
            seconds=time.monotonic() - started,
            resumed=layer.attempts > 1,
            bytes_total=total,
            journal_bytes=journal_bytes,
            audited_blocks=layer.audited,
            audit_seed=layer.audit_seed,
            verified=plan.verify,
            **asdict(layer.counters),
        )
        self._lock.check()
        self._manifest.write_header(source_id=plan.source_id, complete=True, root=root, writer="")
        self._ledger.durable(layer, result.to_json())
        return result
