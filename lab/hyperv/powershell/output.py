"""What a script leaves on the console: objects as text, errors as CLIXML."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from lab.hyperv.powershell.values import ErrorRecord, Hashtable, PSObject, Value, to_string


def render(value: Value) -> str:
    """One output object as text: strings as they are, objects as a list of their properties."""
    items: Hashtable | None = None
    if isinstance(value, PSObject):
        items = value.properties
    elif isinstance(value, Hashtable):
        items = value
    if items is None or not len(items):
        return to_string(value)
    width = max(len(to_string(key)) for key, _ in items.items())
    lines = [f"{to_string(key):<{width}} : {to_string(item)}" for key, item in items.items()]
    return "\r\n" + "\r\n".join(lines) + "\r\n"


def clixml(records: Sequence[ErrorRecord]) -> str:
    """The error stream as ``powershell.exe -EncodedCommand`` writes it; empty without errors."""
    if not records:
        return ""
    lines: list[str] = []
    for record in records:
        reason = record.exception_type.split(".")[-1]
        target = to_string(record.target)
        prefix = f"{record.command} : " if record.command else ""
        lines += [
            *(prefix + record.message).split("\n"),
            f"    + CategoryInfo          : {record.category}: ({target}:String) "
            f"[{record.command}], {reason}",
            f"    + FullyQualifiedErrorId : {record.identifier}",
            " ",
        ]
    strings = "".join(f'<S S="Error">{escape(line)}_x000D__x000A_</S>' for line in lines)
    return (
        '#< CLIXML\r\n<Objs Version="1.1.0.1" '
        f'xmlns="http://schemas.microsoft.com/powershell/2004/04">{strings}</Objs>'
    )
