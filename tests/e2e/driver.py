"""Speaks to runs in a lab quickly: the product's own client side, without a process per question.

What a test asserts about *data* comes from the lab, which shares no code with the product.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
import uuid
from collections.abc import Callable
from typing import Any, Self

import winrm
import yaml
from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError

from lab.stack.lab import Lab
from lab.stack.loopback import ask
from models.calls import CONTROL_QUEUE, FAILBACK_WORKFLOW, StartInput
from models.messages import Abort, Message, Reply
from models.spec import FailbackSpec, parse_spec
from models.status import Phase, RunState
from worker.settings import load_settings

LOOK_SECONDS = 0.02


class Driver:
    """One machine's run in a lab."""

    def __init__(self, lab: Lab, client: Client, *, original: bool) -> None:
        self.lab = lab
        self.client = client
        self.run_started = False
        self._handle: WorkflowHandle[Any, RunState] = client.get_workflow_handle(
            self.spec().workflow_id, result_type=RunState
        )
        self.before = self.digests() if original else {}

    @classmethod
    async def connect(cls, lab: Lab, *, original: bool = True) -> Self:
        """A driver for the lab's machine; takes note of how the on-premises disks are now."""
        client = await Client.connect(lab.temporal.address, data_converter=pydantic_data_converter)
        return cls(lab, client, original=original)

    def spec(self, **changes: Any) -> FailbackSpec:
        """The lab's spec with some top-level fields merged over."""
        document = yaml.safe_load(self.lab.spec_file.read_text())
        for name, value in changes.items():
            if isinstance(value, dict) and isinstance(document.get(name), dict):
                document[name] = {**document[name], **value}
            else:
                document[name] = value
        return parse_spec(yaml.safe_dump(document))

    async def start(self, **changes: Any) -> None:
        """Start the run with the lab's spec and some changes."""
        spec = self.spec(**changes)
        self._handle = await self.client.start_workflow(
            FAILBACK_WORKFLOW,
            StartInput(spec=spec, started_by="test"),
            id=spec.workflow_id,
            task_queue=CONTROL_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            result_type=RunState,
        )
        self.run_started = True

    async def latest_run(self) -> str:
        """The Temporal run id of the latest run of the chain."""
        return (await self.client.get_workflow_handle(self.spec().workflow_id).describe()).run_id

    async def until_continued_as_new(self, timeout: float = 60) -> None:
        """Poll until the run has continued as new, and speak to the new one from then on."""
        first = await self.latest_run()
        deadline = time.monotonic() + timeout
        while await self.latest_run() == first:
            if time.monotonic() > deadline:
                raise AssertionError("it never continued as new")
            await asyncio.sleep(LOOK_SECONDS * 10)
        self.follow_latest()

    def follow_latest(self) -> None:
        """From now on speak to whichever run of the chain is the latest."""
        self._handle = self.client.get_workflow_handle(
            self.spec().workflow_id, result_type=RunState
        )

    async def status(self) -> RunState:
        """All that the run knows."""
        return await self._handle.query("status", result_type=RunState)

    async def until(
        self, condition: Callable[[RunState], object], timeout: float = 60, patient: bool = False
    ) -> RunState:
        """Poll the run until the condition holds.

        Args:
            patient: A server or worker that does not answer is asked again.
        """
        deadline = time.monotonic() + timeout
        state: RunState | None = None
        while True:
            try:
                state = await self.status()
                if condition(state):
                    return state
            except RPCError:
                if not patient:
                    raise
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout} s: {_words(state)}")
            await asyncio.sleep(LOOK_SECONDS)

    async def until_phase(
        self, phase: Phase, timeout: float = 60, patient: bool = False
    ) -> RunState:
        """Poll until the run is in a phase; a blocked run fails at once unless patient."""

        def there(state: RunState) -> bool:
            assert patient or state.blocked is None, _words(state)
            assert state.phase is phase or not state.phase.ended, _words(state)
            return state.phase is phase

        return await self.until(there, timeout, patient)

    async def until_blocked(self, code: str, timeout: float = 60) -> RunState:
        """Poll until the run waits for a person for this reason."""
        state = await self.until(lambda s: s.blocked is not None or s.phase.ended, timeout)
        assert state.blocked is not None, _words(state)
        assert state.blocked.code == code, _words(state)
        return state

    async def say(self, name: str, message: Message) -> Reply:
        """As an update: checked, answered."""
        return await self._handle.execute_update(
            name, message, id=str(uuid.uuid4()), result_type=Reply
        )

    async def signal(self, name: str, message: Message) -> None:
        """As a signal."""
        await self._handle.signal(name, message)

    async def cancel(self) -> None:
        """Temporal's own cancel."""
        await self._handle.cancel()

    async def ended(self, timeout: float = 90) -> RunState:
        """The run's result, once it is over."""
        return await asyncio.wait_for(self._handle.result(), timeout)

    async def history_length(self) -> int:
        """Events so far."""
        return (await self._handle.describe()).history_length

    def digests(self) -> dict[str, str]:
        """Of every on-premises disk, without what a booted guest wrote."""
        return {
            disk_id: self.lab.onprem_disk_digest(disk_id) for disk_id in self.lab.world.disk_ids
        }

    async def both_sides_are_as_they_were(self) -> None:
        """The end of every undone run: bytes, power, and nothing left over."""
        assert self.digests() == self.before
        guests = self.lab.guests()
        assert guests["onprem"]["power"] == "Off"
        assert guests["azure"]["power"] == "running", guests
        assert leftovers(self.lab) == {}
        # What the on-premises guest wrote was discarded by a person's word: it is owed no more.
        for acknowledged in self.lab.evidence.acknowledgements(self.lab.machine):
            if "onprem" in acknowledged.name:
                acknowledged.unlink(missing_ok=True)

    async def leave_nothing(self) -> None:
        """After a test that failed half-way: undo its run, so that the next one can begin."""
        if not self.run_started:
            return
        try:
            state = await self.until(lambda _s: True, timeout=30, patient=True)
        except AssertionError:
            return
        if not state.phase.ended:
            await self.signal("abort", Abort(by="test", discard_onprem_changes=True))
            await self.signal("retry", Abort(by="test"))
            await self.ended()


def leftovers(lab: Lab) -> dict[str, list[str]]:
    """What a run left behind; manifests are kept on purpose."""
    found = lab.leftovers()
    journals = [name for name in found.pop("mover files", []) if "run-" in name]
    return {**found, **({"journals": journals} if journals else {})}


def _words(state: RunState | None) -> str:
    if state is None:
        return "the run never answered"
    return f"phase {state.phase}, waiting {state.waiting!r}, blocked {state.blocked}"


def command(*words: object) -> None:
    """Run a command of the system; it must succeed."""
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def another_mover(lab: Lab) -> subprocess.Popen[bytes]:
    """A second process that serves the same mover's queue on the same disks and state."""
    words = lab.command("mover")
    at = words.index("--ready-file")
    del words[at : at + 2]
    return subprocess.Popen(
        words,
        env=lab.child_environment("mover"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def powershell(lab: Lab, script: str) -> str:
    """Run a script on the lab's host, as its administrator would; its output."""
    host = load_settings(lab.config_file).hyperv["hv01"]
    session = winrm.Session(
        host.endpoint,
        auth=(host.username, host.password()),
        transport="ntlm",
        ca_trust_path=host.ca_file,
        proxy=None,
    )
    done = session.run_ps(script)
    assert done.status_code == 0, done.std_err
    return str(done.std_out.decode())


def allow_many_snapshots(lab: Lab) -> None:
    """Lift Azure's limit of seven snapshots in five minutes: tests run one failback after the other
    on the same disks. That the product keeps to the limit is a test of its own."""
    settings = {"snapshots_per_window": 10_000}
    ask(f"http://127.0.0.1:{lab.ports['azure-local']}/lab/settings", settings, method="PUT")
