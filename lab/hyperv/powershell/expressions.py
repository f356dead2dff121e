"""Evaluates expressions: operators, literals, members, indexes, casts, assignment."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from lab.hyperv.powershell import members
from lab.hyperv.powershell.binding import ENUMERATIONS, convert
from lab.hyperv.powershell.syntax import Node, essence, text
from lab.hyperv.powershell.values import (
    CUSTOM_OBJECT,
    ErrorRecord,
    Hashtable,
    PowerShellError,
    PSObject,
    ScriptBlock,
    TypeReference,
    Value,
    as_list,
    collapse,
    equal,
    order_key,
    parse_number,
    to_bool,
    to_number,
    to_string,
)

if TYPE_CHECKING:
    from lab.hyperv.powershell.interpreter import Interpreter

# PowerShell takes the typographic quotes for the plain one; of two in a row the second counts.
_DOUBLED_QUOTES = re.compile("['\u2018\u2019\u201a\u201b](['\u2018\u2019\u201a\u201b])")


class StatementRunner(Protocol):
    """What expressions need of the statements around them."""

    def statements(self, node: Node) -> list[Value]: ...
    def value_of(self, node: Node) -> Value: ...


_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


class Expressions:
    """The expressions of one source text, evaluated in an interpreter's current scope."""

    def __init__(self, interpreter: "Interpreter", run: StatementRunner, source: bytes) -> None:
        self.interpreter = interpreter
        self.run = run
        self.source = source

    def evaluate(self, node: Node) -> Value:
        """The value of an expression; an array stays an array."""
        node = essence(node)
        kind = node.type.replace("_argument_expression", "_expression")
        handler = getattr(self, f"_{kind}", None)
        if handler is None:
            raise PowerShellError(
                ErrorRecord(
                    f"The lab's PowerShell does not know this expression ({node.type}): "
                    f"{self.text(node)[:80]}",
                    "System.NotSupportedException",
                    "NotSupported",
                    "NotImplemented",
                )
            )
        return handler(node)

    def text(self, node: Node) -> str:
        return text(node, self.source)

    def _pipeline(self, node: Node) -> Value:
        return self.run.value_of(node)

    def _variable(self, node: Node) -> Value:
        name = variable_name(self.text(node))
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        if name == "?":
            return not self.interpreter.failed_before
        if name.startswith("env:"):
            return self.interpreter.session.environment.get(name[4:].upper())
        if name == "input" and not self.interpreter.scope.has("input"):
            return self.interpreter.session.standard_input().splitlines()
        return self.interpreter.scope.get("_" if name == "psitem" else name)

    def _string_literal(self, node: Node) -> str:
        inner = node.named_children[0]
        words = self.text(inner)
        if inner.type == "verbatim_string_characters":
            return _DOUBLED_QUOTES.sub(r"\1", words[1:-1])
        if inner.type == "verbatim_here_string_characters":
            return words.split("\n", 1)[1].rsplit("\n", 1)[0].removesuffix("\r")
        if inner.type == "expandable_here_string_literal":
            start = words.index("\n") + 1
            end = len(words[: words.rindex("\n")].removesuffix("\r").encode())
            return self._expand(inner, inner.start_byte + start, inner.start_byte + end)
        return self._expand(inner, inner.start_byte + 1, inner.end_byte - 1)

    def _expand(self, node: Node, start: int, end: int) -> str:
        pieces: list[str] = []
        at = start
        for child in node.named_children:
            pieces.append(_unescape(self.source[at : child.start_byte].decode()))
            if child.type == "variable":
                pieces.append(to_string(self._variable(child)))
            elif child.type == "sub_expression":
                pieces.append(to_string(collapse(self.run.statements(child))))
            at = child.end_byte
        pieces.append(_unescape(self.source[at:end].decode()))
        return "".join(pieces)

    def _integer_literal(self, node: Node) -> Value:
        return parse_number(self.text(node))

    _real_literal = _integer_literal

    def _generic_token(self, node: Node) -> Value:
        return self.text(node)

    def _parenthesized_expression(self, node: Node) -> Value:
        return self.run.value_of(node.named_children[0])

    def _sub_expression(self, node: Node) -> Value:
        return collapse(self.run.statements(node))

    def _array_expression(self, node: Node) -> list[Value]:
        return list(self.run.statements(node))

    def _array_literal_expression(self, node: Node) -> list[Value]:
        return [self.evaluate(child) for child in node.named_children]

    def _argument_expression_list(self, node: Node) -> list[Value]:
        return [self.evaluate(child) for child in node.named_children]

    def _hash_literal_expression(self, node: Node) -> Hashtable:
        table = Hashtable()
        for body in node.named_children:
            for entry in body.named_children:
                if entry.type != "hash_entry":
                    continue
                key_node, value_node = (c for c in entry.named_children if c.type != "comment")
                key = essence(key_node.named_children[0])
                name = self.text(key) if key.type == "simple_name" else self.evaluate(key)
                table[name] = self.run.value_of(value_node)
        return table

    def _script_block_expression(self, node: Node) -> ScriptBlock:
        return ScriptBlock(node, self.source)

    def _type_literal(self, node: Node) -> TypeReference:
        return TypeReference(
            self.text(node).strip("[]") + ("[]" if "[]" in self.text(node) else "")
        )

    def _expression_with_unary_operator(self, node: Node) -> Value:
        operator, operand = node.children[0], node.named_children[-1]
        if operator.type == "cast_expression":
            return self._cast_expression(operator)
        word = self.text(operator).lower()
        if word in ("-not", "!"):
            return not to_bool(self.evaluate(operand))
        if word == "-":
            return -to_number(self.evaluate(operand))
        if word == "+":
            return to_number(self.evaluate(operand))
        if word == "-bnot":
            return ~int(to_number(self.evaluate(operand)))
        if word == ",":
            return [self.evaluate(operand)]
        if word == "-split":
            return to_string(self.evaluate(operand)).split()
        return "".join(to_string(item) for item in as_list(self.evaluate(operand)))

    def _cast_expression(self, node: Node) -> Value:
        target = self._type_literal(node.named_children[0]).name
        operand = node.named_children[1]
        inner = essence(operand)
        value = self.evaluate(inner)
        return cast(target, value)

    def _member_access(self, node: Node) -> Value:
        owner, name = self._owner_and_name(node)
        return members.get_member(self.interpreter, owner, name)

    def _invokation_expression(self, node: Node) -> Value:
        owner, name = self._owner_and_name(node)
        listing = next((c for c in node.named_children if c.type == "argument_list"), None)
        arguments = [self.evaluate(c) for c in listing.named_children] if listing else []
        if (
            listing
            and listing.named_children
            and (listing.named_children[0].type == "argument_expression_list")
        ):
            arguments = [self.evaluate(c) for c in listing.named_children[0].named_children]
        return members.call_method(self.interpreter, owner, name, arguments)

    def _owner_and_name(self, node: Node) -> tuple[Value, str]:
        owner = self.evaluate(node.named_children[0])
        name_node = next(c for c in node.named_children[1:] if c.type == "member_name")
        inner = essence(name_node.named_children[0])
        name = self.text(inner) if inner.type == "simple_name" else to_string(self.evaluate(inner))
        return owner, name

    def _element_access(self, node: Node) -> Value:
        owner, index = (self.evaluate(child) for child in node.named_children)
        if isinstance(owner, Hashtable):
            return owner[index]
        if isinstance(owner, (list, str)):
            wanted = [int(to_number(item)) for item in as_list(index)]
            found = [owner[at] if -len(owner) <= at < len(owner) else None for at in wanted]
            return found if isinstance(index, list) else found[0]
        if owner is None:
            raise PowerShellError(
                ErrorRecord(
                    "Cannot index into a null array.",
                    identifier="NullArray",
                    category="InvalidOperation",
                )
            )
        return owner if as_list(index) == [0] else None

    def _post_increment_expression(self, node: Node) -> Value:
        target = node.named_children[0]
        before = to_number(self.evaluate(target))
        assign(self, target, "=", before + (1 if self.text(node).endswith("++") else -1))
        return before

    _post_decrement_expression = _post_increment_expression

    def _pre_increment_expression(self, node: Node) -> Value:
        target = node.named_children[0]
        after = to_number(self.evaluate(target)) + (1 if self.text(node).startswith("++") else -1)
        assign(self, target, "=", after)
        return after

    _pre_decrement_expression = _pre_increment_expression

    def _logical_expression(self, node: Node) -> bool:
        left, right = node.named_children[0], node.named_children[-1]
        word = self.text(node.children[1]).lower()
        first = to_bool(self.evaluate(left))
        if word == "-and":
            return first and to_bool(self.evaluate(right))
        if word == "-or":
            return first or to_bool(self.evaluate(right))
        return first != to_bool(self.evaluate(right))

    def _bitwise_expression(self, node: Node) -> int:
        left, right = (int(to_number(self.evaluate(c))) for c in _operands(node))
        word = self.text(node.children[1]).lower()
        return {"-band": left & right, "-bor": left | right, "-bxor": left ^ right}[word]

    def _comparison_expression(self, node: Node) -> Value:
        left_node, right_node = _operands(node)
        word = self.text(node.children[1]).lower()
        return compare(word, self.evaluate(left_node), self.evaluate(right_node))

    def _additive_expression(self, node: Node) -> Value:
        left, right = (self.evaluate(child) for child in _operands(node))
        return arithmetic(self.text(node.children[1]), left, right)

    _multiplicative_expression = _additive_expression

    def _format_expression(self, node: Node) -> str:
        template, values = (self.evaluate(child) for child in _operands(node))
        return format_string(to_string(template), as_list(values))

    def _range_expression(self, node: Node) -> list[int]:
        low, high = (int(to_number(self.evaluate(child))) for child in _operands(node))
        step = 1 if high >= low else -1
        return list(range(low, high + step, step))


_CONSTANTS: dict[str, Value] = {"true": True, "false": False, "null": None}


def _operands(node: Node) -> tuple[Node, Node]:
    return node.named_children[0], node.named_children[-1]


def variable_name(words: str) -> str:
    """``$Name``, ``${Name}`` or ``$script:Name`` as the lower-case key of a scope."""
    name = words.lstrip("$@").strip("{}").lower()
    scope, colon, rest = name.partition(":")
    return rest if colon and scope in ("script", "global", "local", "private") else name


def _unescape(words: str) -> str:
    words = words.replace('""', '"')
    return re.sub(r"`(.)", lambda found: _ESCAPES.get(found[1], found[1]), words, flags=re.DOTALL)


def assign(expressions: Expressions, target: Node, operator: str, value: Value) -> None:
    """Assigns to a variable, a member, an element, or a list of those."""
    node = essence(target)
    if node.type == "array_literal_expression":
        items = as_list(value)
        for number, part in enumerate(node.named_children):
            assign(expressions, part, "=", items[number] if number < len(items) else None)
        return
    if operator != "=":
        value = arithmetic(operator[0], expressions.evaluate(node), value)
    if node.type == "variable":
        name = variable_name(expressions.text(node))
        if name.startswith("env:"):
            expressions.interpreter.session.environment[name[4:].upper()] = to_string(value)
        elif name not in _CONSTANTS:
            expressions.interpreter.scope.values[name] = value
    elif node.type == "member_access":
        owner, name = expressions._owner_and_name(node)
        members.set_member(expressions.interpreter, owner, name, value)
    elif node.type == "element_access":
        owner, index = (expressions.evaluate(child) for child in node.named_children)
        owner[index if isinstance(owner, Hashtable) else int(to_number(index))] = value
    elif node.type == "expression_with_unary_operator":
        cast_node = node.named_children[0]
        kind = expressions._type_literal(cast_node.named_children[0]).name
        assign(expressions, cast_node.named_children[1], "=", cast(kind, value))
    else:
        raise PowerShellError(
            ErrorRecord("The assignment expression is not valid.", identifier="InvalidLeftHandSide")
        )


_TYPE_NAMES = {
    "int": "Int32",
    "int16": "Int16",
    "int32": "Int32",
    "uint32": "UInt32",
    "int64": "Int64",
    "long": "Int64",
    "uint64": "UInt64",
    "bool": "Boolean",
    "boolean": "Boolean",
    "switch": "SwitchParameter",
    "guid": "Guid",
    "hashtable": "Hashtable",
    "scriptblock": "ScriptBlock",
}


def cast(target: str, value: Value) -> Value:
    """``[target]value``.

    Raises:
        PowerShellError: there is no such conversion, or the type is not known here.
    """
    base = target.lower().removeprefix("system.")
    array = base.endswith("[]")
    base = base.removesuffix("[]")
    if array:
        return [cast(base, item) for item in as_list(value)]
    if base in ("pscustomobject", "psobject", "ordered", "object", "array", "void"):
        return _cast_to_object(base, value)
    if base in ("double", "float", "decimal", "single"):
        return float(to_number(value))
    if base in ("bool", "boolean"):
        return to_bool(value)
    if base == "string":
        return to_string(value)
    if base == "datetime":
        return members.parse_date(to_string(value))
    name = _TYPE_NAMES.get(base)
    if name is None:
        short = target.split(".")[-1]
        known = {known.lower(): known for known in ENUMERATIONS}
        if short.lower() not in known:
            raise members.type_not_found(target)
        name = known[short.lower()]
    if value is None and name.startswith(("Int", "UInt")):
        return 0
    return convert(name, value)


def _cast_to_object(base: str, value: Value) -> Value:
    if base == "pscustomobject" and isinstance(value, Hashtable):
        return PSObject(CUSTOM_OBJECT, [(to_string(key), item) for key, item in value.items()])
    if base == "array":
        return as_list(value)
    return None if base == "void" else value


def compare(word: str, left: Value, right: Value) -> Value:
    """A comparison operator; with an array on the left most of them filter it."""
    operator = word.lstrip("-")
    if operator.startswith(("c", "i")) and operator[1:] in _COMPARISONS and operator != "contains":
        operator = operator[1:]
    if operator in ("is", "isnot"):
        return members.is_type(left, right.name) == (operator == "is")
    if operator == "as":
        return cast(right.name, left)
    if operator in ("contains", "notcontains"):
        return any(equal(item, right) for item in as_list(left)) == (operator == "contains")
    if operator in ("in", "notin"):
        return any(equal(item, left) for item in as_list(right)) == (operator == "in")
    if operator == "join":
        return to_string(right).join(to_string(item) for item in as_list(left))
    if operator == "split":
        return re.split(to_string(right), to_string(left), flags=re.IGNORECASE)
    if operator == "replace":
        pattern, *rest = as_list(right)
        new = re.sub(r"\$(\d)", r"\\\1", to_string(rest[0] if rest else "").replace("\\", r"\\"))
        return re.sub(to_string(pattern), new, to_string(left), flags=re.IGNORECASE)
    test = _COMPARISONS[operator]
    if isinstance(left, list):
        return [item for item in left if test(item, right)]
    return test(left, right)


def _like(left: Value, right: Value) -> bool:
    pattern = re.escape(to_string(right)).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(pattern, to_string(left), re.IGNORECASE | re.DOTALL) is not None


def _match(left: Value, right: Value) -> bool:
    return re.search(to_string(right), to_string(left), re.IGNORECASE) is not None


def _less(left: Value, right: Value) -> bool:
    if isinstance(left, (int, float)) and not isinstance(right, (int, float)):
        right = to_number(right)
    return order_key(left) < order_key(to_string(right) if isinstance(left, str) else right)


_COMPARISONS: dict[str, Callable[[Value, Value], bool]] = {
    "eq": equal,
    "ne": lambda left, right: not equal(left, right),
    "lt": _less,
    "ge": lambda left, right: not _less(left, right),
    "gt": lambda left, right: not _less(left, right) and not equal(left, right),
    "le": lambda left, right: _less(left, right) or equal(left, right),
    "like": _like,
    "notlike": lambda left, right: not _like(left, right),
    "match": _match,
    "notmatch": lambda left, right: not _match(left, right),
}


def arithmetic(operator: str, left: Value, right: Value) -> Value:
    """``+ - * / %``: the left operand decides what they mean."""
    if operator == "+":
        if isinstance(left, list):
            return left + as_list(right)
        if isinstance(left, str):
            return left + to_string(right)
        if isinstance(left, Hashtable) and isinstance(right, Hashtable):
            return Hashtable([*left.items(), *right.items()])
    if operator == "*" and isinstance(left, (str, list)):
        return left * int(to_number(right))
    if hasattr(left, "year"):
        return left - right if operator == "-" else left + right
    first, second = to_number(left), to_number(right)
    if operator == "+":
        return first + second
    if operator == "-":
        return first - second
    if operator == "*":
        return first * second
    if second == 0:
        raise PowerShellError(
            ErrorRecord(
                "Attempted to divide by zero.", "System.DivideByZeroException", "RuntimeException"
            )
        )
    if operator == "%":
        return first % second
    exact = first / second
    return int(exact) if isinstance(exact, float) and exact.is_integer() else exact


def format_string(template: str, values: list[Value]) -> str:
    """The ``-f`` operator: ``{0}``, ``{0:N2}``, ``{0,8}``, ``{{``."""

    def replace(found: re.Match[str]) -> str:
        if found[0] in ("{{", "}}"):
            return found[0][0]
        value = values[int(found["index"])] if int(found["index"]) < len(values) else None
        form = found["format"]
        words = members.format_value(value, form) if form else to_string(value)
        width = int(found["width"] or 0)
        return words.rjust(width) if width >= 0 else words.ljust(-width)

    pattern = r"\{\{|\}\}|\{(?P<index>\d+)(?:,(?P<width>-?\d+))?(?::(?P<format>[^}]*))?\}"
    return re.sub(pattern, replace, template)
