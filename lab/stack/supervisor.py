"""Starts and ends the lab's processes, and knows when each is ready.

Processes, by the names that people use: ``temporal``, ``azure``, ``hyperv``, and the product's own
two workers, ``control`` and ``mover``. The lab starts the product as a user would, by its command
line. Ports, addresses and certificates belong to the lab's directory, so that any process can be
killed and started again while the others go on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from lab.stack import ports as port_book
from lab.stack.errors import LabError
from lab.stack.processes import POLL_SECONDS, STOP_SECONDS, Identity, ManagedProcess
from lab.stack.temporal import Temporal

PLATFORMS = ("temporal", "azure", "hyperv")
WORKERS = ("control", "mover")
NAMES = (*PLATFORMS, *WORKERS)
PORTS = (
    "temporal",
    "temporal-ui",
    "temporal-http",
    "temporal-metrics",
    "azure-arm",
    "azure-data",
    "azure-local",
    "hyperv-https",
    "hyperv-http",
    "hyperv-admin",
)
# Temporal's own defaults: while they are free, every Temporal tool finds the lab by itself.
USUAL_PORTS = {"temporal": 7233, "temporal-ui": 8233}

READY_SECONDS = 60.0
"""How long a process may take to be ready; a loaded CI machine is slow, not broken."""
CONFIG_FILE = "worker.toml"
# What would lead the product to somebody's real cloud, cluster or collector.
_FOREIGN_PREFIXES = ("AZURE_", "TEMPORAL_", "FAILBACK_", "IDENTITY_", "MSI_", "OTEL_")


class Supervisor:
    """The processes of one lab directory, whoever started them."""

    def __init__(self, directory: Path, *, usual_ports: bool = False, mover: str = "mover01"):
        """Open or begin the lab in ``directory``.

        Args:
            directory: Everything of the lab is in here.
            usual_ports: Take Temporal's usual ports if they are free.
            mover: Name of the mover.
        """
        self.directory = directory.resolve()
        self.mover = mover
        preferred = USUAL_PORTS if usual_ports else None
        self.ports = port_book.load_or_choose(self.directory, PORTS, preferred)
        self.temporal = Temporal(self.directory, self.ports)
        self._processes = {name: ManagedProcess(self.directory, name) for name in NAMES}
        self._leash: subprocess.Popen[bytes] | None = None
        self._released = False

    # --- processes ----------------------------------------------------------------------------

    def start(self, *names: str, timeout: float = READY_SECONDS) -> None:
        """Start processes (all, if none are named) side by side, and return when they are ready.

        Those that run already are left alone.

        Raises:
            LabError: one ended or was not ready in time; the end of its log is in the message.
        """
        deadline = time.monotonic() + timeout
        for name in _checked(names):
            if self._processes[name].identity() is None:
                self.spawn(name)
        for name in _checked(names):
            self.wait_ready(name, max(0.0, deadline - time.monotonic()))

    def spawn(self, name: str) -> Identity:
        """Start one process and do not wait until it is ready."""
        (process,) = (self._processes[one] for one in _checked((name,)))
        self._ready_file(name).unlink(missing_ok=True)
        return process.start(self.command(name), self.child_environment(name))

    def wait_ready(self, name: str, timeout: float = READY_SECONDS) -> None:
        """Return when a process is ready.

        Raises:
            LabError: it does not run, ended, or was not ready in time.
        """
        process = self._processes[name]
        deadline = time.monotonic() + timeout
        while True:
            identity = process.identity()
            if identity is None:
                raise LabError(f"{name} has ended before it was ready.{process.log_tail()}")
            if self._is_ready(name, identity):
                break
            if time.monotonic() >= deadline:
                raise LabError(f"{name} was not ready in {timeout:.0f} s.{process.log_tail()}")
            time.sleep(POLL_SECONDS)
        if name == "temporal":
            self.temporal.keep_history()

    def stop(self, *names: str, timeout: float = STOP_SECONDS) -> None:
        """End processes (all, if none are named) in good order: workers before what they use."""
        wanted = _checked(names)
        for group in (WORKERS, PLATFORMS):
            asked = {n: self._processes[n].ask_to_stop() for n in group if n in wanted}
            for name, identity in asked.items():
                process = self._processes[name]
                if identity is not None and not process.wait_gone(identity, timeout):
                    process.kill()
        if not names:
            self._unleash()

    def kill(self, name: str) -> int | None:
        """``kill -9`` a process and what it started; returns its number when it is gone."""
        (process,) = (self._processes[one] for one in _checked((name,)))
        return process.kill()

    def restart(self, name: str, timeout: float = READY_SECONDS) -> None:
        """End a process in good order and start it again, on the same ports and state."""
        self.stop(name)
        self.start(name, timeout=timeout)

    def pid(self, name: str) -> int | None:
        """The number of a process; None if it does not run."""
        identity = self._processes[name].identity()
        return identity.pid if identity else None

    def running(self) -> dict[str, int]:
        """The numbers of all processes that run."""
        return {name: pid for name in NAMES if (pid := self.pid(name)) is not None}

    def log_file(self, name: str) -> Path:
        """Where a process writes its output."""
        return self._processes[_checked((name,))[0]].log_file

    def peak_memory_bytes(self, name: str) -> int | None:
        """The most memory a running process ever held."""
        return self._processes[name].peak_memory_bytes()

    def leash(self) -> None:
        """Have all processes killed when this process ends, however it ends.

        A small helper process waits for that; `stop` without names ends the helper too.
        """
        if self._leash is None or self._leash.poll() is not None:
            self._leash = subprocess.Popen(
                [sys.executable, "-m", "lab.stack.leash", str(self.directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def release(self) -> None:
        """Take the leash off: all processes go on when this one ends."""
        if self._leash is not None and self._leash.stdin is not None:
            self._leash.stdin.write(b"released")
            self._leash.stdin.flush()
        self._released = True
        self._unleash()

    def _unleash(self) -> None:
        if self._leash is not None and self._leash.stdin is not None:
            self._leash.stdin.close()
            self._leash.wait()
            self._leash = None

    # --- what they are told -------------------------------------------------------------------

    @property
    def config_file(self) -> Path:
        """The workers' configuration."""
        return self.directory / CONFIG_FILE

    @property
    def env(self) -> dict[str, str]:
        """What a user of this lab sets; the same variables as for the real platforms."""
        return {
            "TEMPORAL_ADDRESS": self.temporal.address,
            "TEMPORAL_NAMESPACE": "default",
            "FAILBACK_CONFIG": str(self.config_file),
            **self.identity,
        }

    @property
    def identity(self) -> dict[str, str]:
        """The managed identity of the emulated Azure, as App Service announces one."""
        try:
            secret = json.loads((self.directory / "azure.json").read_text())["identity_header"]
        except (OSError, KeyError, ValueError):
            return {}
        endpoint = f"http://127.0.0.1:{self.ports['azure-local']}/msi/token"
        return {"IDENTITY_ENDPOINT": endpoint, "IDENTITY_HEADER": str(secret)}

    def child_environment(self, name: str = "") -> dict[str, str]:
        """The whole environment of a process: ours, without what points elsewhere, with `env`."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN_PREFIXES)}
        # Everything is on loopback. A proxy must not be asked, and a person's own Temporal profile
        # must not add its keys to the lab's address.
        local = ",".join(filter(None, [inherited.get("NO_PROXY"), "127.0.0.1,localhost"]))
        nowhere = str(self.directory / "temporal.toml")
        inherited |= {"NO_PROXY": local, "no_proxy": local, "TEMPORAL_CONFIG_FILE": nowhere}
        inherited["PYTHONUNBUFFERED"] = "1"
        if name in PLATFORMS:
            return inherited
        return {**inherited, **self.env}

    def command(self, name: str) -> list[str]:
        """How a process is started."""
        if name == "temporal":
            return self.temporal.command()
        if name in ("azure", "hyperv"):
            return [sys.executable, "-m", f"lab.{name}", "--dir", str(self.directory)]
        role = ["control"] if name == "control" else ["mover", "--name", self.mover]
        options = ["--config", str(self.config_file), "--ready-file", str(self._ready_file(name))]
        return [*product_command(), "worker", *role, *options]

    def _ready_file(self, name: str) -> Path:
        if name in ("azure", "hyperv"):
            return self.directory / f"{name}.ready"
        return self.directory / "run" / f"{name}.ready"

    def _is_ready(self, name: str, identity: Identity) -> bool:
        if name == "temporal":
            return self.temporal.ready()
        try:
            said = json.loads(self._ready_file(name).read_text())
        except (OSError, ValueError):
            return False
        # What an earlier process left behind says nothing about this one.
        return bool((said["pid"] if isinstance(said, dict) else said) == identity.pid)


def product_command() -> list[str]:
    """The product's command line, as installed beside this interpreter."""
    beside = Path(sys.executable).with_name("failback")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "starter.main"]


def shell_exports(variables: Mapping[str, str]) -> Iterable[str]:
    """Lines that a shell understands."""
    for name, value in variables.items():
        quoted = value.replace("'", "'\\''")
        yield f"export {name}='{quoted}'"


def _checked(names: Iterable[str]) -> list[str]:
    wanted = list(names)
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        raise LabError(f"There is no process {unknown[0]!r}; there are: {', '.join(NAMES)}.")
    return wanted or list(NAMES)
