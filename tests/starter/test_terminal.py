"""What a person at a terminal is asked, tried through a pseudo-terminal."""

import os
import pty
import subprocess
from collections.abc import Callable

import pytest

from tests.starter.conftest import BINARIES, Server, failback
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("control_worker")


def at_terminal(server: Server, *words: str, answer: str) -> tuple[int, str]:
    """Run a command on a terminal of its own and answer its question."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(BINARIES / "failback"), *words],
        env={**os.environ, "TEMPORAL_ADDRESS": server.address, "TERM": "xterm", "COLUMNS": "100"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        close_fds=True,
    )
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    said = bytearray()
    try:
        while chunk := os.read(ours, 65536):
            said += chunk
    except OSError:
        pass  # a terminal whose other side has closed reads as an error on Linux
    finally:
        os.close(ours)
    return process.wait(timeout=30), said.decode(errors="replace")


def test_start_and_abort_ask_and_no_means_no(server: Server, spec_file: Callable[..., str]) -> None:
    spec = spec_file("asked")
    status, said = at_terminal(server, "start", spec, answer="n")
    assert status == 1
    assert "Start the failback of asked?" in said
    assert "Nothing was done." in said
    assert failback("show", "asked", server=server).returncode == 4
    assert failback("start", spec, server=server).returncode == 0
    status, said = at_terminal(server, "abort", "asked", answer="n")
    assert status == 1
    assert "put both sides back?" in said
    status, _ = at_terminal(server, "abort", "asked", answer="y")
    assert status == 0
    assert failback("watch", "asked", server=server).returncode == 8


def test_commit_names_what_is_deleted_before_it_asks(
    server: Server, spec_file: Callable[..., str]
) -> None:
    assert failback("start", spec_file("last-word"), server=server).returncode == 0
    assert failback("run-failover", "last-word", server=server).returncode == 0
    done = failback("watch", "last-word", "--until", "commit_pending", server=server)
    assert done.returncode == 0
    status, said = at_terminal(server, "commit", "last-word", answer="n")
    assert status == 1
    assert "disk-os" in said
    assert failback("list", server=server).stdout.count("last-word") == 1
    status, _ = at_terminal(server, "commit", "last-word", answer="y")
    assert status == 0
    assert failback("watch", "last-word", server=server).returncode == 0


def test_a_terminal_gets_a_live_picture(server: Server, spec_file: Callable[..., str]) -> None:
    assert failback("start", spec_file("pictured"), server=server).returncode == 0
    status, said = at_terminal(server, "watch", "pictured", "--until", "ready", answer="")
    assert status == 0
    assert "\x1b[" in said
    assert "Failback of pictured" in said
    wait_until(
        lambda: failback("abort", "pictured", server=server).returncode == 0, timeout=30, interval=1
    )
