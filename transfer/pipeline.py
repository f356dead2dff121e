"""Runs a layer's readers and its committer until all its extents are durable.

The caller's own thread only waits, reports progress and looks whether it must stop; a handful of
readers and a thread per stage of the committer do the work. All of them have ended when
`run_pipeline` returns or raises.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from transfer.blocks import BufferPool
from transfer.committer import Committer
from transfer.control import Control
from transfer.dispatch import Dispatcher
from transfer.journal import JournalLane
from transfer.ledger import Layer
from transfer.lock import WriterLock
from transfer.plan import Counters, RoundPlan
from transfer.progress import REPORT_SECONDS, Meter
from transfer.ranges import Extent, Range, cut_into_extents
from transfer.reader import WINDOW_BYTES, Reader
from transfer.source import Source
from transfer.target import DeviceTarget


@dataclass(frozen=True, slots=True)
class Work:
    """What the threads of one layer share.

    Attributes:
        journalled: First bytes of blocks that an earlier attempt at this layer saved.
        target_is_zero: The disk is new: it is not read.
    """

    plan: RoundPlan
    layer: Layer
    lock: WriterLock
    source: Source
    target: DeviceTarget
    lanes: list[JournalLane]
    journalled: frozenset[int]
    target_is_zero: bool
    control: Control
    meter: Meter


def run_pipeline(work: Work, ranges: Iterable[Range], committer: Committer) -> None:
    """Apply the extents that are not durable yet.

    Args:
        work: What the threads share.
        ranges: The round's whole-block ranges, in order.
        committer: Makes batches durable.

    Raises:
        FailbackError: Whatever stopped a thread first; the others have ended then.
    """
    piece_bytes = max(1, min(work.source.piece_bytes, work.plan.batch_bytes))
    dispatcher = Dispatcher(
        _pending(work, ranges), work.target, work.plan.batch_bytes, piece_bytes, WINDOW_BYTES * 4
    )
    stopping = threading.Event()
    pool = BufferPool(work.plan.in_flight_bytes)
    readers = max(work.plan.threads, work.source.parallel_reads)
    jobs = [_reader_job(work, pool, dispatcher, stopping) for _ in range(readers)]
    jobs += [_stage_job(stage, committer, dispatcher) for stage in range(len(committer.stages) - 1)]
    jobs.append(_last_stage_job(work.meter, committer, pool, dispatcher))
    threads = [
        threading.Thread(target=_guarded, args=(job, dispatcher), name=f"transfer-{number}")
        for number, job in enumerate(jobs)
    ]
    for thread in threads:
        thread.start()
    try:
        while not dispatcher.wait(len(threads), REPORT_SECONDS) and dispatcher.error is None:
            work.meter.in_flight = dispatcher.in_flight
            work.control.check()
            work.lock.check()
            work.meter.report()
    except BaseException as error:
        dispatcher.fail(error)
    finally:
        stopping.set()
        work.source.interrupt()
        for thread in threads:
            thread.join()
    work.meter.in_flight = 0
    if dispatcher.error is not None:
        raise dispatcher.error
    work.meter.report(now=True)


def _pending(work: Work, ranges: Iterable[Range]) -> Iterator[Extent]:
    for extent in cut_into_extents(ranges, work.layer.extent_bytes):
        if not work.layer.is_done(extent.index):
            yield extent


def _reader_job(
    work: Work, pool: BufferPool, dispatcher: Dispatcher, stopping: threading.Event
) -> Callable[[], None]:
    reader = Reader(
        work.source,
        work.target,
        work.lanes,
        work.journalled,
        pool,
        work.control,
        target_is_zero=work.target_is_zero,
        stopping=stopping,
    )

    def run() -> None:
        while (piece := dispatcher.next_piece()) is not None:
            counters = reader.read(piece)
            work.meter.add(counters, piece.length)
            dispatcher.finish(piece)

    return run


def _stage_job(stage: int, committer: Committer, dispatcher: Dispatcher) -> Callable[[], None]:
    def run() -> None:
        while (batch := dispatcher.next_batch(stage)) is not None:
            committer.stages[stage](batch)
            dispatcher.passed(batch)

    return run


def _last_stage_job(
    meter: Meter, committer: Committer, pool: BufferPool, dispatcher: Dispatcher
) -> Callable[[], None]:
    last = len(committer.stages) - 1

    def run() -> None:
        while (batch := dispatcher.next_batch(last)) is not None:
            holes = Counters(bytes_done=batch.holes)
            batch.counters.add(holes)
            meter.add(holes)
            committer.stages[last](batch)
            batch.changes.clear()
            for buffer in batch.buffers:
                pool.release(buffer)
            dispatcher.committed(batch)

    return run


def _guarded(job: Callable[[], None], dispatcher: Dispatcher) -> None:
    try:
        job()
    except BaseException as error:
        dispatcher.fail(error)
    finally:
        dispatcher.thread_ended()
