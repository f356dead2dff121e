"""Writes down, in order, which bytes of which file were written and when they became durable."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

import transfer.target


@dataclass(frozen=True)
class Event:
    """A write of `length` bytes at `offset` of `file`, or the moment its writes became durable."""

    kind: Literal["write", "sync"]
    file: str
    offset: int = 0
    length: int = 0


class Recorder:
    """Stands between the engine and the operating system, which does the work all the same."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[Event] = []
        self._lock = threading.Lock()
        self._pwritev, self._pwrite = os.pwritev, os.pwrite
        self._fdatasync, self._fsync = os.fdatasync, os.fsync
        self._fallocate = transfer.target._fallocate
        monkeypatch.setattr(os, "pwritev", self._record_pwritev)
        monkeypatch.setattr(os, "pwrite", self._record_pwrite)
        monkeypatch.setattr(os, "fdatasync", self._record_fdatasync)
        monkeypatch.setattr(os, "fsync", self._record_fsync)
        monkeypatch.setattr(transfer.target, "_fallocate", self._record_fallocate)

    def _record(self, kind: Literal["write", "sync"], file: int, *where: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{file}")).name
        with self._lock:
            self.events.append(Event(kind, name, *where))

    def _record_pwritev(self, file: int, parts: Sequence[bytes], offset: int) -> int:
        """A write counts from its beginning: a kill may leave any part of it."""
        self._record("write", file, offset, sum(len(part) for part in parts))
        return self._pwritev(file, parts, offset)

    def _record_pwrite(self, file: int, content: bytes, offset: int) -> int:
        self._record("write", file, offset, len(content))
        return self._pwrite(file, content, offset)

    def _record_fdatasync(self, file: int) -> None:
        """Durable counts from its end."""
        self._fdatasync(file)
        self._record("sync", file)

    def _record_fsync(self, file: int) -> None:
        self._fsync(file)
        self._record("sync", file)

    def _record_fallocate(self, file: int, mode: int, offset: int, length: int) -> int:
        self._record("write", file, offset, length)
        result = int(self._fallocate(file, mode, offset, length))
        ctypes.set_errno(0)
        return result
