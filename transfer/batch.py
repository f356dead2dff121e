"""A batch: whole extents that are read together and made durable together.

A few batches exist at a time: one is filled by the readers while the committer saves, writes and
proves the ones before. Their size bounds the memory of a round and what a kill makes it repeat.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from transfer.blocks import Buffer
from transfer.plan import Counters
from transfer.ranges import Kind


@dataclass(slots=True)
class Piece:
    """What one reader takes at a time.

    Attributes:
        kind: `data` is read from the source, `zero` must become zeros, `hole` is zeros already.
    """

    batch: Batch
    offset: int
    length: int
    kind: Kind | str


@dataclass(frozen=True, slots=True)
class Change:
    """Blocks that the target must get.

    Attributes:
        offset: On the disk.
        length: Bytes.
        buffer: Holds their content; None for zeros.
        start: Of the content, in the buffer.
    """

    offset: int
    length: int
    buffer: Buffer | None = None
    start: int = 0


@dataclass(slots=True)
class Batch:
    """Extents in flight, and what their pieces found to do.

    Attributes:
        lane: Of the journal that holds their old content.
        extents: Grid indexes, in order.
        room: Bytes of memory and old content they may take, at worst.
        holes: Bytes that are zeros on both sides.
        pending: Pieces handed out or about to be, not yet finished.
        stage: Of the committer, that comes next.
        journal_end: Of its lane, once its old content is durable.
        sealed: Whether all pieces were handed out.
        changes: What differs.
        digests: (first block, digests) of what was read.
        clear: (first block, count) of what is zeros now.
        buffers: Hold the content of `changes`.
    """

    lane: int
    extents: list[int] = field(default_factory=list)
    room: int = 0
    holes: int = 0
    pending: int = 0
    stage: int = 0
    journal_end: int = 0
    sealed: bool = False
    changes: list[Change] = field(default_factory=list)
    digests: list[tuple[int, bytes]] = field(default_factory=list)
    clear: list[tuple[int, int]] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_read(self) -> bool:
        """Whether the readers are through with it."""
        return self.sealed and not self.pending

    @property
    def is_dirty(self) -> bool:
        """Whether it changes the target."""
        return bool(self.changes)
