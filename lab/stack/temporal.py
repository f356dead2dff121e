"""The lab's Temporal: the real server, in one process, with its history in a file of the lab.

It is bound to loopback because it asks nobody who they are. Everything the lab wants to know of it
comes through its HTTP interface, which needs no SDK and a few milliseconds.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.stack.errors import LabError
from lab.stack.loopback import NoAnswerError, RefusedError, ask

DATABASE = "temporal.db"
RETENTION_HOURS = 30 * 24
SEARCH_ATTRIBUTES = ("FailbackMachine", "FailbackPhase", "FailbackPlan", "FailbackPlatform")
SETTINGS = (
    # A cancel reaches a running activity at once instead of with its next heartbeat.
    "frontend.WorkerCommandsEnabled=true",
    "system.enableCancelActivityWorkerCommand=true",
    # A worker that stops leaves no long poll behind that swallows the next task.
    "frontend.enableCancelWorkerPollsOnShutdown=true",
)
WORKFLOW_ID = "failback-{machine}"
"""The id of a machine's run, as the product's users know it."""
ANSWER_SECONDS = 15.0


class Temporal:
    """The server's command line, and questions to it."""

    def __init__(self, directory: Path, ports: Mapping[str, int]) -> None:
        """``ports`` by the names that `lab.stack.supervisor.PORTS` gives them."""
        self._directory = directory
        self._ports = ports
        self.address = f"127.0.0.1:{ports['temporal']}"
        self.web_ui = f"http://127.0.0.1:{ports['temporal-ui']}"
        self.http = f"http://127.0.0.1:{ports['temporal-http']}"
        self._base = f"{self.http}/api/v1/namespaces/default"

    def command(self) -> list[str]:
        """How the server is started."""
        words = [program(), "server", "start-dev", "--ip", "127.0.0.1", "--log-level", "warn"]
        words += ["--db-filename", str(self._directory / DATABASE)]
        for option, name in (
            ("--port", "temporal"),
            ("--ui-port", "temporal-ui"),
            ("--http-port", "temporal-http"),
            ("--metrics-port", "temporal-metrics"),
        ):
            words += [option, str(self._ports[name])]
        for attribute in SEARCH_ATTRIBUTES:
            words += ["--search-attribute", f"{attribute}=Keyword"]
        for setting in SETTINGS:
            words += ["--dynamic-config-value", setting]
        return words

    def ready(self) -> bool:
        """Whether the server answers for its namespace and knows our search attributes."""
        try:
            known = ask(f"{self.http}/api/v1/namespaces/default/search-attributes", timeout=2)
        except (NoAnswerError, RefusedError):
            return False
        return set(SEARCH_ATTRIBUTES) <= set((known or {}).get("customAttributes") or {})

    def keep_history(self) -> None:
        """Keep ended runs for 30 days; the server's own default is one day. Said once, kept.

        Raises:
            LabError: the server refuses.
        """
        marker = self._directory / ".retention-set"
        if marker.exists():
            return
        command = [program(), "operator", "namespace", "update", "-n", "default"]
        command += ["--retention", f"{RETENTION_HOURS}h", "--address", self.address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        if done.returncode:
            raise LabError(f"Temporal does not take its retention: {done.stderr.strip()}")
        marker.touch()

    def query(self, workflow_id: str, name: str) -> Any:
        """What a run answers to a query. Needs a living control worker. Empty lists come as None.

        Raises:
            RefusedError: there is no such run, or nobody to answer for it.
            NoAnswerError: the server is down.
        """
        url = f"{self._base}/workflows/{workflow_id}/query/{name}"
        return ask(url, {"query": {}}, timeout=ANSWER_SECONDS)["queryResult"][0]

    def newest_attribute(self, workflow_id: str, attribute: str) -> str:
        """A search attribute of the newest run with an id; "" if there is none.

        Raises:
            NoAnswerError: the server is down.
        """
        query = urllib.parse.quote(f"WorkflowId='{workflow_id}'")
        answer = ask(f"{self._base}/workflows?pageSize=1&query={query}")
        runs = (answer or {}).get("executions") or []
        if not runs:
            return ""
        fields = (runs[0].get("searchAttributes") or {}).get("indexedFields") or {}
        value = fields.get(attribute)
        if isinstance(value, dict):
            # Here, and only here, the interface leaves a payload as it is.
            value = json.loads(base64.b64decode(value["data"]))
        return str(value or "")

    def describe(self, workflow_id: str) -> dict[str, Any]:
        """What the server knows of a run: also while no worker lives, and after its end.

        Raises:
            RefusedError: there is no such run.
            NoAnswerError: the server is down.
        """
        answer: dict[str, Any] = ask(f"{self._base}/workflows/{workflow_id}")
        return answer


def program() -> str:
    """The ``temporal`` program that came with this installation."""
    beside = Path(sys.executable).with_name("temporal")
    if not beside.exists():
        raise LabError(
            f"There is no Temporal server beside {sys.executable}; `make setup` installs it."
        )
    return str(beside)
