"""The ledger: which extents of a round are durably applied, and what became of each round.

An append-only file of one line per event, each with its checksum, so that a line torn by a crash is
seen and cut off. It, not a heartbeat, says where to resume. The latest attempt at a round is a
*layer* and has its own journal; layers are rolled back newest first.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from models.errors import DiskMismatch, StateCorrupt
from transfer.files import (
    READ_WRITE,
    full_disk_is_reported,
    open_private,
    sync_directory,
    write_all,
)
from transfer.journal import LANES
from transfer.plan import Counters

State = Literal["open", "durable", "rolling-back"]


@dataclass(slots=True)
class Layer:
    """One attempt at a round that has its own journal.

    Attributes:
        layer: Counts the run's layers from 1.
        number: Of the round.
        source_id: Of the snapshot it brings.
        method: Of the round.
        extent_bytes: Of the grid its extents are counted in.
        new_disk: Whether the target was taken as zeros and not read.
        before: The manifest as it was: its `source_id` and whether it was complete.
        audited: Blocks the audit compared, and
        audit_seed: the seed they were drawn with.
        state: `open` until durable; `rolling-back` until it is gone.
        lane_ends: Bytes of each lane of the journal that are known to be durable.
        restored_ends: Bytes of each lane whose old content is back on the target.
        counters: Summed over the durable extents.
        done: A bit per extent.
        attempts: How many times it was begun or resumed.
        result: What the durable round reported.
    """

    layer: int
    number: int
    source_id: str
    method: str
    extent_bytes: int
    new_disk: bool
    before: dict[str, Any]
    audited: int = 0
    audit_seed: int = 0
    state: State = "open"
    lane_ends: list[int] = field(default_factory=lambda: [0] * LANES)
    restored_ends: list[int] = field(default_factory=lambda: [0] * LANES)
    counters: Counters = field(default_factory=Counters)
    done: bytearray = field(default_factory=bytearray)
    attempts: int = 0
    result: dict[str, Any] | None = None

    def is_done(self, extent: int) -> bool:
        """Whether the extent is durably applied."""
        place = extent >> 3
        return place < len(self.done) and bool(self.done[place] >> (extent & 7) & 1)

    def mark_done(self, extents: list[int]) -> None:
        """Mark extents as durably applied."""
        for extent in extents:
            place = extent >> 3
            if place >= len(self.done):
                self.done.extend(bytes(place + 1 - len(self.done)))
            self.done[place] |= 1 << (extent & 7)


class Ledger:
    """A run's ledger of one disk, open for appending.

    Args:
        path: The file; created if it is not there.

    Raises:
        StateCorrupt: If a line that is not the last cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layers: list[Layer] = []
        self.next_layer = 1
        self._size = 0
        fresh = not path.exists()
        self._descriptor = open_private(path, READ_WRITE)
        try:
            self._end = self._replay()
            with full_disk_is_reported(path):
                os.ftruncate(self._descriptor, self._end)
                if fresh:
                    os.fsync(self._descriptor)
                    sync_directory(path.parent)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def opened(self, generation: int, size: int) -> None:
        """Note that a writer of this generation took the disk, which has `size` bytes.

        Raises:
            DiskMismatch: If the disk had another size when the rounds that are kept were applied.
        """
        if self.layers and self._size != size:
            raise DiskMismatch(
                f"The disk has {size} bytes, but had {self._size} when this run wrote it.",
                hint="Give it its former size again, then abort or go on.",
            )
        event = {"event": "opened", "generation": generation, "size": size}
        self._append(event, durable=True)

    def begin(self, layer: Layer) -> Layer:
        """Note that a layer is about to be written, or resumed."""
        event = {
            "event": "begin",
            "layer": layer.layer,
            "round": layer.number,
            "source_id": layer.source_id,
            "method": layer.method,
            "extent_bytes": layer.extent_bytes,
            "new_disk": layer.new_disk,
            "before": layer.before,
            "audited": layer.audited,
            "audit_seed": layer.audit_seed,
        }
        self._append(event, durable=True)
        return self.layers[-1]

    def applied(
        self,
        layer: Layer,
        extents: list[int],
        lane: int,
        end: int,
        counters: Counters,
        *,
        durable: bool,
    ) -> None:
        """Note that extents are applied; their data, old content and digests must be durable.

        Args:
            layer: Their layer.
            extents: Grid indexes, in order.
            lane: Of the journal that holds their old content.
            end: Of that lane's durable records.
            counters: What these extents took.
            durable: False where nothing was written, so that losing the line costs only reading.
        """
        event = {
            "event": "applied",
            "layer": layer.layer,
            "extents": list(_joined(extents)),
            "lane": lane,
            "end": end,
            "counters": asdict(counters),
        }
        self._append(event, durable=durable)

    def durable(self, layer: Layer, result: dict[str, Any]) -> None:
        """Note that a round is durable as a whole."""
        self._append({"event": "durable", "layer": layer.layer, "result": result}, durable=True)

    def rolling_back(self, layer: Layer) -> None:
        """Note that a layer is about to be rolled back; it can only be finished then."""
        self._append({"event": "rolling-back", "layer": layer.layer}, durable=True)

    def restored(self, layer: Layer, lane: int, end: int) -> None:
        """Note that a lane's records up to `end` are durably back on the target."""
        event = {"event": "restored", "layer": layer.layer, "lane": lane, "end": end}
        self._append(event, durable=True)

    def rolled_back(self, layer: Layer) -> None:
        """Note that a layer's blocks are as they were before it."""
        self._append({"event": "rolled-back", "layer": layer.layer}, durable=True)

    def _append(self, event: dict[str, Any], *, durable: bool) -> None:
        body = json.dumps(event, separators=(",", ":")).encode()
        line = b"%08x %s\n" % (zlib.crc32(body), body)
        write_all(self._descriptor, [line], self._end, self.path)
        if durable:
            with full_disk_is_reported(self.path):
                os.fdatasync(self._descriptor)
        self._end += len(line)
        self._apply(event)

    def _replay(self) -> int:
        """Apply every whole line; returns where the last one ends."""
        position, torn = 0, False
        with self.path.open("rb") as lines:
            for line in lines:
                event = _parse(line)
                if event is None:
                    torn = True
                elif torn:
                    raise StateCorrupt(
                        f"{self.path} is damaged at byte {position}.",
                        hint="Do not edit it. Restore the state directory from a backup.",
                    )
                else:
                    self._apply(event)
                    position += len(line)
        return position

    def _apply(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "begin":
            self._apply_begin(event)
        elif kind == "opened":
            self._size = event["size"]
        else:
            layer = next(one for one in self.layers if one.layer == event["layer"])
            self._apply_to(layer, kind, event)

    def _apply_begin(self, event: dict[str, Any]) -> None:
        known = [one for one in self.layers if one.layer == event["layer"]]
        if not known:
            layer = Layer(
                layer=event["layer"],
                number=event["round"],
                source_id=event["source_id"],
                method=event["method"],
                extent_bytes=event["extent_bytes"],
                new_disk=event["new_disk"],
                before=event["before"],
                audited=event["audited"],
                audit_seed=event["audit_seed"],
            )
            self.layers.append(layer)
            self.next_layer = layer.layer + 1
        self.layers[-1].attempts += 1

    def _apply_to(self, layer: Layer, kind: str, event: dict[str, Any]) -> None:
        if kind == "applied":
            for first, count in event["extents"]:
                layer.mark_done(list(range(first, first + count)))
            layer.lane_ends[event["lane"]] = event["end"]
            layer.counters.add(Counters(**event["counters"]))
        elif kind == "durable":
            layer.state = "durable"
            layer.result = event["result"]
            layer.done = bytearray()
        elif kind == "rolling-back":
            layer.state = "rolling-back"
        elif kind == "restored":
            layer.restored_ends[event["lane"]] = event["end"]
        elif kind == "rolled-back":
            self.layers.remove(layer)


def _joined(extents: list[int]) -> Iterator[list[int]]:
    """Indexes in order as [first, count] pairs."""
    first, count = -1, 0
    for extent in extents:
        if extent == first + count:
            count += 1
            continue
        if count:
            yield [first, count]
        first, count = extent, 1
    if count:
        yield [first, count]


def _parse(line: bytes) -> dict[str, Any] | None:
    checksum, _, body = line.removesuffix(b"\n").partition(b" ")
    try:
        if len(body) + 10 != len(line) or int(checksum, 16) != zlib.crc32(body):
            return None
        event: dict[str, Any] = json.loads(body)
    except ValueError:
        return None
    return event
