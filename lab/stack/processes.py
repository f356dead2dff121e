"""One process of the lab: started in a session of its own, found again, ended, killed.

Who runs is written in a small file, so that a later command (or a supervisor that was itself killed
and started again) finds the process. A process number alone could by then belong to somebody
else; the file therefore also names the moment the process began, as the kernel counts it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.stack.errors import LabError

POLL_SECONDS = 0.02
STOP_SECONDS = 15.0
"""How long an orderly end may take; Temporal was seen to need almost nine seconds."""
KILL_SECONDS = 10.0
LOG_LINES_SHOWN = 12


@dataclass(frozen=True)
class Identity:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    began: int
    """Clock ticks since the machine's boot."""

    @property
    def alive(self) -> bool:
        """Whether it runs. One that has ended and was not waited for does not."""
        return _began(self.pid) == self.began


class ManagedProcess:
    """A process by its name, whoever started it."""

    def __init__(self, directory: Path, name: str) -> None:
        """``directory`` is the lab's."""
        self.name = name
        self.log_file = directory / "logs" / f"{name}.log"
        self._pid_file = directory / "run" / f"{name}.pid"
        self._child: subprocess.Popen[bytes] | None = None

    def identity(self) -> Identity | None:
        """Who runs under this name now; None if nobody does."""
        self._reap()
        try:
            fields = json.loads(self._pid_file.read_text())
            found = Identity(int(fields["pid"]), int(fields["began"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if found.alive else None

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        working_directory: Path | None = None,
    ) -> Identity:
        """Start ``command``, its output appended to the log.

        Raises:
            LabError: it runs already, or cannot be started at all.
        """
        running = self.identity()
        if running is not None:
            raise LabError(f"{self.name} runs already, as process {running.pid}.")
        for folder in (self.log_file.parent, self._pid_file.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            try:
                child = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=dict(environment),
                    cwd=working_directory,
                    # Ctrl-C in the terminal is for the supervisor, which ends things in order.
                    start_new_session=True,
                )
            except OSError as error:
                raise LabError(f"{self.name} cannot be started: {error}.") from error
        self._child = child
        began = _began(child.pid)
        if began is None:
            raise LabError(f"{self.name} ended at once.{self.log_tail()}")
        identity = Identity(child.pid, began)
        temporary = self._pid_file.with_suffix(".new")
        temporary.write_text(json.dumps({"pid": identity.pid, "began": identity.began}))
        temporary.replace(self._pid_file)
        return identity

    def stop(self, timeout: float = STOP_SECONDS) -> bool:
        """Ask the process to end, and kill it if it does not. Whether it ended by itself."""
        identity = self.ask_to_stop()
        if identity is None or self.wait_gone(identity, timeout):
            return True
        self.kill()
        return False

    def ask_to_stop(self) -> Identity | None:
        """Send SIGTERM and do not wait; who it was sent to."""
        identity = self.identity()
        if identity is not None:
            _signal(identity, signal.SIGTERM, group=False)
        return identity

    def kill(self) -> int | None:
        """``kill -9`` of the process and everything it started; its number, None if none ran.

        Returns when it is gone.
        """
        identity = self.identity()
        if identity is None:
            return None
        _signal(identity, signal.SIGKILL, group=True)
        if not self.wait_gone(identity, KILL_SECONDS):
            raise LabError(f"{self.name} (process {identity.pid}) survives a kill.")
        return identity.pid

    def wait_gone(self, identity: Identity, timeout: float) -> bool:
        """Whether the process is gone within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            self._reap()
            if not identity.alive:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)

    def log_tail(self, lines: int = LOG_LINES_SHOWN) -> str:
        """The end of the log, as a part of an error message."""
        try:
            content = self.log_file.read_bytes()[-16384:].decode(errors="replace")
        except OSError:
            return ""
        last = content.rstrip().splitlines()[-lines:]
        return "".join(f"\n  {line}" for line in [f"The end of {self.log_file}:", *last])

    def peak_memory_bytes(self) -> int | None:
        """The most memory the process ever held (VmHWM); None if it does not run."""
        identity = self.identity()
        if identity is None:
            return None
        try:
            status = Path(f"/proc/{identity.pid}/status").read_text()
        except OSError:
            return None
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return None

    def _reap(self) -> None:
        if self._child is not None and self._child.poll() is not None:
            self._child = None


def _signal(identity: Identity, number: signal.Signals, *, group: bool) -> None:
    try:
        if group:
            os.killpg(identity.pid, number)
        else:
            os.kill(identity.pid, number)
    except ProcessLookupError:
        return


def _began(pid: int) -> int | None:
    """When a process began; None if there is none, or only what is left of one."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        # The command's name, in parentheses, may hold anything; fields are counted from its end.
        fields = text.rpartition(")")[2].split()
        if fields[0] in ("Z", "X") and len(os.listdir(f"/proc/{pid}/task")) == 1:
            return None
    except OSError:
        return None
    # A killed process whose first thread is gone still holds its ports while others are dying.
    return int(fields[19])
