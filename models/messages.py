"""What people and bots may say to a run. Each is both a signal and an update of the same name.

Every message carries `request_id` (the same one twice acts once), `by` (who says it) and, if
wanted, `reason`. Fields that a message does not know are ignored, so that newer bots can talk to
older workers.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from models.units import ByteSize


class Message(BaseModel):
    """What all messages carry."""

    model_config = ConfigDict(frozen=True)

    request_id: str = Field(default="", max_length=200, description="Idempotency key.")
    by: str = Field(default="unknown", max_length=200, description="Who says it.")
    reason: str = Field(default="", max_length=2000)


class RunFailover(Message):
    """Leave `ready`: stop the Azure machine, send the last delta, start on-premises."""

    recovery_point: str = "latest"


class Commit(Message):
    """End the failback for good; the Azure machine and its disks are deleted."""

    override: bool = Field(default=False, description="Commit although health checks do not hold.")


class Abort(Message):
    """Undo everything; both sides as they were."""

    discard_onprem_changes: bool = Field(
        default=False, description="Needed once the on-premises machine has booted."
    )


class Pause(Message):
    """Hold the copy between extents."""


class Resume(Message):
    """Go on after `pause`."""


class Retry(Message):
    """Try the blocked step again."""


class Verify(Message):
    """Read every byte on both sides again and compare."""


class SetLimits(Message):
    """Change the bandwidth limit inside running copies."""

    bandwidth_limit: ByteSize | None = Field(
        default=None, description="Bytes per second; none = no limit."
    )


class Reply(BaseModel):
    """What an update answers."""

    accepted: bool = True
    repeated: bool = Field(default=False, description="The same request_id was acted on before.")
    phase: str
    message: str
