"""Runs a script: its variables and functions, and the calls of cmdlets.

Statements are in `statements`, expressions in `expressions`; this is what they share.
"""

from collections.abc import Mapping

from lab.hyperv.powershell.binding import Argument, Bound, bind
from lab.hyperv.powershell.expressions import Expressions
from lab.hyperv.powershell.session import Command, Invocation, Session
from lab.hyperv.powershell.statements import ReturnValue, Statements, parameters_of
from lab.hyperv.powershell.syntax import parse, text
from lab.hyperv.powershell.values import (
    CmdletError,
    ErrorRecord,
    Hashtable,
    PowerShellError,
    PSObject,
    ScriptBlock,
    Value,
    to_string,
)

MAX_DEPTH = 60
"""Nested calls of functions and script blocks; PowerShell's own limit is of the same kind."""


class Scope:
    """Variables by lower-case name; reads look outwards, writes stay here."""

    def __init__(self, parent: "Scope | None" = None) -> None:
        self.values: dict[str, Value] = {}
        self.parent = parent

    def get(self, name: str) -> Value:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.parent
        return None

    def has(self, name: str) -> bool:
        """Whether the variable exists here or further out."""
        return name in self.values or (self.parent is not None and self.parent.has(name))


class Interpreter:
    """One run of PowerShell: a session, its variables and functions."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.scope = Scope()
        self.failed = False
        """Whether the current statement wrote an error."""
        self.failed_before = False
        """Whether the statement before did: `$?` tells the opposite."""
        self.guarded = 0
        """How many try blocks are open around the current statement."""
        self._functions: dict[str, ScriptBlock] = {}
        self._depth = 0
        self.scope.values.update(
            {
                "erroractionpreference": "Continue",
                "progresspreference": "Continue",
                "psversiontable": Hashtable(
                    [("PSVersion", "5.1.20348.1"), ("PSEdition", "Desktop")]
                ),
            }
        )

    def run(self, script: str) -> list[Value]:
        """Parses and runs a script in the current scope; its output as a flat list."""
        if not script.strip():
            return []
        root, source = parse(script)
        return Statements(self, source).statements(root)

    def call(
        self,
        block: ScriptBlock,
        *,
        variables: Mapping[str, Value] | None = None,
        arguments: list[Argument] | None = None,
        new_scope: bool = False,
    ) -> list[Value]:
        """Runs a script block; `variables` (lower-case names) exist only for this call."""
        if self._depth >= MAX_DEPTH:
            raise PowerShellError(
                ErrorRecord(
                    "The script failed due to call depth overflow.",
                    "System.Management.Automation.ScriptCallDepthException",
                    "CallDepthOverflow",
                    "InvalidOperation",
                )
            )
        outer = self.scope
        saved = {name: outer.values.get(name) for name in variables or {}}
        if new_scope:
            self.scope = Scope(outer)
        self.scope.values.update(variables or {})
        self._depth += 1
        try:
            self._bindparameters_of(block, arguments or [])
            return self._body(block)
        except ReturnValue as result:
            return result.output
        finally:
            self._depth -= 1
            self.scope = outer
            if not new_scope:
                outer.values.update(saved)

    def _bindparameters_of(self, block: ScriptBlock, arguments: list[Argument]) -> None:
        positional = [argument.value for argument in arguments if argument.name is None]
        named: dict[str, Value] = {}
        waiting = None
        for argument in arguments:
            if argument.name is not None:
                waiting = argument.name.lower() if argument.bare else None
                named[argument.name.lower()] = True if argument.bare else argument.value
            elif waiting:
                named[waiting], waiting = argument.value, None
                positional.remove(argument.value)
        for node in parameters_of(block.node):
            variable = next(child for child in node.children if child.type == "variable")
            name = text(variable, block.source).lstrip("$").lower()
            default = next((c for c in node.children if c.type == "script_parameter_default"), None)
            if name in named:
                self.scope.values[name] = named[name]
            elif positional:
                self.scope.values[name] = positional.pop(0)
            elif default is not None:
                value = self._expressions(block.source).evaluate(default.named_children[0])
                self.scope.values[name] = value
            else:
                self.scope.values[name] = None
        self.scope.values["args"] = positional

    def _body(self, block: ScriptBlock) -> list[Value]:
        return Statements(self, block.source).statements(block.node)

    def _expressions(self, source: bytes) -> Expressions:
        return Expressions(self, Statements(self, source), source)

    def define(self, name: str, block: ScriptBlock) -> None:
        self._functions[name.lower()] = block

    def invoke(
        self, name: str, arguments: list[Argument], piped: list[Value] | None
    ) -> list[Value]:
        """Calls a function or cmdlet by name."""
        function = self._functions.get(name.lower())
        if function is not None:
            return self.call(
                function, variables={"input": piped or []}, arguments=arguments, new_scope=True
            )
        command = self.session.commands.get(name.lower())
        if command is None:
            raise PowerShellError(
                ErrorRecord(
                    f"The term '{name}' is not recognized as the name of a cmdlet, function, "
                    "script file, or operable program. Check the spelling of the name, or if a "
                    "path was included, verify that the path is correct and try again.",
                    "System.Management.Automation.CommandNotFoundException",
                    "CommandNotFoundException",
                    "ObjectNotFound",
                    target=name,
                )
            )
        return self._cmdlet(command, arguments, piped)

    def _cmdlet(
        self, command: Command, arguments: list[Argument], piped: list[Value] | None
    ) -> list[Value]:
        if piped is None or not command.takes:
            return self._cmdlet_once(command, arguments, piped, {})
        output: list[Value] = []
        for item in piped:
            kind = item.type_name.split(".")[-1] if isinstance(item, PSObject) else "String"
            parameter = command.takes.get(kind) or command.takes.get("Object")
            offered = {parameter: item} if parameter else _by_property_name(item)
            output += self._cmdlet_once(command, arguments, [item], offered)
        return output

    def _cmdlet_once(
        self,
        command: Command,
        arguments: list[Argument],
        piped: list[Value] | None,
        offered: Mapping[str, Value],
    ) -> list[Value]:
        name = command.syntax.name
        try:
            bound = bind(command.syntax, arguments, offered)
        except PowerShellError as error:
            error.record.identifier += f",{command.error_class}.{_class_name(command)}"
            raise
        try:
            self.session.before(name, bound.values)
            output = list(command.run(Invocation(self, bound.set_name, bound.values, piped)))
            self.session.after(name, bound.values)
            return output
        except CmdletError as error:
            error.record.identifier += f",{command.error_class}.{_class_name(command)}"
            error.record.command = name
            self.report(error.record, bound)
            return []

    def report(self, record: ErrorRecord, bound: Bound) -> None:
        """A non-terminating error: ends the script, is written, or is dropped, as was asked for."""
        asked = bound.common.get("ErrorAction") or self.scope.get("erroractionpreference")
        action = to_string(asked).lower()
        if action == "stop":
            raise PowerShellError(record, fatal=True)
        self.failed = True
        if action not in ("silentlycontinue", "ignore"):
            self.session.errors.append(record)


def _by_property_name(item: Value) -> dict[str, Value]:
    """What an object offers to parameters that bear its properties' names."""
    if not isinstance(item, PSObject):
        return {}
    names = ("Path", "VMName", "Name")
    return {name: item.properties[name] for name in names if name in item.properties}


def _class_name(command: Command) -> str:
    name = command.syntax.name.replace("-", "")
    if "HyperV" in command.error_class:
        return name
    return name.replace("VHD", "Vhd") if "Vhd" in command.error_class else f"{name}Command"
