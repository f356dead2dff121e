"""A whole lab in one object: build a world, run it, speak to the product, look at the result.

    with Lab(directory, World.small()) as lab:
        lab.start()
        lab.start_failback()
        lab.wait_phase("ready")
        lab.kill("mover")
        lab.start("mover")
        lab.run_failover()
        lab.wait_phase("commit_pending")

The product is only ever spoken to as a user would: by its command line and by Temporal.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from lab import chaos
from lab.guest import Verdict
from lab.stack import building, evidence
from lab.stack.errors import LabError
from lab.stack.evidence import DiskFile, Evidence
from lab.stack.loopback import ask, send
from lab.stack.ports import FILE as PORTS_FILE
from lab.stack.supervisor import Supervisor, product_command
from lab.stack.temporal import WORKFLOW_ID
from lab.world import World

_LOOK_SECONDS = 0.1
_BLOCKED_LOOK_SECONDS = 2.0
"""A question to the run itself costs more than one about its phase."""
COMMAND_SECONDS = 120.0


class FailbackFailedError(LabError):
    """A command of the product ended with another status than 0."""

    def __init__(self, arguments: tuple[str, ...], done: subprocess.CompletedProcess[str]) -> None:
        self.returncode = done.returncode
        self.stdout, self.stderr = done.stdout, done.stderr
        words = " ".join(arguments)
        said = f"{done.stdout}\n{done.stderr}".strip()
        super().__init__(f"`failback {words}` ended with status {done.returncode}:\n{said}")


class Lab(Supervisor):
    """A lab directory with a world in it. As a context manager it leaves nothing running."""

    def __init__(
        self, directory: Path, world: World | None = None, *, usual_ports: bool = False
    ) -> None:
        """Open the lab in ``directory``; build ``world`` if there is none yet.

        Without a world, a new lab gets the demo's. An existing one keeps its own; asking for a
        different one is a `LabError`.
        """
        directory = directory.resolve()
        known = World.load(directory)
        if known is not None and world is not None and known != world:
            raise LabError(f"{directory} holds another world already; choose another directory.")
        if known is None and not is_ours(directory):
            raise LabError(f"{directory} holds something that is no lab; choose another directory.")
        self.world = known or world or World.demo()
        super().__init__(directory, usual_ports=usual_ports, mover=self.world.mover)
        if known is None:
            building.build(self.directory, self.world, self.ports)
        self.evidence = Evidence(self.directory)

    def __enter__(self) -> Lab:
        """Have everything killed should this process die."""
        self.leash()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all processes, unless the lab was released."""
        if not self._released:
            self.stop()

    @property
    def machine(self) -> str:
        """The machine's name."""
        return self.world.machine

    @property
    def spec_file(self) -> Path:
        """The spec of the machine's failback."""
        return self.directory / f"{self.machine}.yaml"

    # --- the product, as its user sees it -----------------------------------------------------

    def failback(
        self, *arguments: str, check: bool = True, timeout: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run one command of the product in this lab.

        Raises:
            FailbackFailedError: with ``check``, it ended with a status other than 0.
            LabError: it had not ended in time.
        """
        try:
            done = subprocess.run(
                [*product_command(), *arguments],
                env=self.child_environment("cli"),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            words = " ".join(arguments)
            raise LabError(f"`failback {words}` had not ended after {timeout:.0f} s.") from error
        if check and done.returncode:
            raise FailbackFailedError(arguments, done)
        return done

    def failback_json(self, *arguments: str, timeout: float = COMMAND_SECONDS) -> Any:
        """What a command says with ``--json``."""
        return json.loads(self.failback(*arguments, "--json", timeout=timeout).stdout)

    def start_failback(self, *options: str) -> Any:
        """Start the machine's failback, checks included; what `failback start --json` says."""
        return self.failback_json("start", str(self.spec_file), "--yes", *options)

    def run_failover(self, *options: str) -> Any:
        """Say "run failover now"."""
        return self.failback_json("run-failover", self.machine, *options)

    def commit(self, *options: str) -> Any:
        """Say "commit"."""
        return self.failback_json("commit", self.machine, "--yes", *options)

    def abort(self, *options: str) -> Any:
        """Say "abort"."""
        return self.failback_json("abort", self.machine, "--yes", *options)

    def retry(self, *options: str) -> Any:
        """Say "retry" to a blocked run."""
        return self.failback_json("retry", self.machine, *options)

    def doctor(self) -> Any:
        """What `failback doctor` finds; it must not end with "leftovers found"."""
        return self.failback_json("doctor", str(self.spec_file))

    def status(self, machine: str | None = None) -> dict[str, Any]:
        """All that a run knows of itself. Needs a living control worker.

        Raises:
            LabError: there is no run, or nobody to answer for it.
        """
        workflow_id = WORKFLOW_ID.format(machine=machine or self.machine)
        answer: dict[str, Any] = self.temporal.query(workflow_id, "status")
        return answer

    def phase(self, machine: str | None = None) -> str:
        """The phase of a run as Temporal lists it, also while no worker lives; "" without one."""
        workflow_id = WORKFLOW_ID.format(machine=machine or self.machine)
        return self.temporal.newest_attribute(workflow_id, "FailbackPhase")

    def copies(self) -> list[dict[str, Any]]:
        """How far the running copies are, a mapping per disk, as the movers last said."""
        described = self.temporal.describe(WORKFLOW_ID.format(machine=self.machine))
        pending = described.get("pendingActivities") or []
        said = [one["heartbeatDetails"][0] for one in pending if one.get("heartbeatDetails")]
        return [one for one in said if isinstance(one, dict) and one.get("disk_id")]

    def wait_phase(
        self, *phases: str, timeout: float = 60.0, blocked_ok: bool = False
    ) -> dict[str, Any]:
        """Wait until the run is in one of ``phases``; what it then knows of itself.

        Raises:
            LabError: not in time; or the run ended otherwise, or waits for a person who will not
                come (`blocked_ok` waits on).
        """
        deadline = time.monotonic() + timeout
        look_closer = time.monotonic() + _BLOCKED_LOOK_SECONDS
        phase = ""
        while True:
            try:
                phase = self.phase()
                if phase in phases:
                    return self.status()
                if phase in ("completed", "rolled_back"):
                    raise LabError(f"The run is {phase}; waited for {' or '.join(phases)}.")
                if not blocked_ok and time.monotonic() > look_closer:
                    self._refuse_blocked(phases)
                    look_closer = time.monotonic() + _BLOCKED_LOOK_SECONDS
            except LabError as error:
                if isinstance(error, RunStuckError) or phase in ("completed", "rolled_back"):
                    raise
                # A server or worker that was killed a moment ago is asked again.
            if time.monotonic() >= deadline:
                what = self._words()
                raise LabError(
                    f"Not {' or '.join(phases)} within {timeout:.0f} s but {phase!r}. {what}"
                )
            time.sleep(_LOOK_SECONDS)

    def _refuse_blocked(self, phases: tuple[str, ...]) -> None:
        blocked = self.status().get("blocked")
        if blocked:
            raise RunStuckError(
                f"The run is blocked on its way to {' or '.join(phases)}: {blocked['step']}: "
                f"{blocked['code']} {blocked['message']}"
            )

    def _words(self) -> str:
        try:
            state = self.status()
        except LabError as error:
            return f"It cannot be asked: {error}"
        return f"blocked: {state.get('blocked')}; waiting: {state.get('waiting')!r}"

    # --- the weather --------------------------------------------------------------------------

    def add_rule(self, operation: str, action: str, **fields: Any) -> str:
        """Make an emulator misbehave (`lab.chaos` has the fields); the rule's id."""
        return chaos.add(self.directory, {"operation": operation, "action": action, **fields})

    def remove_rule(self, rule_id: str | None = None) -> None:
        """End one rule, or all of them."""
        if rule_id is None:
            chaos.clear(self.directory)
        else:
            chaos.remove(self.directory, rule_id)

    def hits(self, rule_id: str) -> int:
        """How many operations a rule has matched so far."""
        return chaos.hits(self.directory, rule_id)

    def rules(self) -> dict[str, dict[str, Any]]:
        """The rules in force by id."""
        return chaos.list_rules(self.directory)

    def set_guest(self, **settings: Any) -> None:
        """Change the guest in Azure, for example ``refuse_shutdown=True``."""
        ask(f"{self._azure_url}/guests/{self.machine}", settings)

    def write_azure(self, disk_id: str, offset: int, content: bytes) -> None:
        """Write to a disk in Azure, as its machine would; padded with zeros to whole pages."""
        padded = content + bytes(-len(content) % 512)
        url = f"{self._azure_url}/disks/{self.world.azure_disk(disk_id)}?offset={offset}"
        send(url, padded, "PUT")

    def clear_azure(self, disk_id: str, offset: int, length: int) -> None:
        """Clear (TRIM) a range of a disk in Azure, as its machine would."""
        disk = self.world.azure_disk(disk_id)
        send(f"{self._azure_url}/disks/{disk}?offset={offset}&length={length}", None, "DELETE")

    # --- what is true -------------------------------------------------------------------------

    def guests(self) -> dict[str, dict[str, Any]]:
        """What the machine's guest says of itself on each side: ``azure`` and ``onprem``."""
        azure = ask(f"{self._azure_url}/guests").get(self.machine, {})
        state = ask(f"http://127.0.0.1:{self.ports['hyperv-admin']}/lab/state")
        here = [m for m in state["machines"] if m["name"] == self.machine]
        onprem = {"power": here[0]["state"], **(here[0]["guest"] or {})} if here else {}
        return {"azure": azure, "onprem": onprem}

    def azure_disk(self, disk_id: str) -> DiskFile:
        """A disk (``os``, ``lun0``, …) in Azure as it is now."""
        return self.evidence.azure_disk(self.world.azure_disk(disk_id))

    def onprem_disk(self, disk_id: str) -> DiskFile:
        """The same disk on the host, without what a booted guest wrote over its checkpoint."""
        number = self.world.disk_ids.index(disk_id)
        return self.evidence.on_premises_disk(self.machine, number)

    def azure_disk_digest(self, disk_id: str) -> str:
        """A digest of a disk in Azure as it is now."""
        return evidence.digest(self.azure_disk(disk_id))

    def onprem_disk_digest(self, disk_id: str) -> str:
        """A digest of a disk on the host (see `onprem_disk`)."""
        return evidence.digest(self.onprem_disk(disk_id))

    def differences(self) -> dict[str, int]:
        """The first differing byte of every disk in which the two sides differ."""
        found = {}
        for disk_id in self.world.disk_ids:
            at = evidence.first_difference(self.azure_disk(disk_id), self.onprem_disk(disk_id))
            if at is not None:
                found[disk_id] = at
        return found

    def verify_records(self) -> Verdict:
        """Read every acknowledged record from the on-premises disks."""
        return self.evidence.verify_records(self.machine)

    def leftovers(self) -> dict[str, list[str]]:
        """Everything that a run which cleaned up has none of; empty if there is nothing."""
        return self.evidence.leftovers(self.world.mover)

    @property
    def _azure_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['azure-local']}/lab"


def is_ours(directory: Path) -> bool:
    """Whether a directory may become a lab: it is new, empty, or was begun as one."""
    return (
        not directory.exists() or (directory / PORTS_FILE).exists() or not any(directory.iterdir())
    )


class RunStuckError(LabError):
    """The run waits for a person."""
