"""Hands a round's pieces to the readers and its batches to the committer, in order.

Extents go into the open batch until it is full; the next batch opens only when the one before the
last is durable. This is what bounds memory and the bytes in flight.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from transfer.batch import Batch, Piece
from transfer.blocks import BufferPool
from transfer.journal import LANES
from transfer.ranges import Extent, Range
from transfer.target import DeviceTarget

_MOST_EXTENTS = 4096
"""Extents of one batch: bounds its line in the ledger where nearly all of them are holes."""


class Dispatcher:
    """Shared by the readers, the committer and the thread that waits for them.

    Args:
        extents: The round's, in order, without those that are durable.
        target: Asked for its holes.
        batch_bytes: Most bytes of a batch.
        piece_bytes: Most bytes of a data piece.
        zero_piece_bytes: Most bytes of a zero piece.
    """

    def __init__(
        self,
        extents: Iterator[Extent],
        target: DeviceTarget,
        batch_bytes: int,
        piece_bytes: int,
        zero_piece_bytes: int,
    ) -> None:
        self._extents = extents
        self._target = target
        self._batch_bytes = batch_bytes
        self._piece_bytes = piece_bytes
        self._zero_piece_bytes = zero_piece_bytes
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)  # readers wait for it
        self._ready = threading.Condition(self._lock)  # the committer's stages do
        self._ended = threading.Condition(self._lock)  # the caller does
        self._pieces: deque[Piece] = deque()
        self._batches: deque[Batch] = deque()
        self._held: tuple[Extent, list[tuple[int, int, str]], int] | None = None
        self._opened = 0
        self._exhausted = False
        self._error: BaseException | None = None
        self._finished = 0

    def next_piece(self) -> Piece | None:
        """The next piece to read, once there is room for it; None when there is no more to do."""
        with self._lock:
            while not self._error:
                if self._pieces:
                    return self._pieces.popleft()
                if self._exhausted:
                    return None
                if not self._fill():
                    self._room.wait()
            return None

    def finish(self, piece: Piece) -> None:
        """Tell that a piece was read, and what it found was put into its batch."""
        with self._lock:
            piece.batch.pending -= 1
            if piece.batch.is_read:
                self._ready.notify_all()

    def next_batch(self, stage: int) -> Batch | None:
        """The next batch for a stage of the committer, in order; None when there is no more.

        A batch comes to the first stage when all its pieces are read.
        """
        with self._lock:
            while not self._error:
                batch = next((one for one in self._batches if one.stage <= stage), None)
                if batch is None and self._exhausted:
                    return None
                if batch is not None and batch.stage == stage and batch.is_read:
                    return batch
                self._ready.wait()
            return None

    def passed(self, batch: Batch) -> None:
        """Tell that a batch has passed the stage it was in."""
        with self._lock:
            batch.stage += 1
            self._ready.notify_all()

    def committed(self, batch: Batch) -> None:
        """Tell that the oldest batch is durable: there is room for another."""
        with self._lock:
            oldest = self._batches.popleft()
            assert oldest is batch
            self._room.notify_all()

    def fail(self, error: BaseException) -> None:
        """Stop everything; the first error is the one that is raised."""
        with self._lock:
            self._error = self._error or error
            for waiting in (self._room, self._ready, self._ended):
                waiting.notify_all()

    def thread_ended(self) -> None:
        """Tell that a reader or the committer is through."""
        with self._lock:
            self._finished += 1
            self._ended.notify_all()

    def wait(self, threads: int, timeout: float) -> bool:
        """Whether all threads are through, waiting no longer than `timeout` seconds."""
        with self._lock:
            return self._ended.wait_for(lambda: self._finished >= threads, timeout)

    @property
    def error(self) -> BaseException | None:
        """What stopped the round, if anything did."""
        return self._error

    @property
    def in_flight(self) -> int:
        """Bytes of the batches that are not durable."""
        with self._lock:
            return sum(batch.room for batch in self._batches)

    def _fill(self) -> bool:
        """Put extents into the open batch until a piece comes of it; False if there is no room."""
        batch = self._open_batch()
        while batch is not None and not self._pieces:
            held = self._take_extent()
            if held is None:
                self._exhausted = True
                self._seal(batch)
                return True
            extent, pieces, size = held
            full = batch.room + size > self._batch_bytes or len(batch.extents) >= _MOST_EXTENTS
            if batch.extents and full:
                self._held = held
                self._seal(batch)
                batch = self._open_batch()
                continue
            batch.extents.append(extent.index)
            batch.room += size
            for offset, length, kind in pieces:
                batch.pending += kind != "hole"
                self._enqueue(Piece(batch, offset, length, kind))
        return batch is not None

    def _enqueue(self, piece: Piece) -> None:
        if piece.kind == "hole":
            piece.batch.clear.append((piece.offset, piece.length))
            piece.batch.holes += piece.length
        else:
            self._pieces.append(piece)

    def _open_batch(self) -> Batch | None:
        if self._batches and not self._batches[-1].sealed:
            return self._batches[-1]
        if len(self._batches) >= LANES:
            return None
        batch = Batch(lane=self._opened % LANES)
        self._opened += 1
        self._batches.append(batch)
        return batch

    def _seal(self, batch: Batch) -> None:
        batch.sealed = True
        self._ready.notify_all()

    def _take_extent(self) -> tuple[Extent, list[tuple[int, int, str]], int] | None:
        """The next extent, its pieces (offset, length, kind) and the room they need at worst."""
        if self._held is not None:
            held, self._held = self._held, None
            return held
        extent = next(self._extents, None)
        if extent is None:
            return None
        pieces = [piece for one in extent.ranges for piece in self._cut(one)]
        room = (
            BufferPool.size_for(length) if kind == "data" else length
            for _, length, kind in pieces
            if kind != "hole"
        )
        return extent, pieces, sum(room)

    def _cut(self, one: Range) -> Iterator[tuple[int, int, str]]:
        if one.kind == "zero" and self._target.is_hole(one.offset, one.end):
            yield one.offset, one.length, "hole"
            return
        step = self._piece_bytes if one.kind == "data" else self._zero_piece_bytes
        for offset in range(one.offset, one.end, step):
            yield offset, min(step, one.end - offset), one.kind
