"""What a running script has around it: the commands it can call, its streams, its variables."""

import io
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.hyperv.powershell.binding import Syntax
from lab.hyperv.powershell.values import ErrorRecord, Leaving, Value

if TYPE_CHECKING:
    from lab.hyperv.powershell.interpreter import Interpreter


@dataclass(frozen=True)
class Invocation:
    """One call of a command, with its arguments bound.

    `piped` is None at the start of a pipeline, else everything that came down it.
    """

    interpreter: "Interpreter"
    set_name: str
    values: Mapping[str, Value]
    piped: list[Value] | None

    def get(self, name: str, default: Value = None) -> Value:
        return self.values.get(name, default)

    def given(self, name: str) -> bool:
        return name in self.values


@dataclass(frozen=True)
class Command:
    """A cmdlet: its syntax, what it does, and how its error ids end.

    `takes` maps a .NET type's last name (or "String") to the parameter that takes such objects from
    the pipeline, one call per object; a command that wants the whole pipeline at once has none.
    """

    syntax: Syntax
    run: Callable[[Invocation], Iterable[Value]]
    error_class: str = "Microsoft.PowerShell.Commands"
    takes: Mapping[str, str] = field(default_factory=dict)


class ExitScript(Leaving):
    """``exit n``."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


@dataclass
class Session:
    """The world of one script run."""

    commands: Mapping[str, Command]
    standard_input: Callable[[], str] = field(default=lambda: "")
    errors: list[ErrorRecord] = field(default_factory=list)
    output: io.StringIO = field(default_factory=io.StringIO)
    environment: MutableMapping[str, str] = field(default_factory=dict)
    before: Callable[[str, Mapping[str, Value]], None] = field(default=lambda name, values: None)
    """Called with every cmdlet's name and arguments before it runs; may delay it or raise."""
    after: Callable[[str, Mapping[str, Value]], None] = field(default=lambda name, values: None)
    console_encoding: str = "cp437"
    misbehaviour: Any = None
    """What the host was told to do wrong in the cmdlet that runs now."""
