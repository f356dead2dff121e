"""The statements of a script: pipelines, commands, control flow, and what leaves a block early.

One `Statements` runs one source text in an interpreter's current scope. Pipelines run stage by
stage, each one to its end: nothing that a management script can observe depends on items being
streamed.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from lab.hyperv.powershell.binding import Argument
from lab.hyperv.powershell.expressions import Expressions, assign
from lab.hyperv.powershell.session import ExitScript
from lab.hyperv.powershell.syntax import Node, essence, text
from lab.hyperv.powershell.values import (
    ErrorRecord,
    Hashtable,
    Leaving,
    PowerShellError,
    ScriptBlock,
    Value,
    as_list,
    collapse,
    parse_number,
    to_bool,
    to_string,
)

if TYPE_CHECKING:
    from lab.hyperv.powershell.interpreter import Interpreter


class BreakLoop(Leaving):
    """``break``."""


class ContinueLoop(Leaving):
    """``continue``."""


class ReturnValue(Leaving):
    """``return``."""


class Statements:
    """The statements of one source text, run in an interpreter."""

    def __init__(self, interpreter: "Interpreter", source: bytes) -> None:
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
        except (BreakLoop, ContinueLoop) as leaving:
            output += leaving.output
            return isinstance(leaving, ContinueLoop)
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
            raise ReturnValue(as_list(value))
        if word == "break":
            raise BreakLoop
        if word == "continue":
            raise ContinueLoop
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
        owner = node if parameters_of(node) else block
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


def parameters_of(node: Node) -> list[Node]:
    """The parameters that a script block or a function declares."""
    block = next((c for c in node.children if c.type == "param_block"), None)
    if block is None:
        block = next((c for c in node.children if c.type == "function_parameter_declaration"), None)
    if block is None:
        return []
    listing = next((c for c in block.children if c.type == "parameter_list"), None)
    return [c for c in listing.children if c.type == "script_parameter"] if listing else []
