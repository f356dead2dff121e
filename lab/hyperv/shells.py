"""WinRM shells and the commands that run in them, as WS-Man's six operations see them.

Commands run in threads and leave their output here until it is fetched. Shells live in memory: like
real ones they are gone when the service dies, and clients have to open new ones.

Misbehaviour: the rules of `lab.chaos` for the emulator ``hyperv`` name a cmdlet as operation
(resource: the machine's name or a path) or ``wsman.Create``, ``wsman.Command``, ``wsman.Send``,
``wsman.Receive``, ``wsman.Signal``, ``wsman.Delete``. ``delay``, ``hang``, ``drop`` (before or
after) and ``fail`` work for all of them, ``throttle`` is a quota fault of the wire. ``Start-VM``
also knows ``boot_failure`` and ``no_heartbeat``, ``Stop-VM`` knows ``refuse_shutdown``.
"""

import logging
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.chaos import Action, Chaos
from lab.hyperv import soap
from lab.hyperv.cmdlets import host_commands
from lab.hyperv.commands import Line, run_line
from lab.hyperv.host import Host
from lab.hyperv.powershell.session import Session
from lab.hyperv.powershell.values import CmdletError, PSObject, Value, as_list, to_string
from lab.hyperv.soap import Fault, Request

_log = logging.getLogger(__name__)

STREAM_BYTES = 100_000
"""Output sent with one Receive: in base64 it must fit the usual envelope of 153600 bytes."""
IDLE_SECONDS = 7200.0
"""An idle shell lives so long, by WinRM's default IdleTimeout."""
_WAIT_STEP_SECONDS = 0.05


_ABOUT = (
    *("VM", "VMName", "VMHardDiskDrive", "VMNetworkAdapter", "VMSnapshot", "VMFirmware"),
    *("Name", "Path", "LiteralPath", "ClassName", "InputObject"),
)


class DropConnection(Exception):
    """The connection is to be cut without an answer."""


@dataclass
class Run:
    """One command of a shell."""

    line: Line
    id: str = field(default_factory=lambda: str(uuid.uuid4()).upper())
    input: bytearray = field(default_factory=bytearray)
    input_ended: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)
    output: dict[str, bytes] = field(default_factory=dict)
    exit_code: int = 0
    dropped: bool = False


@dataclass
class Shell:
    """An open shell."""

    codepage: int
    id: str = field(default_factory=lambda: str(uuid.uuid4()).upper())
    runs: dict[str, Run] = field(default_factory=dict)
    used: float = field(default_factory=time.monotonic)


class Shells:
    """All shells of the host, and the WS-Man operations on them."""

    def __init__(self, host: Host, chaos: Chaos) -> None:
        self._host = host
        self._chaos = chaos
        self._commands = host_commands(host)
        self._shells: dict[str, Shell] = {}
        self._lock = threading.Lock()

    def answer(self, request: Request, user: str) -> bytes:
        """The reply to a request.

        Raises:
            Fault: it cannot be served.
            DropConnection: chaos cuts the connection.
        """
        action = self._chaos.consult(f"wsman.{request.operation}")
        if action is not None:
            self._misbehave(action)
        reply = self._dispatch(request, user)
        if action is not None and action.kind == "drop":
            raise DropConnection
        return reply

    def _misbehave(self, action: Action) -> None:
        if action.kind in ("delay", "hang"):
            self._wait(action)
        elif action.kind == "drop" and action.when == "before":
            raise DropConnection
        elif action.kind in ("fail", "throttle"):
            reason = action.message or "The maximum number of concurrent operations is exceeded."
            raise Fault(soap.QUOTA_EXCEEDED, "w:QuotaLimit", reason)

    def _wait(self, action: Action) -> None:
        """Waits as long as the rule says; a hang ends with its rule."""
        deadline = time.monotonic() + action.seconds
        while time.monotonic() < deadline:
            if action.kind == "hang" and not self._chaos.in_force(action.rule_id):
                return
            left = deadline - time.monotonic()
            threading.Event().wait(min(max(left, 0), _WAIT_STEP_SECONDS))

    def _dispatch(self, request: Request, user: str) -> bytes:
        if request.resource != soap.SHELL_RESOURCE:
            raise Fault(
                soap.INVALID_RESOURCE, "w:InvalidResourceURI", f"No resource {request.resource}."
            )
        if request.operation == "Create":
            return soap.created(request, self._open(request).id, user)
        with self._lock:
            found = self._shells.get(request.shell_id.upper())
        if found is not None:
            found.used = time.monotonic()
        else:
            raise Fault(
                soap.SHELL_NOT_FOUND,
                "w:InvalidSelectors",
                "The request for the Windows Remote Shell with ShellId "
                f"{request.shell_id} failed because the shell was not found on the server.",
            )
        if request.operation == "Command":
            return self._command(request, found)
        if request.operation == "Send":
            return self._send(request, found)
        if request.operation == "Receive":
            return self._receive(request, found)
        if request.operation == "Signal":
            signal = request.find("rsp:Signal")
            found.runs.pop(signal.get("CommandId", "") if signal is not None else "", None)
            return soap.signalled(request)
        if request.operation == "Delete":
            with self._lock:
                self._shells.pop(found.id, None)
            return soap.deleted(request)
        raise Fault(soap.INVALID_REQUEST, "a:ActionNotSupported", f"No action {request.action}.")

    def _open(self, request: Request) -> Shell:
        shell = Shell(codepage=int(request.options.get("WINRS_CODEPAGE") or 437))
        quota = self._host.state.shells_per_user
        idle_since = time.monotonic() - IDLE_SECONDS
        with self._lock:
            self._shells = {
                key: kept for key, kept in self._shells.items() if kept.used > idle_since
            }
            if quota is not None and len(self._shells) >= quota:
                raise Fault(
                    soap.QUOTA_EXCEEDED,
                    "w:QuotaLimit",
                    "The WS-Management service cannot process the request. This user is allowed a "
                    f"maximum number of {quota} concurrent shells, which has been exceeded.",
                )
            self._shells[shell.id] = shell
        return shell

    def _command(self, request: Request, shell: Shell) -> bytes:
        arguments = request.body.iterfind("rsp:CommandLine/rsp:Arguments", soap.NAMESPACES)
        skip = request.options.get("WINRS_SKIP_CMD_SHELL", "FALSE").upper() == "TRUE"
        line = Line(
            command=request.text("rsp:CommandLine/rsp:Command"),
            arguments=tuple(argument.text or "" for argument in arguments),
            skip_cmd_shell=skip,
            codepage=shell.codepage,
        )
        run = Run(line)
        shell.runs[run.id] = run
        threading.Thread(target=self._run, args=(run,), name=f"run-{run.id}", daemon=True).start()
        return soap.command_started(request, run.id)

    def _run(self, run: Run) -> None:
        def standard_input() -> bytes:
            run.input_ended.wait()
            return bytes(run.input)

        try:
            output, errors, run.exit_code = run_line(
                run.line,
                self._commands,
                standard_input,
                computer=self._host.state.name,
                before=self._before,
                after=self._after,
            )
            run.output = {"stdout": output, "stderr": errors}
        except DropConnection:
            run.dropped = True
        except Exception as error:
            _log.exception("the command failed inside the lab")
            run.output = {"stdout": b"", "stderr": f"The lab failed: {error}\r\n".encode()}
            run.exit_code = 1
        run.finished.set()

    def _before(self, name: str, values: Mapping[str, Value], session: Session) -> None:
        """Chaos before a cmdlet: what it cannot do here, the cmdlet finds in the session."""
        action = self._chaos.consult(name, self._resource(values))
        session.misbehaviour = action
        if action is None:
            return
        if action.kind in ("delay", "hang"):
            self._wait(action)
        elif action.kind == "drop" and action.when == "before":
            raise DropConnection
        elif action.kind in ("fail", "throttle"):
            raise CmdletError(
                action.message or f"{name} failed, as the lab was told to.",
                identifier=action.code or "OperationFailed",
                category="InvalidOperation",
            )

    def _resource(self, values: Mapping[str, Value]) -> str:
        """What a cmdlet is about, for the rules: the machine's name or a path."""
        for item in as_list(values.get("Id")):
            for machine in self._host.state.machines:
                if machine.id == to_string(item).lower():
                    return machine.name
        for name in _ABOUT:
            for item in as_list(values.get(name)):
                if isinstance(item, PSObject):
                    return to_string(item.properties["VMName"] or item.properties["Name"])
                return to_string(item)
        return ""

    def _after(self, name: str, values: Mapping[str, Value], session: Session) -> None:
        action = session.misbehaviour
        if action is not None and action.kind == "drop" and action.when == "after":
            raise DropConnection

    def _find_run(self, shell: Shell, command_id: str) -> Run:
        run = shell.runs.get(command_id)
        if run is None:
            raise Fault(soap.SHELL_NOT_FOUND, "w:InvalidSelectors", "There is no such command.")
        return run

    def _send(self, request: Request, shell: Shell) -> bytes:
        for stream in request.body.iterfind("rsp:Send/rsp:Stream", soap.NAMESPACES):
            run = self._find_run(shell, stream.get("CommandId", ""))
            run.input += soap.decode_stream(stream.text or "")
            if stream.get("End", "").lower() in ("true", "1"):
                run.input_ended.set()
        return soap.sent(request)

    def _receive(self, request: Request, shell: Shell) -> bytes:
        wanted = request.find("rsp:Receive/rsp:DesiredStream")
        run = self._find_run(shell, wanted.get("CommandId", "") if wanted is not None else "")
        if not run.finished.wait(request.timeout_seconds):
            raise Fault(
                soap.OPERATION_TIMEOUT,
                "w:TimedOut",
                "The WS-Management service cannot complete the operation within the time "
                "specified in OperationTimeout.",
            )
        if run.dropped:
            raise DropConnection
        streams: list[tuple[str, bytes]] = []
        room = STREAM_BYTES
        for name, content in run.output.items():
            piece, run.output[name] = content[:room], content[room:]
            room -= len(piece)
            if piece:
                streams.append((name, piece))
        left = any(run.output.values())
        return soap.received(request, run.id, streams, None if left else run.exit_code)
