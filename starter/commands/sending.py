"""How the commands that speak to a run send a message and tell what became of it; shared by
`messages` and `decisions`."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import ValidationError
from rich.markup import escape

from models.errors import InvalidConfiguration
from models.messages import Message, Reply
from starter import exits, speak
from starter.client import connect, person
from starter.terminal import emit, say

if TYPE_CHECKING:
    from temporalio.client import Client

Word = TypeVar("Word", bound=Message)

Reason = Annotated[str, typer.Option(help="Why; kept in the audit trail.")]
RequestId = Annotated[
    str | None,
    typer.Option(help="Saying the same id twice acts once.", show_default="a new one"),
]
AsSignal = Annotated[
    bool,
    typer.Option(
        "--signal", help="Leave it as a signal: no answer, but kept while no worker runs."
    ),
]


@dataclass(frozen=True)
class Envelope:
    """What every message carries, and how it is sent."""

    by: str
    reason: str
    request_id: str
    signal: bool
    as_json: bool

    def message(self, kind: type[Word], **fields: object) -> Word:
        """A message of this kind.

        Raises:
            InvalidConfiguration: What was typed does not fit, for example an endless reason.
        """
        carried = {"by": self.by, "reason": self.reason, "request_id": self.request_id}
        try:
            return kind.model_validate({**carried, **fields})
        except ValidationError as error:
            problems = "; ".join(
                f"--{str(issue['loc'][0]).replace('_', '-')}: {issue['msg']}"
                for issue in error.errors()
            )
            raise InvalidConfiguration(f"The message cannot be sent: {problems}.") from error


def envelope_for(
    by: str | None, reason: str, request_id: str | None, signal: bool, as_json: bool
) -> Envelope:
    return Envelope(by or person(), reason, request_id or str(uuid.uuid4()), signal, as_json)


async def send(
    client: Client, machine: str, name: str, message: Message, envelope: Envelope
) -> Reply | None:
    """Send one message; `None` for a signal, which is not answered."""
    if envelope.signal:
        await speak.signal(client, machine, name, message)
        return None
    return await speak.update(client, machine, name, message)


def tell(
    machine: str, name: str, envelope: Envelope, reply: Reply | None, following: str, **more: Any
) -> None:
    """Say what became of it, and what comes next."""
    if envelope.as_json:
        emit(
            {
                "machine": machine,
                "message": name,
                "request_id": envelope.request_id,
                "by": envelope.by,
                "sent_as": "signal" if envelope.signal else "update",
                "reply": reply.model_dump(mode="json") if reply else None,
                **more,
            }
        )
        return
    if reply is None:
        said = "Left as a signal; it is acted on as soon as a control worker runs."
    else:
        said = escape(reply.message) + (" (said before; acted on once)" if reply.repeated else "")
    say(f"{said}\nNext: [bold]{escape(following)}[/bold]")


def say_plainly(
    machine: str, name: str, message: Message, envelope: Envelope, following: str
) -> int:
    async def speak_up() -> Reply | None:
        return await send(await connect(), machine, name, message, envelope)

    tell(machine, name, envelope, asyncio.run(speak_up()), following)
    return exits.OK
