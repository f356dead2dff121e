"""A real Temporal server, a real control worker with scripted platforms, and the installed
`failback` command, each in a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from models.search import KEYWORDS
from tests.waiting import wait_until

BINARIES = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Server:
    """A `temporal server start-dev` with its state in a file."""

    database: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        attributes = [
            word for name in KEYWORDS for word in ("--search-attribute", f"{name}=Keyword")
        ]
        self.process = subprocess.Popen(
            [
                *(str(BINARIES / "temporal"), "server", "start-dev", "--headless"),
                *("--ip", "127.0.0.1", "--port", str(self.port), "--log-level", "error"),
                *("--http-port", str(free_port()), "--metrics-port", str(free_port())),
                *("--db-filename", str(self.database), *attributes),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: failback("list", server=self).returncode == 0, timeout=30)

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None


def failback(
    *arguments: str, server: Server | None = None, stdin: str = "", by: str = "tester"
) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    environment = {
        **os.environ,
        "TEMPORAL_ADDRESS": server.address if server else "127.0.0.1:1",
        "FAILBACK_BY": by,
    }
    return subprocess.run(
        [str(BINARIES / "failback"), *arguments],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def spec_text(machine: str, vm: str = "vm-1", **more: Any) -> str:
    """A spec as YAML (JSON is YAML). No two machines share one in Azure."""
    return json.dumps(
        {
            "machine": machine,
            "azure": {"subscription_id": f"s-{machine}", "resource_group": "rg-1", "vm": vm},
            "on_premises": {"host": "hv1"},
            "mover": "mover1",
            "sync": {"interval": "1s"},
            **more,
        }
    )


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all tests that do not hurt it."""
    running = Server(tmp_path_factory.mktemp("temporal") / "temporal.db")
    running.start()
    yield running
    running.kill()


@pytest.fixture(scope="session")
def control_worker(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The real workflows, with activities that answer from a script (`scripted_worker.py`)."""
    log = (tmp_path_factory.mktemp("worker") / "worker.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.starter.scripted_worker", server.address],
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
    )
    yield
    process.kill()
    process.wait()


@pytest.fixture
def spec_file(tmp_path: Path) -> Callable[..., str]:
    """Writes a spec and gives its path."""

    def write(machine: str, vm: str = "vm-1", **more: Any) -> str:
        path = tmp_path / f"{machine}.yaml"
        path.write_text(spec_text(machine, vm, **more))
        return str(path)

    return write
