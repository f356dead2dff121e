"""Every call on the page about messages, run in the page's order against a real Temporal server and
the real workflows; what the page says of the answers is compared with them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from models import messages
from models.search import KEYWORDS
from tests.docs.tables import DOCS, rows
from tests.starter.conftest import BINARIES, ROOT, failback, free_port, spec_text
from tests.waiting import wait_until
from workflows.failback import FailbackWorkflow

BLOCK = re.compile(r"```(sh|json)\n(.*?)```", re.DOTALL)
# What each machine of the page has gone through before the page speaks of it.
MACHINES = {"app01": "vm-1", "app02": "vm-2", "app03": "sick", "app04": "vm-4"}


@dataclass
class Site:
    """Where the server listens, and a shell's variables for it."""

    port: int
    http_port: int

    @property
    def address(self) -> str:
        """As `tests.starter.conftest.failback` asks for it."""
        return f"127.0.0.1:{self.port}"

    def here(self, text: str) -> str:
        """The page's addresses, replaced by this server's."""
        own = text.replace("127.0.0.1:7233", self.address)
        return own.replace("127.0.0.1:7243", f"127.0.0.1:{self.http_port}")

    def state(self, machine: str) -> dict[str, Any]:
        """What `failback show` says."""
        shown = failback("show", machine, "--json", server=self)  # type: ignore[arg-type]
        assert shown.returncode == 0, shown.stderr
        document: dict[str, Any] = json.loads(shown.stdout)
        return document


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with its HTTP interface, a worker, and the page's machines on their way."""
    folder = tmp_path_factory.mktemp("messages")
    found = Site(free_port(), free_port())
    words = [str(BINARIES / "temporal"), "server", "start-dev", "--headless", "--ip", "127.0.0.1"]
    words += ["--port", str(found.port), "--http-port", str(found.http_port)]
    words += ["--metrics-port", str(free_port()), "--log-level", "error"]
    for name in KEYWORDS:
        words += ["--search-attribute", f"{name}=Keyword"]
    log = (folder / "log").open("wb")
    server = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        wait_until(lambda: failback("list", server=found).returncode == 0, timeout=30)  # type: ignore[arg-type]
        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.starter.scripted_worker", found.address],
            stdout=log,
            stderr=log,
            cwd=ROOT,
        )
        try:
            with ThreadPoolExecutor(len(MACHINES)) as people:
                list(people.map(lambda item: _start(found, folder, *item), MACHINES.items()))
            yield found
        finally:
            worker.kill()
            worker.wait()
    finally:
        server.kill()
        server.wait()


def _start(site: Site, folder: Path, machine: str, vm: str) -> None:
    spec = folder / f"{machine}.yaml"
    more = {"sync": {"interval": "1h"}, "validation": [{"kind": "heartbeat", "timeout": 1}]}
    spec.write_text(spec_text(machine, vm, **more))
    started = failback("start", str(spec), "--json", server=site)  # type: ignore[arg-type]
    assert started.returncode == 0, started.stderr
    wait_until(lambda: site.state(machine)["phase"] == "ready", timeout=40, interval=0.2)
    if vm == "sick":
        failback("run-failover", machine, server=site)  # type: ignore[arg-type]
        wait_until(lambda: site.state(machine)["blocked"], timeout=40, interval=0.2)


def _agrees(said: Any, found: Any) -> bool:
    """Whether an answer holds all that the page shows of it; `…` stands for anything."""
    if isinstance(said, dict):
        return isinstance(found, dict) and all(
            key in found and _agrees(value, found[key]) for key, value in said.items()
        )
    if isinstance(said, list):
        pairs = zip(said, found, strict=False) if isinstance(found, list) else ()
        return (
            isinstance(found, list)
            and len(said) == len(found)
            and all(_agrees(one, other) for one, other in pairs)
        )
    if isinstance(said, str) and "…" in said:
        pattern = re.escape(said).replace("…", ".*")
        return re.fullmatch(pattern, str(found), re.DOTALL) is not None
    return bool(said == found)


def test_every_call_on_the_page_does_what_the_page_says(site: Site) -> None:
    environment = {
        **os.environ,
        "PATH": f"{BINARIES}:{os.environ['PATH']}",
        "TEMPORAL_ADDRESS": site.address,
    }
    before: list[str] = []
    answer, calls, answers = "", 0, 0
    for kind, text in BLOCK.findall((DOCS / "messages.md").read_text()):
        if kind == "json":
            assert _agrees(json.loads(text), json.loads(answer)), f"{text}\nbut:\n{answer}"
            answers += 1
            continue
        script = site.here(text)
        if script.startswith(("HTTP=", "export ")) and len(script.splitlines()) == 1:
            before.append(script)
            continue
        done = subprocess.run(
            ["bash", "-eu", "-c", "".join(before) + script],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        answer, calls = done.stdout, calls + 1
    assert (calls, answers) >= (18, 12)
    ended = {"app01": "completed", "app02": "rolled_back", "app03": "rolled_back"}
    for machine, phase in {**ended, "app04": "rolled_back"}.items():
        wait_until(lambda m=machine, p=phase: site.state(m)["phase"] == p, timeout=20)  # type: ignore[misc]
    said = [entry for entry in site.state("app01")["audit"] if entry["request_id"] == "chat-6"]
    assert len(said) == 1, "the same request_id twice acts once"


def test_the_page_lists_every_message_and_every_field() -> None:
    listed = {name for row in rows("messages.md", 3) for name in re.findall(r"`(\w+)`", row[0])}
    handlers = {
        name.removeprefix("signal_") for name in dir(FailbackWorkflow) if name.startswith("signal_")
    }
    fields = {field for model in messages.Message.__subclasses__() for field in model.model_fields}
    assert listed == handlers | fields
