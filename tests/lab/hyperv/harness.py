"""The lab's Hyper-V host as a process, and the real pywinrm as its client."""

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from winrm.protocol import Protocol

from lab.hyperv.seed import READY_FILE, create_host, create_vm
from tests.lab.images import MIB, make_disks
from tests.waiting import wait_until

PATTERN = (
    "$ErrorActionPreference='Stop';$ProgressPreference='SilentlyContinue';"
    "[Console]::OutputEncoding=[Text.Encoding]::UTF8;"
    "try{ $d = %s; @{ok=$true;data=$d}|ConvertTo-Json -Depth 6 -Compress; exit 0 }"
    "catch{ @{ok=$false;type=$_.Exception.GetType().FullName;fqid=$_.FullyQualifiedErrorId;"
    "hr=$_.Exception.HResult;msg=$_.Exception.Message}|ConvertTo-Json -Compress; exit 1 }"
)


class Refused(Exception):
    """The script's catch block answered; `fqid` is PowerShell's error id."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(f"{answer['fqid']}: {answer['msg']}")
        self.fqid: str = answer["fqid"]
        self.message: str = answer["msg"]


class LabHost:
    """One host process on one directory, with a mover and the machine web01 on two disks."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings = create_host(
            directory,
            "HV01",
            volumes={"D": 1 << 30},
            switches=["LAN", "DMZ"],
            shells_per_user=30,
        )
        raw = make_disks(directory / "raw")
        create_vm(
            directory,
            "web01",
            disks=[
                {"path": f"D:\\VMs\\web01\\disk{lun}.vhd", "image": disk.path}
                for lun, disk in raw.items()
            ],
            adapters=[
                {"name": "Network Adapter", "switch": "LAN", "addresses": ["192.168.1.10"]},
            ],
        )
        create_vm(directory, "mover01", state="Running", mover=True)
        create_vm(
            directory,
            "gen2",
            generation=2,
            disks=[{"path": "D:\\VMs\\gen2\\os.vhdx", "size_bytes": 16 * MIB}],
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._shell: tuple[Protocol, str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lab.hyperv", "--dir", str(self.directory)],
            stderr=(self.directory / "hyperv.log").open("ab"),
        )
        wait_until(lambda: self._ready(), 20)

    def _ready(self) -> bool:
        assert self._process is not None
        file = self.directory / READY_FILE
        return file.exists() and file.read_text().strip() == str(self._process.pid)

    def kill(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._shell = None

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)

    def protocol(self, **options: Any) -> Protocol:
        arguments: dict[str, Any] = {
            "endpoint": self.settings["endpoint"],
            "transport": "ntlm",
            "username": self.settings["user"],
            "password": self.settings["password"],
            "ca_trust_path": self.settings["ca_file"],
            "server_cert_validation": "validate",
            "proxy": None,
        }
        return Protocol(**{**arguments, **options})

    def run(self, script: str) -> tuple[str, str, int]:
        """Output, errors and exit code of a script, in one shell that stays open."""
        if self._shell is None:
            protocol = self.protocol()
            self._shell = protocol, protocol.open_shell(codepage=65001)
        return run_in(*self._shell, script)

    def ps(self, expression: str) -> Any:
        """The data of one expression in the JSON pattern that production uses."""
        output, errors, _ = self.run(PATTERN % expression)
        answer = json.loads(output or errors)
        if not answer["ok"]:
            raise Refused(answer)
        return answer["data"]

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.settings['admin_url']}/lab/state") as reply:
            state: dict[str, Any] = json.load(reply)
        return state

    def machine(self, name: str) -> dict[str, Any]:
        return next(one for one in self.state()["machines"] if one["name"] == name)

    def file(self, path: str) -> Path:
        """The file behind a Windows path."""
        return self.directory / "hyperv" / "volumes" / path.replace(":\\", "/").replace("\\", "/")

    def device(self, name: str) -> Path:
        return self.directory / "devices" / "mover01" / name


def run_in(protocol: Protocol, shell: str, script: str) -> tuple[str, str, int]:
    """Runs a script as ``powershell -EncodedCommand`` in an open shell."""
    encoded = base64.b64encode(script.encode("utf-16-le")).decode()
    arguments: Sequence[str] = ("-NoProfile", "-NonInteractive", "-EncodedCommand", encoded)
    command = protocol.run_command(shell, "powershell", arguments, skip_cmd_shell=True)
    output, errors, code = protocol.get_command_output(shell, command)
    protocol.cleanup_command(shell, command)
    return output.decode(), errors.decode(), code
