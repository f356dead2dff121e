"""Runs one command and takes its time, processor time and peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024


class CommandFailed(Exception):
    """A contender did not end well; its own words are in the message."""


@dataclass(frozen=True)
class Measurement:
    """One run.

    Attributes:
        wall_seconds: From the start of the process until its target is durable.
        exit_seconds: From the start of the process to its exit.
        cpu_seconds: User and system, children included.
        peak_rss_bytes: Resident memory at most; no lower than this runner's own, which the kernel
            counts for the moment before the command is loaded.
        output: What it wrote to standard output.
    """

    wall_seconds: float
    exit_seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    output: str


def measure(command: Sequence[str], target: Path) -> Measurement:
    """Run a command to its end, then make the target durable.

    Raises:
        CommandFailed: If it does not exit with 0.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stderr is not None
    output = process.stdout.read()
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    ended = time.perf_counter()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        words = errors.decode(errors="replace").strip()[-2000:]
        raise CommandFailed(f"{command[0]} exited with {process.returncode}: {words}")
    make_durable(target)
    return Measurement(
        wall_seconds=time.perf_counter() - started,
        exit_seconds=ended - started,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_rss_bytes=usage.ru_maxrss * 1024,
        output=output.decode(errors="replace"),
    )


def memory_floor(directory: Path) -> int:
    """The least peak memory that can be told: that of a command that needs none."""
    return measure(["true"], directory).peak_rss_bytes


def make_durable(path: Path) -> None:
    """Return once what was written to a file is on its disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *arguments]
