"""A server whose control worker is away: nothing hangs, everything says what to start, signals are
kept."""

import os
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.starter.conftest import BINARIES, Server, failback
from tests.starter.test_server_state import start_run
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that no worker has ever polled, with one run."""
    running = Server(tmp_path_factory.mktemp("lonely") / "temporal.db")
    running.start()
    start_run(running, "left")
    yield running
    running.kill()


def test_checks_starts_and_doctors_say_which_worker_is_missing(
    lonely: Server, spec_file: Callable[..., str]
) -> None:
    spec = spec_file("app01")
    commands = (("check", spec), ("start", spec), ("doctor", spec), ("show", "left"))
    with ThreadPoolExecutor() as together:
        answers = list(together.map(lambda words: failback(*words, server=lonely), commands))
    for done in answers:
        assert done.returncode == 6
        assert "No control worker is polling" in done.stderr
        assert "failback worker control" in done.stderr
    assert failback("show", "app01", server=lonely).returncode == 4, "something was started"


def test_a_word_that_needs_an_answer_points_to_the_signal(lonely: Server) -> None:
    done = failback("abort", "left", server=lonely)
    assert done.returncode == 6
    assert "--signal" in done.stderr


def test_a_signal_is_taken_while_no_worker_runs(lonely: Server) -> None:
    done = failback("run-failover", "left", "--signal", server=lonely)
    assert done.returncode == 0
    assert "as soon as a control worker runs" in done.stdout


def test_the_list_needs_no_worker(lonely: Server) -> None:
    assert "left" in failback("list", server=lonely).stdout


def test_a_watch_outlives_a_killed_server(tmp_path: Path) -> None:
    server = Server(tmp_path / "temporal.db")
    server.start()
    start_run(server, "patient")
    watching = subprocess.Popen(
        [str(BINARIES / "failback"), "watch", "patient"],
        env={**os.environ, "TEMPORAL_ADDRESS": server.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    lines: queue.Queue[str] = queue.Queue()
    output = watching.stdout
    assert output is not None

    def read() -> None:
        for said in output:
            lines.put(said)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert "No control worker" in lines.get(timeout=30)
        server.kill()
        assert "the failback of patient" in lines.get(timeout=60)
        server.start()
        wait_until(lambda: "No control worker" in lines.get(timeout=60), timeout=60)
        assert watching.poll() is None
    finally:
        watching.kill()
        watching.wait()
        reader.join()
        server.kill()
