"""Runs a parsed script: statements, pipelines, commands, errors and control flow.

Expressions are in `expressions`. Pipelines run stage by stage, each one to its end: nothing that
a management script can observe depends on items being streamed one at a time.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NoReturn

from lab.hyperv.powershell.binding import Argument, Bound, bind
from lab.hyperv.powershell.expressions import Expressions, assign
from lab.hyperv.powershell.session import Command, ExitScript, Invocation, Session
from lab.hyperv.powershell.syntax import Node, essence, parse, text
from lab.hyperv.powershell.values import (
    CmdletError,
    ErrorRecord,
    Hashtable,
    Leaving,
    PowerShellError,
    PSObject,
    ScriptBlock,
    Value,
    as_list,
    collapse,
    parse_number,
    to_bool,
    to_string,
)

MAX_DEPTH = 60
"""Nested calls of functions and script blocks; PowerShell's own limit is of the same kind."""


class _Break(Leaving):
    pass


class _Continue(Leaving):
    pass


class _Return(Leaving):
    pass


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
        return _Run(self, source).statements(root)

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
            self._bind_parameters(block, arguments or [])
            return self._body(block)
        except _Return as result:
            return result.output
        finally:
            self._depth -= 1
            self.scope = outer
            if not new_scope:
                outer.values.update(saved)

    def _bind_parameters(self, block: ScriptBlock, arguments: list[Argument]) -> None:
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
        for node in _parameters(block.node):
            name = text(_child(node, "variable"), block.source).lstrip("$").lower()
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
        return _Run(self, block.source).statements(block.node)

    def _expressions(self, source: bytes) -> Expressions:
        return Expressions(self, _Run(self, source), source)

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
            offered = {parameter: item} if parameter else {}
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


def _class_name(command: Command) -> str:
    name = command.syntax.name.replace("-", "")
    if "HyperV" in command.error_class:
        return name
    return name.replace("VHD", "Vhd") if "Vhd" in command.error_class else f"{name}Command"


def _parameters(node: Node) -> list[Node]:
    block = next((c for c in node.children if c.type == "param_block"), None)
    if block is None:
        block = next((c for c in node.children if c.type == "function_parameter_declaration"), None)
    if block is None:
        return []
    listing = next((c for c in block.children if c.type == "parameter_list"), None)
    return [c for c in listing.children if c.type == "script_parameter"] if listing else []


def _child(node: Node, kind: str) -> Node:
    return next(child for child in node.children if child.type == kind)


class _Run:
    """The statements of one source text, run in an interpreter."""

    def __init__(self, interpreter: Interpreter, source: bytes) -> None:
        self._interpreter = interpreter
        self._source = source
        self._expressions = Expressions(interpreter, self, source)

    def statements(self, node: Node) -> list[Value]:
        """Every statement below a program, script block, statement list or statement block."""
        output: list[Value] = []
        for child in node.named_children:
            if child.type in _TRANSPARENT:
                output += self.statements(child)
            elif child.type not in _SILENT:
                try:
                    output += self.statement(child)
                except Leaving as leaving:
                    output += leaving.output
                    if not self._goes_on(leaving):
                        leaving.output = output
                        raise
        return output

    def _goes_on(self, leaving: Leaving) -> bool:
        """Whether only the statement ends: an uncaught error while errors are not to stop us."""
        interpreter = self._interpreter
        if not isinstance(leaving, PowerShellError) or leaving.fatal or interpreter.guarded:
            return False
        if to_string(interpreter.scope.get("erroractionpreference")).lower() == "stop":
            return False
        interpreter.session.errors.append(leaving.record)
        interpreter.failed = True
        return True

    def statement(self, node: Node) -> list[Value]:
        handler = getattr(self, f"_{node.type}", None)
        if handler is None:
            raise self._unsupported(node)
        output: list[Value] = handler(node)
        return output

    def _unsupported(self, node: Node) -> PowerShellError:
        words = text(node, self._source)[:80]
        return PowerShellError(
            ErrorRecord(
                f"The lab's PowerShell does not know this construct ({node.type}): {words}",
                "System.NotSupportedException",
                "NotSupported",
                "NotImplemented",
            )
        )

    def _pipeline(self, node: Node) -> list[Value]:
        self._interpreter.failed_before = self._interpreter.failed
        self._interpreter.failed = False
        output: list[Value] = []
        for child in node.named_children:
            output += self._chain(child)
        return output

    def _chain(self, node: Node) -> list[Value]:
        if node.type == "assignment_expression":
            self._assignment(node)
            return []
        stages = node.named_children if node.type == "pipeline_chain" else [node]
        piped: list[Value] | None = None
        for number, stage in enumerate(stages):
            last = number == len(stages) - 1
            run = functools.partial(self._stage, piped=piped, first=number == 0)
            piped = run(stage) if last else _captured(run, stage)
        return piped or []

    def _stage(self, node: Node, piped: list[Value] | None, *, first: bool) -> list[Value]:
        inner = essence(node)
        if inner.type == "pipeline":
            return self._pipeline(inner)
        if inner.type == "command":
            return self._command(inner, piped)
        if inner.type in _INCREMENTS:
            self._expressions.evaluate(inner)
            return []
        if not first:
            raise self._unsupported(node)
        return as_list(self._expressions.evaluate(inner))

    def _assignment(self, node: Node) -> None:
        target, operator, *values = node.named_children
        value = self.value_of(values[0])
        assign(self._expressions, target, text(operator, self._source), value)

    def value_of(self, node: Node) -> Value:
        """A pipeline or statement as the value that an assignment or a parenthesis takes."""
        inner = node
        while inner.type in ("pipeline", "pipeline_chain") and inner.named_child_count == 1:
            inner = inner.named_children[0]
        inner = essence(inner)
        if inner.type == "assignment_expression":
            self._assignment(inner)
            return self._expressions.evaluate(inner.named_children[0])
        if inner.type == "command" or inner.type in ("pipeline", "pipeline_chain"):
            handler = self._pipeline if inner.type == "pipeline" else self._chain
            return collapse(_captured(handler, inner))
        if inner.type.endswith("_statement"):
            return collapse(_captured(self.statement, inner))
        return self._expressions.evaluate(inner)

    def _command(self, node: Node, piped: list[Value] | None) -> list[Value]:
        name = node.child_by_field_name("command_name") or _first(
            node, "command_name", "command_name_expr"
        )
        arguments = self._arguments(node)
        if name.type == "command_name":
            words = text(name, self._source)
            literal = self._literal_command(words)
            if literal is not None:
                return literal
            return self._interpreter.invoke(words, arguments, piped)
        inner = essence(name.named_children[0])
        if inner.type == "path_command_name":
            inner = inner.named_children[0]
        target = self._expressions.evaluate(inner)
        if isinstance(target, ScriptBlock):
            new_scope = text(node, self._source).startswith("&")
            variables = {"input": piped or []}
            return self._interpreter.call(
                target, variables=variables, arguments=arguments, new_scope=new_scope
            )
        return self._interpreter.invoke(to_string(target), arguments, piped)

    def _literal_command(self, words: str) -> list[Value] | None:
        """Numbers and ranges that the grammar takes for a command's name."""
        first, dots, last = words.partition("..")
        low, high = parse_number(first), parse_number(last) if dots else None
        if dots and isinstance(low, int) and isinstance(high, int):
            step = 1 if high >= low else -1
            return list(range(low, high + step, step))
        return [low] if low is not None and not dots else None

    def _arguments(self, node: Node) -> list[Argument]:
        elements = next((c for c in node.children if c.type == "command_elements"), None)
        arguments: list[Argument] = []
        colon: str | None = None
        join = False
        for element in elements.named_children if elements else []:
            if element.type in ("command_argument_sep", "redirection", "comment"):
                continue
            if element.type == "command_parameter":
                words = text(element, self._source)
                end = self._source[element.end_byte : element.end_byte + 1]
                name = words.lstrip("-").rstrip(":")
                if words.endswith(":") or end == b":":
                    colon = name
                else:
                    arguments.append(Argument(name, bare=True))
                continue
            value, joins, join_next = self._argument(element)
            if colon is not None:
                arguments.append(Argument(colon, value))
                colon = None
            elif isinstance(value, _Splat):
                arguments += value.arguments
            elif (joins or join) and arguments and arguments[-1].name is None:
                before = arguments.pop().value
                arguments.append(Argument(None, [*as_list(before), *as_list(value)]))
            else:
                arguments.append(Argument(None, value))
            join = join_next
        return arguments

    def _argument(self, element: Node) -> tuple[Value, bool, bool]:
        """One argument's value, and whether a comma joins it to the one before or after it."""
        inner = essence(element)
        words = text(inner, self._source)
        if inner.type == "generic_token":
            joins, join_next = words.startswith(","), words.endswith(",")
            items = [_bare_word(word) for word in words.strip(",").split(",") if word]
            return collapse(items), joins, join_next
        if inner.type == "variable" and words.startswith("@"):
            splatted = self._interpreter.scope.get(words[1:].lower())
            return _Splat(splatted), False, False
        return self._expressions.evaluate(inner), False, False

    def _if_statement(self, node: Node) -> list[Value]:
        for part in _branches(node):
            if part.type == "else_clause":
                return self.statements(_first(part, "statement_block"))
            if to_bool(self.value_of(_first(part, "pipeline"))):
                return self.statements(_first(part, "statement_block"))
        return []

    def _foreach_statement(self, node: Node) -> list[Value]:
        parts = [c for c in node.named_children if c.type != "foreach_parameter"]
        variable, items, block = parts[0], parts[1], parts[-1]
        name = text(variable, self._source).lstrip("$").lower()
        output: list[Value] = []
        for item in as_list(self.value_of(items)):
            self._interpreter.scope.values[name] = item
            if not self._loop_body(block, output):
                break
        return output

    def _while_statement(self, node: Node) -> list[Value]:
        condition = _first(node, "while_condition").named_children[0]
        output: list[Value] = []
        while to_bool(self.value_of(condition)):
            if not self._loop_body(_first(node, "statement_block"), output):
                break
        return output

    def _do_statement(self, node: Node) -> list[Value]:
        condition = _first(node, "while_condition").named_children[0]
        until = any(child.type == "until" for child in node.children)
        output: list[Value] = []
        while self._loop_body(_first(node, "statement_block"), output):
            if to_bool(self.value_of(condition)) == until:
                break
        return output

    def _loop_body(self, block: Node, output: list[Value]) -> bool:
        """Runs a loop's body once; False when it said break."""
        try:
            output += self.statements(block)
        except (_Break, _Continue) as leaving:
            output += leaving.output
            return isinstance(leaving, _Continue)
        return True

    def _try_statement(self, node: Node) -> list[Value]:
        last = next((c for c in node.children if c.type == "finally_clause"), None)
        try:
            output = self._try_and_catch(node)
        except Leaving as leaving:
            if last is not None:
                leaving.output += self.statements(_first(last, "statement_block"))
            raise
        return output + (self.statements(_first(last, "statement_block")) if last else [])

    def _try_and_catch(self, node: Node) -> list[Value]:
        try:
            self._interpreter.guarded += 1
            try:
                return self.statements(_first(node, "statement_block"))
            finally:
                self._interpreter.guarded -= 1
        except PowerShellError as error:
            handler = self._catch(node, error.record)
            if handler is None:
                raise
            return self._handle(handler, error)

    def _handle(self, handler: Node, error: PowerShellError) -> list[Value]:
        values = self._interpreter.scope.values
        outer = values.get("_")
        values["_"] = error.record
        try:
            return error.output + self.statements(handler)
        except Leaving as leaving:
            leaving.output = error.output + leaving.output
            raise
        finally:
            values["_"] = outer

    def _catch(self, node: Node, record: ErrorRecord) -> Node | None:
        clauses = next((c for c in node.children if c.type == "catch_clauses"), None)
        for clause in clauses.named_children if clauses else []:
            types = next((c for c in clause.children if c.type == "catch_type_list"), None)
            listed = types.named_children if types else []
            names = [text(child, self._source).strip("[] ") for child in listed]
            if not names or any(_is_exception(record, name) for name in names):
                return _first(clause, "statement_block")
        return None

    def _flow_control_statement(self, node: Node) -> list[Value]:
        word = node.children[0].type.lower()
        value = self.value_of(node.named_children[0]) if node.named_children else None
        self._leave(word, value)

    def _leave(self, word: str, value: Value) -> NoReturn:
        if word == "exit":
            raise ExitScript(int(parse_number(to_string(value)) or 0))
        if word == "return":
            raise _Return(as_list(value))
        if word == "break":
            raise _Break
        if word == "continue":
            raise _Continue
        if isinstance(value, ErrorRecord):
            raise PowerShellError(value, fatal=True)
        if value is None and isinstance(self._interpreter.scope.get("_"), ErrorRecord):
            raise PowerShellError(self._interpreter.scope.get("_"), fatal=True)
        message = to_string(value) or "ScriptHalted"
        record = ErrorRecord(message, identifier=message, category="OperationStopped", target=value)
        raise PowerShellError(record, fatal=True)

    def _function_statement(self, node: Node) -> list[Value]:
        name = text(_first(node, "function_name"), self._source)
        block = next((c for c in node.children if c.type == "script_block"), node)
        owner = node if _parameters(node) else block
        self._interpreter.define(name, ScriptBlock(owner, self._source))
        return []


_TRANSPARENT = frozenset({"statement_list", "script_block", "script_block_body"})
_SILENT = frozenset(
    {"empty_statement", "comment", "param_block", "function_name", "function_parameter_declaration"}
)
_INCREMENTS = frozenset(
    {
        "post_increment_expression",
        "post_decrement_expression",
        "pre_increment_expression",
        "pre_decrement_expression",
    }
)


def _captured(run: Callable[[Node], list[Value]], node: Node) -> list[Value]:
    """Output that goes into a value or the next stage: none of it is left when control leaves."""
    try:
        return run(node)
    except Leaving as leaving:
        leaving.output = []
        raise


class _Splat:
    """``@name``: a hashtable's entries as named arguments, an array's items as positional ones."""

    def __init__(self, value: Value) -> None:
        if isinstance(value, Hashtable):
            self.arguments = [Argument(to_string(name), item) for name, item in value.items()]
        else:
            self.arguments = [Argument(None, item) for item in as_list(value)]


def _bare_word(word: str) -> Value:
    number = parse_number(word)
    return word.strip("'\"") if number is None else number


def _branches(node: Node) -> list[Node]:
    """An if statement's own condition first, then its elseif clauses, then its else."""
    found = [node]
    for child in node.named_children:
        if child.type == "elseif_clauses":
            found += child.named_children
        elif child.type == "else_clause":
            found.append(child)
    return found


def _first(node: Node, *kinds: str) -> Node:
    return next(child for child in node.named_children if child.type in kinds)


def _is_exception(record: ErrorRecord, name: str) -> bool:
    full = record.exception_type.lower()
    wanted = name.lower()
    return wanted in ("exception", "system.exception") or full in (wanted, f"system.{wanted}")
