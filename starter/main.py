"""The command line `failback`: puts the commands together, turns errors into one message and an
exit status, and ends the process in the only way a short-lived Temporal client survives."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import typer

from models.errors import FailbackError
from starter import exits
from starter.commands import begin, care, decisions, look, messages, processes
from starter.terminal import describe_error, emit, error_document, show_error

app = typer.Typer(
    name="failback",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

_STATUSES = "\n".join(f"- **{status}**: {what}" for status, what in exits.MEANING.items())

_EPILOG = f"**Exit status**\n\n{_STATUSES}"


@app.callback(invoke_without_command=True, epilog=_EPILOG)
def failback(context: typer.Context) -> None:
    """Bring machines that run in Azure after a disaster back to the Hyper-V site they came from.

    The usual order: **check** the spec, **start** the run, **watch** it
    until it is ready, say **run-failover**, look at the machine, say **commit**.
    Until commit, **abort** puts both sides back as they were.

    Example:

        failback check app01.yaml && failback start app01.yaml && failback watch app01

    Temporal is found by its own variables and profiles (TEMPORAL_ADDRESS, TEMPORAL_PROFILE, …).
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for family in (begin, look, messages, decisions, care, processes):
    family.register(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status. Never raises."""
    as_json = "--json" in arguments
    try:
        status = app(list(arguments), prog_name="failback", standalone_mode=False)
        return status if isinstance(status, int) else exits.OK
    except FailbackError as error:
        if as_json:
            emit(error_document(error))
        show_error(error.code, error.message, error.hint)
        return error.exit_status
    except typer.TyperException as error:
        hint = "`failback --help` lists the commands, `failback COMMAND --help` their options."
        message = error.format_message()
        if as_json:
            emit(describe_error("FB-USAGE", message, hint))
        show_error("FB-USAGE", message, hint)
        return exits.USAGE
    except typer.Abort:
        show_error("FB-DECLINED", "Nothing was done.")
        return exits.FAILED
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; there is nobody left to tell.
        return exits.FAILED
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else exits.OK
    except Exception as error:
        traceback.print_exc()
        if as_json:
            emit(describe_error(FailbackError.code, f"{type(error).__name__}: {error}"))
        show_error(FailbackError.code, "This is a bug in failback; please report the lines above.")
        return exits.FAILED


def main() -> NoReturn:
    """Entry point. Ends without the interpreter's own clean-up: threads of Temporal's core can
    crash the process while it runs, after all work is done."""
    status = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):
            continue
    os._exit(status)


if __name__ == "__main__":
    main()
