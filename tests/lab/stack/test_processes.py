"""Processes of the lab are found again, ended, and never mistaken for others."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.stack.errors import LabError
from lab.stack.processes import Identity, ManagedProcess
from tests.waiting import wait_until

SLEEPER = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\n"
    "while True: signal.pause()",
]
PARENT = [
    sys.executable,
    "-c",
    "import signal, subprocess, sys\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
    "print(child.pid, flush=True)\n"
    "signal.pause()",
]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ManagedProcess]:
    made = ManagedProcess(tmp_path, "one")
    yield made
    made.kill()


def _start(process: ManagedProcess, command: list[str]) -> Identity:
    identity = process.start(command, os.environ)
    wait_until(lambda: process.log_file.read_text().strip(), 10)
    return identity


def test_a_process_is_found_by_whoever_looks_later(process: ManagedProcess, tmp_path: Path) -> None:
    identity = _start(process, SLEEPER)
    assert ManagedProcess(tmp_path, "one").identity() == identity
    assert ManagedProcess(tmp_path, "one").stop()
    assert process.identity() is None


def test_a_second_start_is_refused(process: ManagedProcess) -> None:
    identity = _start(process, SLEEPER)
    with pytest.raises(LabError, match=f"already, as process {identity.pid}"):
        process.start(SLEEPER, os.environ)


def test_a_number_that_belongs_to_another_process_is_not_taken_for_ours(
    process: ManagedProcess, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "one.pid").write_text(json.dumps({"pid": os.getpid(), "began": 1}))
    assert process.identity() is None
    assert process.kill() is None


def test_one_that_does_not_listen_is_killed(process: ManagedProcess) -> None:
    _start(process, STUBBORN)
    assert process.stop(timeout=0.3) is False
    assert process.identity() is None


def test_a_kill_takes_its_children_along(process: ManagedProcess) -> None:
    _start(process, PARENT)
    child = int(process.log_file.read_text())
    process.kill()

    def gone() -> bool:
        try:
            stat = Path(f"/proc/{child}/stat").read_text()
        except FileNotFoundError:
            return True
        return stat.rpartition(")")[2].split()[0] == "Z"

    wait_until(gone, 5)


def test_one_that_was_killed_by_somebody_else_is_not_running(process: ManagedProcess) -> None:
    identity = _start(process, SLEEPER)
    os.kill(identity.pid, signal.SIGKILL)
    wait_until(lambda: process.identity() is None, 5)


def test_what_it_wrote_is_kept_over_restarts(process: ManagedProcess) -> None:
    for _ in range(2):
        process.start([sys.executable, "-c", "print('hello')"], os.environ)
        wait_until(lambda: process.identity() is None, 10)
    assert process.log_file.read_text() == "hello\n" * 2
    assert "hello" in process.log_tail()


def test_a_program_that_is_not_there_is_one_clear_message(process: ManagedProcess) -> None:
    with pytest.raises(LabError, match="one cannot be started"):
        process.start(["/nowhere/at/all"], os.environ)


def test_its_peak_memory_is_known_while_it_runs(process: ManagedProcess) -> None:
    assert process.peak_memory_bytes() is None
    _start(process, SLEEPER)
    peak = process.peak_memory_bytes()
    assert peak is not None
    assert 1 << 20 < peak < 1 << 30
