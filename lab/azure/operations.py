"""Long-running operations: begun by a request, finished by the clock, polled by URL, kept on disk.

An operation's work has three parts. ``prepare`` may take long and holds no lock; ``finish`` changes
the state and is saved together with the operation's success; ``undo`` does so for its failure. All
three can be called again for an operation that a kill interrupted, so each is idempotent.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lab.azure.errors import ArmError
from lab.azure.http import Request, Response, json_response
from lab.azure.store import State, Store

_log = logging.getLogger(__name__)

KEEP = 300  # how many finished operations can still be polled; each is a part of every save
RUNNING = "InProgress"

Operation = dict[str, Any]


def _nothing(operation: Operation) -> None:
    return None


def _keep(state: State, operation: Operation) -> None:
    return None


@dataclass(frozen=True)
class Work:
    """What an operation of one kind does; see the module's text."""

    finish: Callable[[State, Operation], Any]
    prepare: Callable[[Operation], None] = _nothing
    undo: Callable[[State, Operation], None] = _keep


def now_text() -> str:
    """The present time as Resource Manager writes it."""
    return datetime.now(UTC).isoformat()


class Operations:
    """All operations of one emulated subscription and the threads that finish them."""

    def __init__(self, store: Store, base_url: str) -> None:
        """``base_url`` is what poll URLs begin with, without a slash at the end."""
        self._store = store
        self._base_url = base_url
        self._works: dict[str, Work] = {}
        self._due: list[tuple[float, str]] = []
        self._wake = threading.Condition()

    def register(self, kind: str, work: Work) -> None:
        """Say what operations of ``kind`` do."""
        self._works[kind] = work

    def start(self) -> None:
        """Take up what a kill left unfinished, and finish operations from now on."""
        with self._store.reading() as state:
            unfinished = [o for o in state["operations"].values() if o["status"] == RUNNING]
        for operation in unfinished:
            self._schedule(operation)
        threading.Thread(target=self._run, name="operations", daemon=True).start()

    def begin(
        self,
        state: State,
        kind: str,
        resource_id: str,
        *,
        location: str,
        seconds: float,
        api_version: str,
        fail: dict[str, str] | None = None,
        preempt: bool = False,
        **params: Any,
    ) -> dict[str, str]:
        """Note an operation that ends in ``seconds``; returns the headers that announce it.

        Must be called inside ``store.changing()``. With ``fail`` (code, message) it will fail. With
        ``preempt`` what still runs on the same resource is failed, as Azure does for VMs.
        """
        self._forget_old(state)
        if preempt:
            self._preempt(state, resource_id)
        operation_id = str(uuid.uuid4())
        operation: Operation = {
            "id": operation_id,
            "ticket": str(uuid.uuid4()),
            "kind": kind,
            "resource": resource_id,
            "params": params,
            "fail": fail,
            "started": now_text(),
            "due": time.time() + seconds,
            "status": RUNNING,
        }
        state["operations"][operation_id] = operation
        self._schedule(operation)
        subscription = resource_id.split("/")[2]
        collection = "operations" if kind.startswith("virtualMachines.") else "DiskOperations"
        url = (
            f"{self._base_url}/subscriptions/{subscription}/providers/Microsoft.Compute/locations/"
            f"{location}/{collection}/{operation_id}"
            f"?p={operation['ticket']}&api-version={api_version}"
        )
        return {"Azure-AsyncOperation": url, "Location": f"{url}&monitor=true"}

    def still_running(self, operation_id: str) -> bool:
        """Whether nothing has ended or preempted the operation; for work that takes long."""
        with self._store.reading() as state:
            operation = state["operations"].get(operation_id)
            return bool(operation and operation["status"] == RUNNING)

    def poll(self, request: Request, operation_id: str) -> Response:
        """Answer a poll of either form: the status document, or the result behind ``Location``."""
        with self._store.reading() as state:
            operation = state["operations"].get(operation_id.lower())
            if operation is None or request.query.get("p") != operation["ticket"]:
                raise ArmError(404, "NotFound", f"The entity '{operation_id}' was not found.")
            operation = dict(operation)
        if request.query.get("monitor", "").lower() == "true":
            return self._monitor(request, operation)
        body = {"startTime": operation["started"], "status": operation["status"]}
        if "ended" in operation:
            body["endTime"] = operation["ended"]
        if operation.get("error"):
            body["error"] = operation["error"]
        elif operation.get("output") is not None:
            body["properties"] = {"output": operation["output"]}
        return json_response(200, {**body, "name": operation["id"]})

    def _monitor(self, request: Request, operation: Operation) -> Response:
        if operation["status"] == RUNNING:
            return Response(202, {"Location": self._base_url + request.target})
        if operation.get("error"):
            return json_response(409, {"error": operation["error"]})
        if operation.get("output") is None:
            return Response(200 if operation["kind"].startswith("virtual") else 204)
        return json_response(200, operation["output"])

    def _schedule(self, operation: Operation) -> None:
        with self._wake:
            heapq.heappush(self._due, (operation["due"], operation["id"]))
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._due or self._due[0][0] > time.time():
                    wait = self._due[0][0] - time.time() if self._due else None
                    self._wake.wait(wait)
                _, operation_id = heapq.heappop(self._due)
            threading.Thread(target=self._execute, args=(operation_id,), daemon=True).start()

    def _execute(self, operation_id: str) -> None:
        with self._store.reading() as state:
            operation = state["operations"].get(operation_id)
            if operation is None or operation["status"] != RUNNING:
                return
            operation = dict(operation)
        work = self._works[operation["kind"]]
        try:
            if operation["fail"]:
                raise ArmError(409, operation["fail"]["code"], operation["fail"]["message"])
            work.prepare(operation)
            with self._store.changing() as state:
                if state["operations"][operation_id]["status"] == RUNNING:
                    output = work.finish(state, operation)
                    _end(state, operation_id, "Succeeded", output=output)
        except ArmError as error:
            self._fail(work, operation, error.code, error.message)
        except Exception as error:
            _log.exception("operation %s broke", operation["kind"])
            self._fail(work, operation, "InternalExecutionError", str(error))

    def _fail(self, work: Work, operation: Operation, code: str, message: str) -> None:
        with self._store.changing() as state:
            if state["operations"][operation["id"]]["status"] == RUNNING:
                work.undo(state, operation)
                error = {"code": code, "message": message}
                _end(state, operation["id"], "Failed", error=error)

    def _preempt(self, state: State, resource_id: str) -> None:
        for operation in state["operations"].values():
            same = operation["resource"].lower() == resource_id.lower()
            if same and operation["status"] == RUNNING:
                error = {
                    "code": "OperationPreempted",
                    "message": "Operation execution has been preempted by a more recent operation.",
                }
                _end(state, operation["id"], "Failed", error=error)

    def _forget_old(self, state: State) -> None:
        finished = [i for i, o in state["operations"].items() if o["status"] != RUNNING]
        for operation_id in finished[:-KEEP]:
            del state["operations"][operation_id]


def _end(state: State, operation_id: str, status: str, **result: Any) -> None:
    state["operations"][operation_id].update(status=status, ended=now_text(), **result)
