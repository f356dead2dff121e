"""How to reach a Hyper-V host and where its movers are. The password is held so that it cannot slip
into a log: it has no readable form but `reveal`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from models.errors import InvalidConfiguration

# A SCSI controller of Hyper-V has 64 locations; the mover's own disk sits at the first.
SCSI_LOCATIONS = 64


class Secret:
    """A string that shows itself only when asked by name."""

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself, to be handed on and not kept."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__


@dataclass(frozen=True)
class HyperVHost:
    """One Hyper-V host.

    Attributes:
        endpoint: WinRM's URL, `https://host:5986/wsman`. Plain `http` is refused unless the
            transport encrypts every message (`ntlm` and `kerberos` do, and are told to).
        username: `DOMAIN\\user` or `user@domain`; in the host's Hyper-V Administrators and Remote
            Management Users (or an administrator).
        password: Its password; unused with a Kerberos ticket.
        transport: How to sign in.
        ca_file: CA file for the host's certificate; the public authorities if none. The certificate
            is always checked.
        operation_timeout_seconds: How long the host may hold one WS-Man request.
        read_timeout_seconds: How long a silent connection lasts; more than the former.
        script_timeout_seconds: How long one script may run.
        stop_grace_seconds: How long a script that is running may take to end when its caller is
            told to stop. One that is cut off may still be at work on the host, and attach a disk
            after the undo has detached it.
        merge_timeout_seconds: How long to wait for a removed checkpoint's disks to be merged.
        connections: Scripts that run at once on this host; WinRM allows a user 30 shells or fewer.
        mover_vms: Name of the virtual machine on this host that runs a mover, by the mover's name;
            a mover that is not named here runs in the machine that bears its name.
        mover_controller: Number of the mover's SCSI controller that disks are attached to.
        first_location: First location on that controller that may be used.
        slots: How many locations may be used.
        created_disk_format: `vhdx`, or `vhd` for generation 1 machines that must have it.
        created_disk_fixed: Allocate a created disk whole; slow, it writes every byte.
        created_secure_boot: Secure boot for created machines of generation 2.
    """

    endpoint: str
    username: str
    password: Secret
    transport: Literal["ntlm", "kerberos"] = "ntlm"
    ca_file: str | None = None
    operation_timeout_seconds: int = 20
    read_timeout_seconds: int = 30
    script_timeout_seconds: float = 300.0
    stop_grace_seconds: float = 60.0
    merge_timeout_seconds: float = 6 * 3600.0
    connections: int = 4
    mover_vms: dict[str, str] = field(default_factory=dict)
    mover_controller: int = 0
    first_location: int = 1
    slots: int = 63
    created_disk_format: Literal["vhdx", "vhd"] = "vhdx"
    created_disk_fixed: bool = False
    created_secure_boot: bool = True

    def __post_init__(self) -> None:
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidConfiguration(
                f"{self.endpoint!r} is not a WinRM endpoint.",
                hint="Write it as https://host:5986/wsman.",
            )
        if not self.username:
            raise InvalidConfiguration(
                f"No user name for {self.endpoint}.", hint="Write DOMAIN\\user or user@domain."
            )
        if self.ca_file is not None and not Path(self.ca_file).is_file():
            raise InvalidConfiguration(
                f"There is no CA file {self.ca_file} for {self.endpoint}.",
                hint="Name the file that holds the authority's certificate in PEM.",
            )
        if self.transport not in ("ntlm", "kerberos"):
            raise InvalidConfiguration(
                f"{self.transport!r} is not a transport for {self.endpoint}.",
                hint="Use ntlm or kerberos; basic would send the password readable.",
            )
        if not 0 < self.operation_timeout_seconds < self.read_timeout_seconds:
            raise InvalidConfiguration(
                "read_timeout_seconds must be more than operation_timeout_seconds.",
                hint="The defaults are 30 and 20.",
            )
        if not 0 <= self.first_location < self.first_location + self.slots <= SCSI_LOCATIONS:
            raise InvalidConfiguration(
                f"Locations {self.first_location} to {self.first_location + self.slots - 1} are "
                "not all on a SCSI controller.",
                hint="It has the locations 0 to 63.",
            )
        if self.connections < 1:
            raise InvalidConfiguration("connections is at least 1.")

    @property
    def encrypts_messages(self) -> bool:
        """Whether WS-Man messages are encrypted one by one, because TLS does not."""
        return self.endpoint.startswith("http://")

    def mover_vm(self, mover: str) -> str:
        """The name of the virtual machine that a mover runs in."""
        return self.mover_vms.get(mover, mover)
