"""Scripts to syntax trees: tree-sitter-powershell behind PowerShell's own parser errors.

The grammar is a third party's, and stricter than PowerShell here and there (upper-case size
suffixes are mended here). What it cannot parse is answered like a script that PowerShell cannot
parse.
"""

import re
from collections.abc import Iterator

import tree_sitter
import tree_sitter_powershell

from lab.hyperv.powershell.values import ErrorRecord, PowerShellError

Node = tree_sitter.Node

_LANGUAGE = tree_sitter.Language(tree_sitter_powershell.language())
# Strings and comments, which must stay as they are, or a number with a size suffix.
_SUFFIXED = re.compile(
    r"""@'.*?'@|@".*?"@|'[^']*'|"(?:`.|[^"`])*"|<#.*?#>|\#[^\n]*"""
    r"|(?<![\w.-])\d+(?:KB|MB|GB|TB|PB)\b",
    re.DOTALL | re.IGNORECASE,
)
# To PowerShell typographic quotes are quotes too, to be doubled inside a string of their kind.
_LONE_QUOTES = {
    "verbatim_string_characters": re.compile("['\u2018-\u201b]{2}|([\u2018-\u201b])"),
    "expandable_string_literal": re.compile('`.|["\u201c-\u201e]{2}|([\u201c-\u201e])'),
}
# One child only: the grammar's ladder of precedences, of no meaning by itself.
_LADDER = frozenset(
    f"{level}_{kind}"
    for kind in ("expression", "argument_expression")
    for level in (
        "logical",
        "bitwise",
        "comparison",
        "additive",
        "multiplicative",
        "format",
        "range",
        "array_literal",
        "unary",
        "left_assignment",
    )
) | {"pipeline_chain", "argument_expression"}


def parse(script: str) -> tuple[Node, bytes]:
    """The tree and the bytes that its nodes point into.

    Raises:
        PowerShellError: a ParseException, as PowerShell reports before it runs anything.
    """
    source = _SUFFIXED.sub(
        lambda found: found[0].lower() if found[0][0].isdigit() else found[0], script
    ).encode()
    root = tree_sitter.Parser(_LANGUAGE).parse(source).root_node
    if root.has_error:
        raise PowerShellError(_parse_error(root, source))
    for node in _descendants(root):
        quotes = _LONE_QUOTES.get(node.type)
        if quotes and any(found[1] for found in quotes.finditer(text(node, source)[1:-1])):
            # The grammar reads over it, PowerShell would end the string there.
            raise PowerShellError(_parse_error(node, source))
    return root, source


def _descendants(node: Node) -> Iterator[Node]:
    yield node
    for child in node.named_children:
        yield from _descendants(child)


def essence(node: Node) -> Node:
    """The node below all precedence levels that only pass it on."""
    while node.type in _LADDER and node.named_child_count == 1 and node.child_count == 1:
        node = node.named_children[0]
    return node


def text(node: Node, source: bytes) -> str:
    return source[node.start_byte : node.end_byte].decode()


def _parse_error(root: Node, source: bytes) -> ErrorRecord:
    node = root
    while True:
        broken = [child for child in node.children if child.has_error or child.is_missing]
        if node.type == "ERROR" or node.is_missing or not broken:
            break
        node = broken[0]
    row, column = node.start_point
    near = text(node, source).split("\n")[0][:60]
    return ErrorRecord(
        f"At line:{row + 1} char:{column + 1}\n+ {near}\nUnexpected token '{near}' in expression "
        "or statement.",
        "System.Management.Automation.ParseException",
        "UnexpectedToken",
        "ParserError",
    )
