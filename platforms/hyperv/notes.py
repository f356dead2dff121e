"""Marks that a run leaves on a machine: lines in the machine's own notes.

Hyper-V has no tags. A line here says that a run created the machine (`failback-run:`), that it
created a disk file of it (`failback-disk:`), or that it attached one of its disks to a mover
(`failback-attach:`). Each is written before what it speaks of is done, and taken away after that is
undone, so that what a killed process leaves behind can be found and attributed. They are on the
machine that comes home and not on the mover, because one run alone works on that machine, while
many share a mover and would overwrite each other's lines. Whatever else a person wrote there stays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Names of Hyper-V machines become folder names; anything else is replaced.
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
BIRTH_PREFIX = "failback-"
_RUN = re.compile(r"^failback-run:(?P<run>\S+) failback-machine:(?P<machine>\S+)\s*$")
_DISK = re.compile(r"^failback-disk:(?P<path>.+?)\s*$")
_ATTACH = re.compile(
    r"^failback-attach:(?P<run>\S+) failback-machine:(?P<machine>\S+) "
    r"failback-path:(?P<path>.+?)\s*$"
)


@dataclass(frozen=True)
class Attachment:
    """A disk that a run attached to a mover."""

    run_id: str
    machine: str
    path: str

    @property
    def line(self) -> str:
        """As it stands in the notes."""
        return (
            f"failback-attach:{self.run_id} failback-machine:{self.machine} "
            f"failback-path:{self.path}"
        )


@dataclass(frozen=True)
class Creation:
    """The run that created a machine."""

    run_id: str
    machine: str

    @property
    def line(self) -> str:
        """As it stands in the notes."""
        return f"failback-run:{self.run_id} failback-machine:{self.machine}"


def disk_line(path: str) -> str:
    """The line that claims a disk file for the run that created the machine."""
    return f"failback-disk:{path}"


def creation(notes: str) -> Creation | None:
    """The run that created the machine, if one did."""
    for line in notes.splitlines():
        match = _RUN.match(line)
        if match:
            return Creation(match["run"], match["machine"])
    return None


def created_disks(notes: str) -> list[str]:
    """Paths of the disk files that the run created."""
    return [match["path"] for line in notes.splitlines() if (match := _DISK.match(line))]


def attachments(notes: str) -> list[Attachment]:
    """Disks that runs attached to a mover."""
    return [
        Attachment(match["run"], match["machine"], match["path"])
        for line in notes.splitlines()
        if (match := _ATTACH.match(line))
    ]


def with_lines(notes: str, lines: list[str]) -> str:
    """The notes with these lines at their end, each once."""
    for line in lines:
        if line not in notes.splitlines():
            notes = f"{notes}\r\n{line}" if notes else line
    return notes


def without_lines(notes: str, lines: list[str]) -> str:
    """The notes without these lines, and otherwise as they were to the last character."""
    for line in lines:
        own = re.escape(line)
        notes = re.sub(rf"\r?\n{own}(?=\r?\n|\Z)|\A{own}(?:\r?\n|\Z)", "", notes, count=1)
    return notes


def birth_name(run_id: str) -> str:
    """The name that a run's machine bears until it is marked: no moment without a mark."""
    return BIRTH_PREFIX + _UNSAFE.sub("-", run_id)


def checkpoint_name(run_id: str) -> str:
    """The name of a run's checkpoint."""
    return BIRTH_PREFIX + _UNSAFE.sub("-", run_id)


def run_of(name: str) -> str | None:
    """The run that a machine's birth name or a checkpoint's name speaks of."""
    return name[len(BIRTH_PREFIX) :] if name.startswith(BIRTH_PREFIX) else None
