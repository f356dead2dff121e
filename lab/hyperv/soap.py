"""WS-Man messages: what is read from a request, and the replies as Windows words them.

Only the Windows shell resource is served: Create, Command, Send, Receive, Signal, Delete.
"""

import base64
import binascii
import re
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

NAMESPACES = {
    "s": "http://www.w3.org/2003/05/soap-envelope",
    "a": "http://schemas.xmlsoap.org/ws/2004/08/addressing",
    "w": "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd",
    "x": "http://schemas.xmlsoap.org/ws/2004/09/transfer",
    "p": "http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd",
    "rsp": "http://schemas.microsoft.com/wbem/wsman/1/windows/shell",
    "f": "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault",
}
SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
SHELL_RESOURCE = f"{SHELL}/cmd"
TRANSFER = "http://schemas.xmlsoap.org/ws/2004/09/transfer"

OPERATION_TIMEOUT = 2150858793
"""Nothing came within the operation timeout; the client asks again."""
INVALID_RESOURCE = 2150858752
SHELL_NOT_FOUND = 2150858843
INVALID_REQUEST = 2150858817
QUOTA_EXCEEDED = 2150859174


class Fault(Exception):
    """A SOAP fault; `code` is WinRM's own number."""

    def __init__(self, code: int, subcode: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.subcode = subcode
        self.reason = reason


@dataclass(frozen=True)
class Request:
    """A parsed envelope. `options` and `timeout_seconds` come from the header."""

    action: str
    message_id: str
    resource: str
    shell_id: str
    timeout_seconds: float
    options: dict[str, str]
    body: ElementTree.Element

    @property
    def operation(self) -> str:
        """The last part of the action: ``Create``, ``Receive``, …"""
        return self.action.rsplit("/", 1)[-1]

    def text(self, path: str) -> str:
        return self.body.findtext(path, "", NAMESPACES)

    def find(self, path: str) -> ElementTree.Element | None:
        return self.body.find(path, NAMESPACES)


def parse_request(content: bytes) -> Request:
    """Reads an envelope.

    Raises:
        Fault: it is none.
    """
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise Fault(INVALID_REQUEST, "w:SchemaValidationError", "A DTD is not allowed.")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise Fault(INVALID_REQUEST, "w:SchemaValidationError", f"No SOAP: {error}") from None
    header, body = root.find("s:Header", NAMESPACES), root.find("s:Body", NAMESPACES)
    if header is None:
        raise Fault(INVALID_REQUEST, "w:SchemaValidationError", "The envelope has no header.")
    options = {
        option.get("Name", ""): option.text or ""
        for option in header.iterfind("w:OptionSet/w:Option", NAMESPACES)
    }
    selectors = {
        selector.get("Name", ""): selector.text or ""
        for selector in header.iterfind("w:SelectorSet/w:Selector", NAMESPACES)
    }
    return Request(
        action=header.findtext("a:Action", "", NAMESPACES),
        message_id=header.findtext("a:MessageID", "", NAMESPACES),
        resource=header.findtext("w:ResourceURI", "", NAMESPACES),
        shell_id=selectors.get("ShellId", ""),
        timeout_seconds=_duration(header.findtext("w:OperationTimeout", "PT60S", NAMESPACES)),
        options=options,
        body=body if body is not None else ElementTree.Element("Body"),
    )


def _duration(words: str) -> float:
    """Seconds of an ISO 8601 duration such as ``PT20S`` or ``PT1M30.5S``."""
    match = re.fullmatch(r"P(?:(\d+)D)?T?(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?", words)
    if match is None:
        return 60.0
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


def _envelope(action: str, relates_to: str, body: str) -> bytes:
    spaces = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NAMESPACES.items())
    return (
        f'<s:Envelope xml:lang="en-US" {spaces}><s:Header>'
        f"<a:Action>{escape(action)}</a:Action>"
        f"<a:MessageID>uuid:{str(uuid.uuid4()).upper()}</a:MessageID>"
        "<a:To>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:To>"
        f"<a:RelatesTo>{escape(relates_to)}</a:RelatesTo></s:Header>"
        f"<s:Body>{body}</s:Body></s:Envelope>"
    ).encode()


def created(request: Request, shell_id: str, user: str) -> bytes:
    """The reply to Create."""
    body = (
        "<x:ResourceCreated><a:Address>http://127.0.0.1/wsman</a:Address><a:ReferenceParameters>"
        f"<w:ResourceURI>{SHELL_RESOURCE}</w:ResourceURI><w:SelectorSet>"
        f'<w:Selector Name="ShellId">{shell_id}</w:Selector></w:SelectorSet>'
        "</a:ReferenceParameters></x:ResourceCreated>"
        f"<rsp:Shell><rsp:ShellId>{shell_id}</rsp:ShellId>"
        f"<rsp:ResourceUri>{SHELL_RESOURCE}</rsp:ResourceUri><rsp:Owner>{escape(user)}</rsp:Owner>"
        "<rsp:ClientIP>127.0.0.1</rsp:ClientIP><rsp:IdleTimeOut>PT7200.000S</rsp:IdleTimeOut>"
        "<rsp:InputStreams>stdin</rsp:InputStreams>"
        "<rsp:OutputStreams>stdout stderr</rsp:OutputStreams></rsp:Shell>"
    )
    return _envelope(f"{TRANSFER}/CreateResponse", request.message_id, body)


def command_started(request: Request, command_id: str) -> bytes:
    """The reply to Command."""
    body = f"<rsp:CommandResponse><rsp:CommandId>{command_id}</rsp:CommandId></rsp:CommandResponse>"
    return _envelope(f"{SHELL}/CommandResponse", request.message_id, body)


def sent(request: Request) -> bytes:
    """The reply to Send."""
    return _envelope(f"{SHELL}/SendResponse", request.message_id, "<rsp:SendResponse/>")


def received(
    request: Request, command_id: str, streams: Sequence[tuple[str, bytes]], exit_code: int | None
) -> bytes:
    """The reply to Receive: output by stream, and the exit code once the command is done."""
    pieces = [
        f'<rsp:Stream Name="{name}" CommandId="{command_id}">'
        f"{base64.b64encode(content).decode()}</rsp:Stream>"
        for name, content in streams
    ]
    if exit_code is None:
        state = f'<rsp:CommandState CommandId="{command_id}" State="{SHELL}/CommandState/Running"/>'
    else:
        pieces += [
            f'<rsp:Stream Name="{name}" CommandId="{command_id}" End="true"></rsp:Stream>'
            for name in ("stdout", "stderr")
        ]
        state = (
            f'<rsp:CommandState CommandId="{command_id}" State="{SHELL}/CommandState/Done">'
            f"<rsp:ExitCode>{exit_code}</rsp:ExitCode></rsp:CommandState>"
        )
    body = f"<rsp:ReceiveResponse>{''.join(pieces)}{state}</rsp:ReceiveResponse>"
    return _envelope(f"{SHELL}/ReceiveResponse", request.message_id, body)


def signalled(request: Request) -> bytes:
    """The reply to Signal."""
    return _envelope(f"{SHELL}/SignalResponse", request.message_id, "<rsp:SignalResponse/>")


def deleted(request: Request) -> bytes:
    """The reply to Delete."""
    return _envelope(f"{TRANSFER}/DeleteResponse", request.message_id, "")


def fault(fault: Fault, relates_to: str) -> bytes:
    """A fault, to be sent with HTTP status 500."""
    reason = escape(fault.reason)
    body = (
        "<s:Fault><s:Code><s:Value>s:Receiver</s:Value><s:Subcode>"
        f"<s:Value>{fault.subcode}</s:Value></s:Subcode></s:Code>"
        f'<s:Reason><s:Text xml:lang="en-US">{reason}</s:Text></s:Reason>'
        f'<s:Detail><f:WSManFault Code="{fault.code}" Machine="127.0.0.1">'
        f"<f:Message>{reason}</f:Message></f:WSManFault></s:Detail></s:Fault>"
    )
    return _envelope("http://schemas.dmtf.org/wbem/wsman/1/wsman/fault", relates_to, body)


def decode_stream(words: str) -> bytes:
    """The bytes of a stream element.

    Raises:
        Fault: it is not base64.
    """
    try:
        return base64.b64decode(words, validate=True)
    except binascii.Error as error:
        raise Fault(INVALID_REQUEST, "w:SchemaValidationError", f"Bad stream: {error}") from None
