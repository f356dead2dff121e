"""The workload that stands in for a machine's operating system and its applications.

While the machine "runs", a thread of the emulator appends numbered, checksummed records to the
machine's disks, dirties and trims scratch pages, and keeps a list of the records it has
acknowledged. It boots only from disks whose log is whole, as an operating system would refuse a
torn file system, and goes on with the next number, wherever it was last. After a failback every
acknowledged record must be there: `verify_acknowledged` reads them all again. What the bytes mean
is in `lab.records`.
"""

import json
import logging
import random
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from lab.records import (
    SITES,
    Disk,
    Log,
    LogDamagedError,
    Record,
    open_log,
    pack_record,
    parse_slot,
)

__all__ = ["Disk", "GuestRunner", "LogDamagedError", "Verdict", "verify_acknowledged"]

_log = logging.getLogger(__name__)

SCRATCH_PAGE = 64 * 1024
"""Bytes dirtied or trimmed at once in the scratch area; Azure reports changes in like sizes."""
SCRATCH_EVERY = 4
"""One scratch page per so many records: at 50 records a second, about 0.8 MB/s of churn."""
TRIM_SHARE = 0.1
"""The part of the scratch operations that clear a page instead of writing it."""


class GuestRunner:
    """One boot-to-shutdown life of a machine's workload; `start` may be called again after `stop`.

    Args:
        site: "azure" or "onprem", written into every record.
        vm: the machine's name, for logs and status.
        disks: the machine's disks by LUN or location.
        state_dir: where ``ack-<site>.jsonl`` is appended to.
        records_per_second: how fast records are written.
        boot_seconds: how long a boot takes before the log is read.
        addresses: the IP addresses that `status` reports once booted.
    """

    def __init__(
        self,
        *,
        site: str,
        vm: str,
        disks: Mapping[int, Disk],
        state_dir: Path,
        records_per_second: float = 50,
        boot_seconds: float = 0.35,
        addresses: Sequence[str] = (),
    ) -> None:
        if site not in SITES:
            raise ValueError(f"site is one of {SITES}, not {site!r}")
        self.site = site
        self.vm = vm
        self.addresses = list(addresses)
        self.refuse_shutdown = False
        """A graceful `stop` answers False and the guest runs on, like a hung service."""
        self.boot_failure: str | None = None
        """A reason for which the next boot fails, like a broken boot loader."""
        self.mute = False
        """The guest works, but no heartbeat reaches the host."""
        self._disks = dict(disks)
        self._acknowledgements = state_dir / f"ack-{site}.jsonl"
        self._interval = 1 / records_per_second
        self._boot_seconds = boot_seconds
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._graceful = False
        self._phase = "off"
        self._error: str | None = None
        self._last: Record | None = None
        self._boot = uuid.UUID(int=0)

    @property
    def running(self) -> bool:
        """Whether the machine is powered on: also while it boots, and after its boot failed."""
        return self._thread is not None

    @property
    def booted(self) -> bool:
        return self._phase == "up"

    def start(self) -> None:
        """Powers the machine on; returns at once, the boot goes on in a thread."""
        if self._thread is not None:
            return
        self._stop = threading.Event()
        self._graceful = False
        self._phase, self._error = "booting", None
        self._boot = uuid.uuid4()
        self._thread = threading.Thread(target=self._live, name=f"guest-{self.vm}", daemon=True)
        self._thread.start()

    def stop(self, graceful: bool, timeout: float) -> bool:
        """Asks the guest to shut down, or cuts its power. After True nothing writes any more.

        Returns:
            False when a graceful stop was refused, could not be asked for (not booted yet),
            or took longer than `timeout` seconds.
        """
        thread = self._thread
        if thread is None:
            return True
        if graceful and (self.refuse_shutdown or self._phase != "up"):
            return False
        self._graceful = graceful
        self._stop.set()
        thread.join(timeout)
        if thread.is_alive():
            return False
        self._thread = None
        self._phase = "off"
        return True

    def status(self) -> dict[str, Any]:
        """Heartbeat ("OK", "Starting", "NoContact", "Off"), addresses, last record, error."""
        heartbeat = {"up": "OK", "booting": "Starting", "off": "Off"}.get(self._phase, "NoContact")
        if self.mute and heartbeat == "OK":
            heartbeat = "NoContact"
        last = self._last
        return {
            "heartbeat": heartbeat,
            "addresses": list(self.addresses) if heartbeat == "OK" else [],
            "sequence": last.sequence if last else 0,
            "last_write": _utc(last.time_ns).isoformat() if last else None,
            "boot_id": str(self._boot),
            "error": self._error,
        }

    def _live(self) -> None:
        stop = self._stop
        try:
            if stop.wait(self._boot_seconds):
                return
            if self.boot_failure:
                raise LogDamagedError(self.boot_failure)
            log = open_log(list(self._disks.values()))
            self._last = log.last()
            self._acknowledgements.parent.mkdir(parents=True, exist_ok=True)
            with self._acknowledgements.open("a", encoding="utf-8") as acknowledgements:
                self._append(log, "boot", acknowledgements)
                self._phase = "up"
                self._work(log, stop, acknowledgements)
        except Exception as error:
            # A guest that dies must not take the emulator with it; its status says why.
            self._phase, self._error = "dead", str(error)
            _log.warning("guest %s at %s is down: %s", self.vm, self.site, error)

    def _work(self, log: Log, stop: threading.Event, acknowledgements: IO[str]) -> None:
        scratch = random.Random(self._boot.int)
        due = time.monotonic()
        count = 0
        while not stop.wait(max(0.0, due - time.monotonic())):
            self._append(log, "data", acknowledgements)
            count += 1
            if count % SCRATCH_EVERY == 0:
                _touch_scratch(log, scratch)
            due = max(due + self._interval, time.monotonic() - 1)
        if self._graceful:
            self._append(log, "shutdown", acknowledgements)

    def _append(self, log: Log, kind: str, acknowledgements: IO[str]) -> None:
        last = self._last
        sequence = last.sequence + 1 if last else 1
        volume, slot = log.place(sequence)
        packed = pack_record(
            sequence,
            volume.layout.index,
            self.site,
            kind,
            time.time_ns(),
            self._boot,
            last.digest if last else bytes(16),
        )
        volume.disk.write(volume.layout.slot_offset(slot), packed)
        self._last = record = parse_slot(packed)
        assert record is not None
        line = {
            "sequence": sequence,
            "disk": record.disk,
            "site": self.site,
            "kind": kind,
            "time_ns": record.time_ns,
            "boot_id": record.boot_id,
            "digest": record.digest.hex(),
        }
        acknowledgements.write(json.dumps(line) + "\n")
        # Into the kernel: from here on a kill of this process cannot take the word back.
        acknowledgements.flush()


def _touch_scratch(log: Log, scratch: random.Random) -> None:
    volume = scratch.choice(log.volumes)
    pages = volume.layout.scratch.length // SCRATCH_PAGE
    if not pages:
        return
    page = scratch.randrange(pages) * SCRATCH_PAGE
    trim = scratch.random() < TRIM_SHARE
    for offset, length in volume.layout.scratch.locate(page, SCRATCH_PAGE):
        if trim:
            volume.disk.clear(offset, length)
        else:
            volume.disk.write(offset, scratch.randbytes(length))


@dataclass
class Verdict:
    """What `verify_acknowledged` found. Sequence numbers; times are UTC.

    `overwritten` counts acknowledged records whose slot the ring has used again since.
    """

    checked: int = 0
    overwritten: int = 0
    missing: list[int] = field(default_factory=list)
    corrupt: list[int] = field(default_factory=list)
    first_onprem_write: datetime | None = None
    last_azure_write: datetime | None = None

    @property
    def whole(self) -> bool:
        """Whether every acknowledged record that must be on the disks is there."""
        return not self.missing and not self.corrupt

    @property
    def downtime(self) -> float | None:
        """Seconds from the last record in Azure to the first one on-premises."""
        if self.first_onprem_write is None or self.last_azure_write is None:
            return None
        return (self.first_onprem_write - self.last_azure_write).total_seconds()


def verify_acknowledged(disks: Mapping[int, Disk], ack_files: Sequence[Path]) -> Verdict:
    """Reads every acknowledged record from the disks and compares it with what was acknowledged.

    Args:
        disks: the machine's disk images, in any order.
        ack_files: ``ack-azure.jsonl`` and ``ack-onprem.jsonl``; a file that is not there is empty.

    Raises:
        LogDamagedError: the disks are not a guest's at all.
    """
    log = open_log(list(disks.values()))
    verdict = Verdict()
    acknowledged = [line for path in ack_files for line in _acknowledged(path)]
    last = max((line["sequence"] for line in acknowledged), default=0)
    for line in acknowledged:
        _verify_one(log, line, last, verdict)
    azure = [line["time_ns"] for line in acknowledged if line["site"] == "azure"]
    onprem = [line["time_ns"] for line in acknowledged if line["site"] == "onprem"]
    verdict.last_azure_write = _utc(max(azure)) if azure else None
    verdict.first_onprem_write = _utc(min(onprem)) if onprem else None
    return verdict


def _verify_one(log: Log, line: Mapping[str, Any], last: int, verdict: Verdict) -> None:
    sequence: int = line["sequence"]
    if log.overwritten(sequence, last):
        verdict.overwritten += 1
        return
    verdict.checked += 1
    try:
        record = parse_slot(log.read(sequence))
    except LogDamagedError:
        verdict.corrupt.append(sequence)
        return
    if record is None or record.sequence < sequence:
        verdict.missing.append(sequence)
    elif record.sequence == sequence and record.digest.hex() != line["digest"]:
        verdict.corrupt.append(sequence)


def _acknowledged(path: Path) -> list[dict[str, Any]]:
    """The lines of an acknowledgement file; a last line cut short was never a promise."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def _utc(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns / 1e9, UTC)
