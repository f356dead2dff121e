"""Command lines of a WinRM shell: what ``cmd.exe`` would make of them, and PowerShell inside.

Only ``powershell`` is an executable here. Its script comes as ``-EncodedCommand``, as ``-Command``
or on standard input; limits of the command line are those of cmd.exe and of CreateProcess.
"""

import base64
import binascii
import io
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lab.hyperv.powershell.runner import Result, run_script
from lab.hyperv.powershell.session import Command, Session
from lab.hyperv.powershell.values import Value

CMD_LIMIT = 8191
"""Characters that cmd.exe takes on one line."""
PROCESS_LIMIT = 32767
"""Characters that CreateProcess takes."""
_POWERSHELL = ("powershell", "powershell.exe")


@dataclass(frozen=True)
class Line:
    """A command as it came over the wire."""

    command: str
    arguments: tuple[str, ...]
    skip_cmd_shell: bool
    codepage: int


Guard = Callable[[str, Mapping[str, Value], Session], None]
"""Called with a cmdlet's name, its arguments and the session, before or after it runs."""


def run_line(
    line: Line,
    commands: Mapping[str, Command],
    standard_input: Callable[[], bytes],
    *,
    computer: str,
    before: Guard,
    after: Guard,
) -> tuple[bytes, bytes, int]:
    """Runs a command line; standard output, standard error and the exit code."""
    words = " ".join((line.command, *line.arguments))
    if len(words) > (PROCESS_LIMIT if line.skip_cmd_shell else CMD_LIMIT):
        return b"", b"The command line is too long.\r\n", 1
    parts = [part.strip('"') for part in shlex.split(words, posix=False)]
    if not parts or parts[0].rsplit("\\", 1)[-1].lower() not in _POWERSHELL:
        name = parts[0] if parts else ""
        message = (
            f"'{name}' is not recognized as an internal or external command,\r\n"
            "operable program or batch file.\r\n"
        )
        return b"", message.encode(), 1
    codec = "utf-8" if line.codepage == 65001 else f"cp{line.codepage}"
    session = Session(
        commands=commands,
        standard_input=lambda: standard_input().decode(codec, "replace"),
        output=io.StringIO(newline=""),
        environment={"COMPUTERNAME": computer, "USERNAME": "failback"},
        console_encoding=codec,
    )
    session.before = lambda name, values: before(name, values, session)
    session.after = lambda name, values: after(name, values, session)
    script = _script(parts[1:], session)
    result = script if isinstance(script, Result) else run_script(script, session)
    output = result.output.encode(session.console_encoding, "replace")
    return output, result.errors.encode(codec, "replace"), result.exit_code


def _script(options: list[str], session: Session) -> str | Result:
    """The script that the options lead to, or the complaint of powershell.exe about them."""
    index = 0
    while index < len(options):
        option = options[index].lower().lstrip("-/")
        value = options[index + 1] if index + 1 < len(options) else ""
        if (option and "encodedcommand".startswith(option)) or option == "ec":
            try:
                return base64.b64decode(value, validate=True).decode("utf-16-le")
            except (binascii.Error, UnicodeDecodeError):
                return Result("", "Cannot process the command: it is not encoded properly.\r\n", 1)
        if option and "command".startswith(option):
            rest = " ".join(options[index + 1 :])
            return session.standard_input() if rest == "-" else rest
        if option in ("noprofile", "nop", "nologo", "noninteractive", "noni", "sta", "mta"):
            index += 1
        elif option in ("executionpolicy", "ep", "ex", "outputformat", "inputformat", "version"):
            index += 2
        else:
            return " ".join(options[index:])
    return session.standard_input()
