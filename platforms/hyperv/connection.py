"""Scripts to a Hyper-V host and their answers back, over WinRM.

A connection keeps one remote shell open, because opening one costs a sign-in; a pool lends
connections so that no more scripts run at once than the host may bear. A connection that failed is
never used again. A script is sent once: only a shell that proves dead before the script began is
replaced without a word, everything else is the caller's to repeat, and every operation of this
package can be.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import threading
import time
import xml.etree.ElementTree as ET
from typing import Any

import requests
from spnego.exceptions import SpnegoError
from winrm.exceptions import (
    WinRMError,
    WinRMOperationTimeoutError,
    WinRMTransportError,
    WSManFaultError,
)
from winrm.protocol import Protocol
from winrm.transport import HAVE_KERBEROS

from models.errors import HypervisorFailed, InvalidConfiguration, Stopped
from platforms.hyperv import errors, scripts
from platforms.hyperv.settings import HyperVHost

_log = logging.getLogger(__name__)

_CODEPAGE_UTF8 = 65001
# The host sends at most 150 KiB in one envelope, and base64 takes a third more.
_STDIN_CHUNK_BYTES = 64 * 1024
# Hosts and firewalls drop silent connections after minutes; a kept one older than this is renewed.
_KEEP_SECONDS = 60.0
# A client that died leaves its shell, and the host allows a user few: it may end an idle one early.
# Far above the pause between two requests of a client that lives.
_SHELL_IDLE = "PT180S"
_POWERSHELL = "powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass -EncodedCommand "
# What pywinrm lets through besides its own errors: it reads answers with `next`, ElementTree and
# `assert`, and TLS, NTLM and sockets have theirs.
_PROTOCOL_ERRORS: tuple[type[Exception], ...] = (
    WinRMError,
    WinRMTransportError,
    requests.exceptions.RequestException,
    SpnegoError,
    ET.ParseError,
    StopIteration,
    AssertionError,
    ValueError,
    OSError,
)


class _ShellGone(Exception):
    """The kept shell is no more, and the script has not begun."""


class Connection:
    """One session with one open shell. Not safe for use by two threads at once."""

    def __init__(self, name: str, host: HyperVHost) -> None:
        self._name = name
        self._host = host
        self._shell: str | None = None
        self.used_at = 0.0
        if host.transport == "kerberos" and not HAVE_KERBEROS:
            raise InvalidConfiguration(
                f"{name} is configured for Kerberos, and this installation has no support for it.",
                hint="Install failback[kerberos], or use transport: ntlm.",
            )
        self._protocol = Protocol(
            endpoint=host.endpoint,
            transport=host.transport,
            username=host.username,
            password=host.password.reveal(),
            ca_trust_path=host.ca_file,  # type: ignore[arg-type]  # None: the public authorities
            server_cert_validation="validate",
            message_encryption="always" if host.encrypts_messages else "auto",
            operation_timeout_sec=host.operation_timeout_seconds,
            read_timeout_sec=host.read_timeout_seconds,
            # A host on the same site is not reached through the proxy to the Internet.
            proxy=None,
        )

    def run(self, script: str, deadline: float, stop: threading.Event | None) -> tuple[bytes, int]:
        """Run a whole script; returns what it wrote and its exit code.

        Raises:
            _ShellGone: The kept shell was dead; nothing ran.
            FailbackError: As `errors.from_transport` says, or `Stopped`.
        """
        try:
            command = self._begin(script)
            return self._receive(command, deadline, stop)
        except _PROTOCOL_ERRORS as error:
            raise errors.from_transport(self._name, self._host.endpoint, error) from error

    def close(self) -> None:
        """Close the shell if the host still listens, and the session in any case."""
        if self._shell is not None:
            with contextlib.suppress(*_PROTOCOL_ERRORS):
                self._protocol.close_shell(self._shell, close_session=False)
        self.abandon()

    def abandon(self) -> None:
        """Drop the session without a word; the host ends the shell by itself."""
        self._shell = None
        self._protocol.transport.close_session()

    def _begin(self, script: str) -> str:
        kept = self._shell is not None
        if self._shell is None:
            self._shell = self._protocol.open_shell(
                codepage=_CODEPAGE_UTF8, noprofile=True, idle_timeout=_SHELL_IDLE
            )
        by_stdin = len(script) > scripts.COMMAND_LINE_LIMIT
        line = _POWERSHELL + _encoded(scripts.BOOTSTRAP if by_stdin else script)
        try:
            command = self._protocol.run_command(
                self._shell, line, console_mode_stdin=not by_stdin, skip_cmd_shell=False
            )
        except WSManFaultError as error:
            if kept and error.wsman_fault_code in errors.SHELL_GONE_FAULTS:
                raise _ShellGone from error
            raise
        if by_stdin:
            self._send(command, base64.b64encode(script.encode()) + b"\r\n")
        return command

    def _send(self, command: str, content: bytes) -> None:
        for start in range(0, len(content), _STDIN_CHUNK_BYTES):
            chunk = content[start : start + _STDIN_CHUNK_BYTES]
            last = start + _STDIN_CHUNK_BYTES >= len(content)
            self._protocol.send_command_input(str(self._shell), command, chunk, end=last)

    def _receive(
        self, command: str, deadline: float, stop: threading.Event | None
    ) -> tuple[bytes, int]:
        output: list[bytes] = []
        told_to_stop = False
        while True:
            if stop is not None and stop.is_set() and not told_to_stop:
                told_to_stop = True
                deadline = min(deadline, time.monotonic() + self._host.stop_grace_seconds)
            if time.monotonic() > deadline:
                self._terminate(command)
                if told_to_stop:
                    raise Stopped(f"A script on {self._name} was told to stop.")
                raise HypervisorFailed(
                    f"A script on {self._name} did not end in time.",
                    hint="Look at the host's load and its Hyper-V event log.",
                )
            try:
                stdout, _, code, done = self._protocol.get_command_output_raw(
                    str(self._shell), command
                )
            except WinRMOperationTimeoutError:
                continue  # the host had nothing to say yet
            output.append(stdout)
            if done:
                # Without it the host keeps the ended command's buffers until the shell closes.
                self._terminate(command)
                return b"".join(output), code

    def _terminate(self, command: str) -> None:
        with contextlib.suppress(*_PROTOCOL_ERRORS):
            self._protocol.cleanup_command(str(self._shell), command)


class ConnectionPool:
    """Connections to one host, lent one script at a time."""

    def __init__(self, name: str, host: HyperVHost) -> None:
        self._name = name
        self._host = host
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(host.connections)

    def ask(
        self,
        action: str,
        body: str,
        *,
        stop: threading.Event | None = None,
        timeout_seconds: float | None = None,
    ) -> Any:
        """Run a script's body and return what it put into `$data`.

        Args:
            action: What it does and to what, for the error's text: "… could not <action>".
            body: From `scripts`.
            stop: No script is begun once it is set; one that runs is waited for, and ended on the
                host only after `stop_grace_seconds`.
            timeout_seconds: How long it may take; the host's own setting if not said.

        Raises:
            FailbackError: As `errors` says.
        """
        if stop is not None and stop.is_set():
            raise Stopped(f"Told to stop before {self._name} was asked to {action}.")
        limit = timeout_seconds or self._host.script_timeout_seconds
        deadline = time.monotonic() + limit
        if not self._places.acquire(timeout=limit):
            raise HypervisorFailed(
                f"No connection to {self._name} became free in time to {action}.",
                hint="Raise the host's connections.",
            )
        try:
            output, code = self._run(scripts.wrap(body), deadline, stop)
        finally:
            self._places.release()
        return self._answer(action, output, code)

    def close(self) -> None:
        """Close every idle connection."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _run(self, script: str, deadline: float, stop: threading.Event | None) -> tuple[bytes, int]:
        connection = self._take() or Connection(self._name, self._host)
        try:
            try:
                result = connection.run(script, deadline, stop)
            except _ShellGone:
                connection.abandon()
                connection = Connection(self._name, self._host)
                result = connection.run(script, deadline, stop)
        except (Stopped, HypervisorFailed):
            # The host listens, so it can be told to free the shell: a user may have few.
            connection.close()
            raise
        except BaseException:
            connection.abandon()
            raise
        connection.used_at = time.monotonic()
        with self._lock:
            self._idle.append(connection)
        return result

    def _take(self) -> Connection | None:
        """The connection used last, if it is fresh; stale ones are closed on the way."""
        with self._lock:
            kept = self._idle.pop() if self._idle else None
            stale = [
                connection
                for connection in self._idle
                if time.monotonic() - connection.used_at > _KEEP_SECONDS
            ]
            self._idle = [connection for connection in self._idle if connection not in stale]
        if kept is not None and time.monotonic() - kept.used_at > _KEEP_SECONDS:
            stale.append(kept)
            kept = None
        for connection in stale:
            connection.close()
        return kept

    def _answer(self, action: str, output: bytes, code: int) -> Any:
        text = output.decode("utf-8", errors="replace")
        line = text.rpartition(scripts.MARK)[2].partition("\n")[0].strip()
        if scripts.MARK not in text:
            line = ""
        try:
            answer = json.loads(line)
        except ValueError:
            _log.debug("no result from %s (exit code %s): %s", self._name, code, text[:500])
            raise HypervisorFailed(
                f"{self._name} gave no result when asked to {action} (exit code {code}): "
                f"{text.strip()[:200] or 'no output'}",
                hint="See that Windows PowerShell 5.1 runs scripts on the host for this account.",
            ) from None
        if answer.get("ok") is not True:
            raise errors.from_script(self._name, action, answer)
        return answer.get("data")


def _encoded(script: str) -> str:
    return base64.b64encode(script.encode("utf-16-le")).decode("ascii")
