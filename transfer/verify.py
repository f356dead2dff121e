"""Verification: what the device holds, read from the device, against the manifest.

After a round it costs what the round touched, which its journal lists; on demand it reads
everything, on both sides.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from models.errors import VerificationFailed
from transfer.blocks import BLOCK, Buffer, block_count, digest_blocks
from transfer.committer import raise_difference
from transfer.control import Control
from transfer.journal import Record
from transfer.manifest import Manifest
from transfer.progress import Meter
from transfer.ranges import Range
from transfer.source import Source
from transfer.target import DeviceTarget

STEP_BYTES = 1024 * 1024
_LOCAL_THREADS = 4


class Verifier:
    """Compares a target, and a source if there is one, with the manifest.

    Args:
        target: Read from the device.
        manifest: What both must hold.
        control: Asked before each step.
        meter: Counts what was read.
        source: Read too, if given.
    """

    def __init__(
        self,
        target: DeviceTarget,
        manifest: Manifest,
        control: Control,
        meter: Meter,
        source: Source | None = None,
    ) -> None:
        self._target = target
        self._manifest = manifest
        self._control = control
        self._meter = meter
        self._source = source
        self._tools = threading.local()

    def touched(self, records: Iterable[Record]) -> tuple[int, int]:
        """Compare the blocks of journal records; returns (blocks, bytes).

        Raises:
            VerificationFailed: If one differs.
        """
        steps = (
            Range(record.offset + start, min(STEP_BYTES, record.length - start))
            for record in records
            for start in range(0, record.length, STEP_BYTES)
        )
        return self._run(steps, with_source=False)

    def everything(self, allocated: Iterable[Range] | None) -> tuple[int, int]:
        """Compare every block; returns (blocks, bytes), holes included.

        Args:
            allocated: The source's whole-block ranges, zeros included; None reads all of it.

        Raises:
            VerificationFailed: If one differs on either side.
        """
        ranges = allocated or [Range(0, self._target.size)]
        steps = (step for one in ranges for step in self._steps(one))
        self._run(steps, with_source=self._source is not None)
        return block_count(self._target.size), self._target.size

    def _steps(self, one: Range) -> Iterator[Range]:
        """Steps through a range, past what is a hole on all sides."""
        all_of_it = self._source is not None and one.kind == "data"
        position = one.offset
        while position < one.end:
            if not all_of_it:
                data = min(self._target.next_data(position), self._manifest.next_data(position))
                position = max(position, data // BLOCK * BLOCK)
            if position < one.end:
                yield Range(position, min(STEP_BYTES, one.end - position), one.kind)
            position += STEP_BYTES

    def _run(self, steps: Iterator[Range], *, with_source: bool) -> tuple[int, int]:
        parallel = self._source.parallel_reads if self._source and with_source else 0
        blocks = total = 0
        with ThreadPoolExecutor(max(_LOCAL_THREADS, parallel), "verify") as pool:
            waiting = list[Future[int]]()
            try:
                for step in steps:
                    waiting.append(pool.submit(self._step, step, with_source))
                    if len(waiting) >= 64:
                        total += self._collect(waiting.pop(0))
                    blocks += block_count(step.length)
                while waiting:
                    total += self._collect(waiting.pop(0))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        self._meter.report(now=True)
        return blocks, total

    def _collect(self, future: Future[int]) -> int:
        length = future.result()
        self._meter.done(length)
        self._meter.report()
        return length

    def _step(self, step: Range, with_source: bool) -> int:
        self._control.check()
        expected = self._manifest.digests(step.offset // BLOCK, block_count(step.length))
        if any(expected) or not self._target.is_hole(step.offset, step.end):
            buffer = self._buffer()
            self._target.read_back(step.offset, buffer, step.length)
            found = digest_blocks(buffer, 0, step.length)
            if found != expected:
                raise_difference(self._target, step.offset, expected, found)
        if with_source:
            self._check_source(step, expected)
        return step.length

    def _check_source(self, step: Range, expected: bytes) -> None:
        assert self._source is not None
        found = bytes(len(expected))
        if step.kind == "data":
            buffer = self._buffer()
            self._control.throttle(step.length)
            view = buffer.view[: step.length]
            self._source.read_into(step.offset, view, self._control.stopping)
            found = digest_blocks(buffer, 0, step.length)
        if found != expected:
            raise VerificationFailed(
                f"The source differs from the manifest at byte {step.offset} or shortly after.",
                hint="Is it the recovery point of the last round? Otherwise run a comparing round.",
            )

    def _buffer(self) -> Buffer:
        if not hasattr(self._tools, "buffer"):
            self._tools.buffer = Buffer(STEP_BYTES)
        buffer: Buffer = self._tools.buffer
        return buffer
