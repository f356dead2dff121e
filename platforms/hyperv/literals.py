"""Values as PowerShell literals, so that no name a person chose can become code.

Every script of this package gets its values through this module and through nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable

from models.errors import InvalidSpec

# PowerShell takes the typographic quotes for the plain one, and any two of them in a row for one.
_SINGLE_QUOTES = "'\u2018\u2019\u201a\u201b"


def text(value: str) -> str:
    """A single-quoted string, in which PowerShell expands nothing.

    Raises:
        InvalidSpec: The value holds a control character, which no name or path on Windows may.
    """
    if any(ord(character) < 32 and character not in "\r\n\t" for character in value):
        raise InvalidSpec(
            f"{value!r} holds a control character and cannot be sent to a Hyper-V host.",
            hint="Write the name or path without it.",
        )
    doubled = "".join(
        character * 2 if character in _SINGLE_QUOTES else character for character in value
    )
    return f"'{doubled}'"


def texts(values: Iterable[str]) -> str:
    """An array of strings, an array also where there is one or none."""
    return f"@({', '.join(text(value) for value in values)})"


def number(value: int) -> str:
    """A whole number in digits."""
    return str(int(value))
