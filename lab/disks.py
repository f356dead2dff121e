"""A managed disk's bytes: one sparse file, with snapshots by copy-on-write and a log of writes.

A snapshot costs nothing when it is taken. The first write to a 64 KiB cluster afterwards
preserves the cluster's old content in the overlay of the newest snapshot; a snapshot is read
through its own overlay, then those of newer snapshots, then the live file. Deleting a snapshot
hands the clusters it preserved to the next older one, which still needs them.

Every change takes its steps in an order that a ``kill -9`` can cut anywhere: preserve, mark as
preserved, log the range, change the bytes. What can be left over is a range logged but not changed.
What a disk is called, costs or is attached to is left to the emulators.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab import sparse
from lab.writelog import CLEAR, PAGE, WRITE, RangeMap, WriteLog

CLUSTER = 64 * 1024  # bytes; what a first write after a snapshot costs at most to preserve
CACHED_DIFFS = 8  # snapshot pairs; a client pages through one diff with many requests


class DiskError(Exception):
    """A disk or a snapshot is not there, or is used against its rules."""


class _Overlay:
    """The clusters preserved for one snapshot: a sparse file, and the list of what is in it."""

    def __init__(self, directory: Path, snapshot_id: str) -> None:
        self.path = directory / f"{snapshot_id}.overlay"
        self.list_path = directory / f"{snapshot_id}.clusters"
        self.file = sparse.SparseFile(self.path)
        self._list = os.open(self.list_path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        content = os.pread(self._list, os.fstat(self._list).st_size, 0)
        whole = len(content) - len(content) % 8
        os.ftruncate(self._list, whole)
        self.clusters = set(memoryview(content[:whole]).cast("Q"))

    def preserve(self, cluster: int, source: sparse.SparseFile) -> None:
        """Copy ``cluster`` from ``source``, holes as holes, and then mark it as preserved."""
        self.file.copy_range(source, cluster * CLUSTER, CLUSTER)
        os.write(self._list, cluster.to_bytes(8, "little"))
        self.clusters.add(cluster)

    def close(self) -> None:
        os.close(self._list)

    def remove(self) -> None:
        self.close()
        self.list_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


class Disk:
    """A disk in a directory of its own. All methods may be called from any thread."""

    def __init__(self, directory: Path) -> None:
        """Open the disk in ``directory``; :class:`DiskError` if none was made there."""
        self.directory = directory
        self._lock = threading.RLock()
        try:
            self._meta: dict[str, Any] = json.loads((directory / "disk.json").read_text())
        except FileNotFoundError as error:
            raise DiskError(f"no disk in {directory}") from error
        self._live = sparse.SparseFile(directory / "live.raw")
        self._log = WriteLog(directory, self._meta["epoch"])
        self._overlays = {s["id"]: _Overlay(directory, s["id"]) for s in self._meta["snapshots"]}
        self._diffs: OrderedDict[tuple[str, str], RangeMap] = OrderedDict()
        # Counts everything that can change where a snapshot's bytes are found, so that a reader can
        # read without the lock and notice afterwards that it has to read again.
        self._layout_version = 0
        self._finish_removals()

    @staticmethod
    def create(directory: Path, size: int) -> Disk:
        """A new disk of ``size`` bytes, all of it unwritten."""
        return Disk._make(directory, size, None)

    @staticmethod
    def adopt(directory: Path, image: Path, *, move: bool = False, size: int | None = None) -> Disk:
        """A new disk with the content of the raw file ``image``, copied sparsely or moved.

        ``size`` in bytes may exceed the image's; the rest is unwritten.
        """
        wanted = size if size is not None else image.stat().st_size
        if wanted < image.stat().st_size:
            raise DiskError(f"{image} is larger than the {wanted} bytes asked for")
        directory.mkdir(parents=True, exist_ok=True)
        raw = directory / "live.raw"
        if move:
            shutil.move(image, raw)
        else:
            sparse.copy_file(image, raw)
        return Disk._make(directory, wanted, raw)

    @staticmethod
    def copy_of(directory: Path, source: SnapshotView, size: int | None = None) -> Disk:
        """A new disk with the content of a snapshot; holes stay holes."""
        directory.mkdir(parents=True, exist_ok=True)
        raw = directory / "live.raw"
        raw.unlink(missing_ok=True)
        target = sparse.SparseFile(raw)
        for start, end in source.allocated(0, source.size):
            for offset in range(start, end, 1024 * 1024):
                target.write(offset, source.read(offset, min(1024 * 1024, end - offset)))
        return Disk._make(directory, size if size is not None else source.size, raw)

    @staticmethod
    def _make(directory: Path, size: int, raw: Path | None) -> Disk:
        if size <= 0 or size % PAGE:
            raise DiskError(f"a disk's size must be a positive multiple of {PAGE}, not {size}")
        directory.mkdir(parents=True, exist_ok=True)
        if raw is None:
            (directory / "live.raw").touch()
        os.truncate(directory / "live.raw", size)
        # Written last: a directory without it holds no disk, only the start of making one.
        _replace_json(directory / "disk.json", {"size": size, "epoch": 1, "snapshots": []})
        return Disk(directory)

    @property
    def size(self) -> int:
        """The disk's size in bytes."""
        return int(self._meta["size"])

    def read(self, offset: int, length: int) -> bytes:
        """The ``length`` bytes at ``offset`` as they are now."""
        self._check(offset, length)
        with self._lock:
            return self._live.read(offset, length)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Put ``data`` at ``offset``. The range is reported as written, changed or not."""
        self._check(offset, len(data))
        with self._lock:
            self._before_change(offset, len(data))
            self._live.write(offset, data)

    def clear(self, offset: int, length: int) -> None:
        """Make whole pages unwritten: they read as zeros and are reported as cleared."""
        self._check(offset, length)
        if offset % PAGE or length % PAGE:
            raise DiskError(f"only whole pages of {PAGE} bytes can be cleared")
        with self._lock:
            # Were it logged as cleared first, a kill could leave bytes that the log calls zeros.
            self._before_change(offset, length)
            self._live.punch(offset, length)
            self._log.append(CLEAR, offset, length)

    def resize(self, size: int) -> None:
        """Grow the disk to ``size`` bytes; the new part is unwritten. Disks never shrink."""
        with self._lock:
            if size < self.size or size % PAGE:
                raise DiskError(f"cannot resize a disk of {self.size} bytes to {size}")
            self._live.truncate(size)
            self._save({**self._meta, "size": size})

    def snapshot(self) -> str:
        """Freeze the present content; returns the snapshot's id. Takes milliseconds at any size."""
        with self._lock:
            epoch = self._meta["epoch"]
            snapshot_id = f"snapshot-{epoch:06d}-{uuid.uuid4().hex[:8]}"
            self._overlays[snapshot_id] = _Overlay(self.directory, snapshot_id)
            record = {"id": snapshot_id, "epoch": epoch, "size": self.size}
            snapshots = [*self._meta["snapshots"], record]
            self._save({**self._meta, "epoch": epoch + 1, "snapshots": snapshots})
            self._log.begin_epoch(epoch + 1)
            self._layout_version += 1
            return snapshot_id

    def snapshots(self) -> list[str]:
        """Ids of the snapshots, oldest first."""
        return [record["id"] for record in self._meta["snapshots"]]

    def view(self, snapshot_id: str) -> SnapshotView:
        """A snapshot's content, to be read; :class:`DiskError` if there is no such snapshot."""
        with self._lock:
            return SnapshotView(self, snapshot_id, int(self._record(snapshot_id)["size"]))

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Forget a snapshot; what it preserved and the next older one needs goes to that one."""
        with self._lock:
            self._record(snapshot_id)
            records = self._meta["snapshots"]
            position = self.snapshots().index(snapshot_id)
            overlay = self._overlays[snapshot_id]
            if position:
                older = self._overlays[records[position - 1]["id"]]
                for cluster in overlay.clusters - older.clusters:
                    older.preserve(cluster, overlay.file)
            remaining = [record for record in records if record["id"] != snapshot_id]
            self._layout_version += 1
            # From here on the snapshot is gone; its files may outlive a kill, not the next start.
            self._save({**self._meta, "snapshots": remaining})
            self._overlays.pop(snapshot_id).remove()
            self._diffs.clear()
            oldest = remaining[0]["epoch"] if remaining else self._meta["epoch"] - 1
            self._log.forget(oldest)

    def diff(
        self, base_id: str, current_id: str, start: int, end: int
    ) -> list[tuple[int, int, bool]]:
        """What changed between two snapshots within [start, end): (start, end, cleared), in order.

        It follows the writes, not the content: rewriting the same bytes is a change.
        """
        with self._lock:
            base, current = self._record(base_id), self._record(current_id)
            if base["epoch"] > current["epoch"]:
                raise DiskError(f"{base_id} is newer than {current_id}")
            changes = self._diffs.get((base_id, current_id))
            if changes is None:
                changes = self._log.changes(base["epoch"], current["epoch"])
                self._diffs[(base_id, current_id)] = changes
                if len(self._diffs) > CACHED_DIFFS:
                    self._diffs.popitem(last=False)
        window = changes.items(start, min(end, int(current["size"])))
        return [(first, last, operation == CLEAR) for first, last, operation in window]

    def close(self) -> None:
        """Give back the file descriptors. The disk must not be used afterwards."""
        with self._lock:
            self._log.close()
            for overlay in self._overlays.values():
                overlay.close()

    def _before_change(self, offset: int, length: int) -> None:
        if self._meta["snapshots"]:
            newest = self._overlays[self._meta["snapshots"][-1]["id"]]
            clusters = range(offset // CLUSTER, -(-(offset + length) // CLUSTER))
            for cluster in clusters:
                if cluster not in newest.clusters:
                    newest.preserve(cluster, self._live)
                    self._layout_version += 1
        self._log.append(WRITE, offset, length)

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise DiskError(f"{length} bytes at {offset} reach beyond a disk of {self.size} bytes")

    def _record(self, snapshot_id: str) -> dict[str, Any]:
        for record in self._meta["snapshots"]:
            if record["id"] == snapshot_id:
                return dict(record)
        raise DiskError(f"no snapshot {snapshot_id} in {self.directory}")

    def _save(self, meta: dict[str, Any]) -> None:
        _replace_json(self.directory / "disk.json", meta)
        self._meta = meta

    def _finish_removals(self) -> None:
        known = set(self.snapshots())
        for path in self.directory.glob("snapshot-*.*"):
            if path.stem not in known:
                path.unlink(missing_ok=True)

    def _chain(self, snapshot_id: str) -> list[_Overlay]:
        ids = self.snapshots()
        if snapshot_id not in ids:
            raise DiskError(f"no snapshot {snapshot_id} in {self.directory}")
        return [self._overlays[newer] for newer in ids[ids.index(snapshot_id) :]]


class SnapshotView:
    """The frozen content of one snapshot, readable while the disk is being written."""

    def __init__(self, disk: Disk, snapshot_id: str, size: int) -> None:
        """Made by :meth:`Disk.view`; ``size`` is the disk's size when the snapshot was taken."""
        self.disk = disk
        self.snapshot_id = snapshot_id
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        """The ``length`` bytes at ``offset``."""
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with the bytes at ``offset``."""
        if offset < 0 or offset + len(buffer) > self.size:
            raise DiskError(f"{len(buffer)} bytes at {offset} reach beyond the snapshot's end")
        disk = self.disk
        with disk._lock:
            version = disk._layout_version
            pieces = list(self._pieces(offset, offset + len(buffer)))
        self._fill(pieces, offset, buffer)
        if disk._layout_version != version:
            with disk._lock:
                self._fill(self._pieces(offset, offset + len(buffer)), offset, buffer)

    def allocated(self, start: int, end: int, limit: int | None = None) -> list[tuple[int, int]]:
        """The first ``limit`` ranges within [start, end) that hold data, neighbours joined."""
        found: list[tuple[int, int]] = []
        with self.disk._lock:
            for source, first, last in self._pieces(start, min(end, self.size)):
                for data_start, data_end in source.data(first, last):
                    if found and found[-1][1] == data_start:
                        found[-1] = (found[-1][0], data_end)
                    elif limit is not None and len(found) == limit:
                        return found
                    else:
                        found.append((data_start, data_end))
        return found

    def _fill(
        self,
        pieces: Iterator[tuple[sparse.SparseFile, int, int]]
        | list[tuple[sparse.SparseFile, int, int]],
        offset: int,
        buffer: memoryview,
    ) -> None:
        for source, first, last in pieces:
            source.read_into(first, buffer[first - offset : last - offset])

    def _pieces(self, start: int, end: int) -> Iterator[tuple[sparse.SparseFile, int, int]]:
        """Which file holds which part of [start, end). The caller holds the disk's lock."""
        chain = self.disk._chain(self.snapshot_id)
        first_cluster, last_cluster = start // CLUSTER, -(-end // CLUSTER)
        preserved: dict[int, sparse.SparseFile] = {}
        for overlay in reversed(chain):
            for cluster in _within(overlay.clusters, first_cluster, last_cluster):
                preserved[cluster] = overlay.file
        position = start
        for cluster in sorted(preserved):
            cluster_start = max(start, cluster * CLUSTER)
            cluster_end = min(end, (cluster + 1) * CLUSTER)
            if position < cluster_start:
                yield self.disk._live, position, cluster_start
            yield preserved[cluster], cluster_start, cluster_end
            position = cluster_end
        if position < end:
            yield self.disk._live, position, end


def _within(clusters: set[int], first: int, last: int) -> Iterator[int]:
    # A read spans few clusters and a listing spans many: look at the shorter side.
    if last - first < len(clusters):
        return (cluster for cluster in range(first, last) if cluster in clusters)
    return (cluster for cluster in clusters if first <= cluster < last)


def _replace_json(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)
