"""Health checks after boot (H11): heartbeat, address, TCP port, HTTP answer, script. Each is asked
again until it holds or its time is over; what was seen last goes into the answer."""

from __future__ import annotations

import asyncio
import http.client
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from temporalio import activity

from activities.running import HEARTBEAT_SECONDS, as_application_error
from models.calls import HEALTH_CHECK, HealthInput
from models.errors import FailbackError
from models.machine import MachineHealth
from models.spec import AddressCheck, HeartbeatCheck, HttpCheck, ScriptCheck, TcpCheck
from models.status import HealthResult
from platforms.registry import Platforms

_ONE_TRY_SECONDS = 10.0


class HealthActivities:
    """Activities of the control worker that look at a booted machine.

    Args:
        platforms: Where heartbeat and addresses come from.
        script_directory: Scripts that specs may name; none if not configured.
        ca_file: CA file for HTTPS checks; the system's store if none.
    """

    def __init__(
        self, platforms: Platforms, script_directory: Path | None, ca_file: str | None
    ) -> None:
        self._platforms = platforms
        self._scripts = script_directory
        self._ca_file = ca_file

    @activity.defn(name=HEALTH_CHECK)
    async def check(self, asked: HealthInput) -> HealthResult:
        """One check of the spec, asked until it holds or its time is over."""
        name = _name(asked)
        # One try may take longer than the server waits for a heartbeat.
        beating = asyncio.create_task(_beat(name))
        try:
            return await self._until_healthy(asked, name)
        finally:
            beating.cancel()

    async def _until_healthy(self, asked: HealthInput, name: str) -> HealthResult:
        deadline = asyncio.get_running_loop().time() + asked.check.timeout
        while True:
            healthy, detail = await self._once(asked)
            if healthy or asyncio.get_running_loop().time() >= deadline:
                return HealthResult(check=name, healthy=healthy, detail=detail)
            await asyncio.sleep(HEARTBEAT_SECONDS / 4)

    async def _once(self, asked: HealthInput) -> tuple[bool, str]:
        health = await self._look(asked)
        check = asked.check
        if isinstance(check, HeartbeatCheck):
            return health.heartbeat, health.detail or f"machine is {health.state}"
        if isinstance(check, AddressCheck):
            wanted = [check.address] if check.address else health.addresses
            found = bool(wanted) and all(address in health.addresses for address in wanted)
            return found, f"addresses seen: {', '.join(health.addresses) or 'none'}"
        address = health.addresses[0] if health.addresses else ""
        if isinstance(check, TcpCheck):
            return await _tcp(check.host or address, check.port)
        if isinstance(check, HttpCheck):
            return await asyncio.to_thread(self._http, check, address)
        return await self._script(check, asked, address)

    async def _look(self, asked: HealthInput) -> MachineHealth:
        platform = self._platforms.on_premises(asked.spec)
        try:
            return await asyncio.to_thread(platform.health, asked.spec, asked.machine)
        except FailbackError as error:
            if error.retryable:
                return MachineHealth(state="unknown", detail=str(error))
            raise as_application_error(error) from None

    def _http(self, check: HttpCheck, address: str) -> tuple[bool, str]:
        url = check.url.replace("{address}", address)
        try:
            context = ssl.create_default_context(cafile=self._ca_file)
            with urllib.request.urlopen(url, timeout=_ONE_TRY_SECONDS, context=context) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
        except (OSError, ValueError, http.client.HTTPException) as error:
            return False, f"{url}: {error}"
        return status == check.status, f"{url} answered {status}"

    async def _script(
        self, check: ScriptCheck, asked: HealthInput, address: str
    ) -> tuple[bool, str]:
        if self._scripts is None or not (self._scripts / check.script).is_file():
            return False, f"the control worker has no script {check.script}"
        try:
            process = await asyncio.create_subprocess_exec(
                str(self._scripts / check.script),
                *check.arguments,
                env={
                    "PATH": os.environ.get("PATH", ""),
                    "FAILBACK_MACHINE": asked.spec.machine,
                    "FAILBACK_ADDRESS": address,
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        except OSError as error:
            return False, f"{check.script} cannot be started: {error.strerror}"
        try:
            output, _ = await asyncio.wait_for(process.communicate(), check.timeout)
        except TimeoutError:
            process.kill()
            await process.wait()
            return False, f"{check.script} did not end within {check.timeout:.0f} s"
        except asyncio.CancelledError:
            process.kill()
            raise
        text = output.decode(errors="replace").strip()[-500:]
        return process.returncode == 0, f"exit status {process.returncode}: {text}"


async def _beat(name: str) -> None:
    while True:
        activity.heartbeat({"check": name})
        await asyncio.sleep(HEARTBEAT_SECONDS)


def _name(asked: HealthInput) -> str:
    check = asked.check
    if isinstance(check, TcpCheck):
        return f"tcp {check.port}"
    if isinstance(check, HttpCheck):
        return f"http {check.url}"
    if isinstance(check, ScriptCheck):
        return f"script {check.script}"
    return check.kind


async def _tcp(host: str, port: int) -> tuple[bool, str]:
    if not host:
        return False, "the machine has no address yet"
    try:
        async with asyncio.timeout(_ONE_TRY_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        return False, f"{host}:{port}: {error or 'no answer'}"
    writer.close()
    return True, f"{host}:{port} answers"
