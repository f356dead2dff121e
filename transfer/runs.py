"""What runs keep on this mover: found without the disk, which may be detached or in use by then."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from transfer.files import sync_directory
from transfer.lock import WriterLock

_RUN = "run-"
_DISCARDED = "discarded-"
_UNDONE = "undone-"


def safe_name(name: str) -> str:
    """A disk's or run's name as one path component."""
    if not name:
        raise ValueError("a disk and a run must have a name")
    return quote(name, safe="").replace(".", "%2E")


def disk_directory(state_dir: Path, disk_id: str) -> Path:
    """Where everything about a disk is kept."""
    return state_dir / safe_name(disk_id)


def run_directory(disk: Path, run_id: str) -> Path:
    """Where a run keeps its ledger and journals, below its disk's directory."""
    return disk / f"{_RUN}{safe_name(run_id)}"


def known_runs(state_dir: Path) -> Iterator[tuple[str, str]]:
    """Disk and run of every ledger kept below `state_dir`."""
    for directory in sorted(state_dir.glob(f"*/{_RUN}*")):
        yield unquote(directory.parent.name), unquote(directory.name.removeprefix(_RUN))


def has_journal(state_dir: Path, disk_id: str, run_id: str) -> bool:
    """Whether this mover keeps the journal of a run on a disk."""
    return run_directory(disk_directory(state_dir, disk_id), run_id).is_dir()


def mark_undone(state_dir: Path, disk_id: str, run_id: str) -> None:
    """Remember that a run was rolled back on a disk, before its journal goes: a missing journal
    then means that all is done, and without this mark that it was lost."""
    mark = _mark(state_dir, disk_id, run_id)
    mark.touch()
    sync_directory(mark.parent)


def was_undone(state_dir: Path, disk_id: str, run_id: str) -> bool:
    """Whether `mark_undone` was called for this run and disk."""
    return _mark(state_dir, disk_id, run_id).exists()


def _mark(state_dir: Path, disk_id: str, run_id: str) -> Path:
    return disk_directory(state_dir, disk_id) / f"{_UNDONE}{safe_name(run_id)}"


def forget_run(
    state_dir: Path, disk_id: str, run_id: str, *, wait_for_lock_seconds: float = 30.0
) -> None:
    """Remove a run's journals and ledger although the disk is not here: after a commit, or when a
    disk that the run created is deleted. The manifest stays. A run that is gone already is fine.

    Raises:
        DiskBusy: A writer holds the disk and does not let go.
    """
    disk = disk_directory(state_dir, disk_id)
    directory = run_directory(disk, run_id)
    if not directory.is_dir():
        return
    with contextlib.closing(WriterLock(disk, wait_for_lock_seconds)):
        remove_run(directory)


def remove_run(directory: Path) -> None:
    """Remove a run's files, all or none of them to whoever looks for runs.

    The directory gets another name first: a kill in between must not leave journals without their
    ledger where a later run of that name would take them for its own.
    """
    disk = directory.parent
    directory.rename(disk / f"{_DISCARDED}{directory.name}")
    sync_directory(disk)
    for discarded in disk.glob(f"{_DISCARDED}*"):
        shutil.rmtree(discarded)
    sync_directory(disk)
