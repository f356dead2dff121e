"""Runs one script to its end: output text, error text, exit code, as powershell.exe would."""

from dataclasses import dataclass

from lab.hyperv.powershell.interpreter import Interpreter
from lab.hyperv.powershell.output import clixml, render
from lab.hyperv.powershell.session import ExitScript, Session
from lab.hyperv.powershell.values import Leaving, PowerShellError


@dataclass(frozen=True)
class Result:
    """What a finished script leaves behind."""

    output: str
    errors: str
    exit_code: int


def run_script(script: str, session: Session) -> Result:
    """Runs a script; never raises for anything the script can do wrong."""
    interpreter = Interpreter(session)
    try:
        output = interpreter.run(script)
        code = 1 if interpreter.failed else 0
    except Leaving as leaving:
        output = leaving.output
        code = leaving.code if isinstance(leaving, ExitScript) else 1
        if isinstance(leaving, PowerShellError):
            session.errors.append(leaving.record)
    for item in output:
        session.output.write(render(item) + "\r\n")
    return Result(session.output.getvalue(), clixml(session.errors), code)
