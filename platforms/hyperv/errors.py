"""What a Hyper-V host answers when it cannot do something, as errors of the product.

Cmdlets speak the host's language, so nothing is read from their words: the error id, its class and
the HResult decide, and the words are handed on to the reader.
"""

from __future__ import annotations

from typing import Any

import requests
from winrm.exceptions import (
    AuthenticationError,
    WinRMError,
    WinRMTransportError,
    WSManFaultError,
)

from models.errors import (
    FailbackError,
    HypervisorDenied,
    HypervisorFailed,
    HypervisorUnreachable,
    InvalidConfiguration,
    MachineNotFound,
    MachineState,
)

# WS-Man fault codes, as the Windows SDK names them in wsmerror.h.
ACCESS_DENIED_FAULTS = frozenset({5, 2147942405, 2150858882})
# The shell is gone (ERROR_WSMAN_UNEXPECTED_SELECTORS, "shell was not found on the server").
SHELL_GONE_FAULTS = frozenset({2150858843, 2150858834})

_E_ACCESS_DENIED = 0x80070005
_E_SHARING_VIOLATION = 0x80070020
_E_DISK_FULL = 0x80070070
_E_HANDLE_DISK_FULL = 0x80070027
# Words in an error id, which are .NET names and the same in every language.
_DENIED_WORDS = ("AccessDenied", "UnauthorizedAccess", "PermissionDenied")
_MISSING_WORDS = ("ObjectNotFound", "VMNotFound")
_STATE_WORDS = ("InvalidState", "ObjectInUse", "ResourceBusy")


def from_script(host: str, action: str, answer: dict[str, Any]) -> FailbackError:
    """The error for a script's own report of failure.

    Args:
        host: The host's name.
        action: What was being done, to what; completes "… could not …".
        answer: `type`, `fqid`, `hresult` and `message` of the error record.
    """
    identifier = str(answer.get("fqid") or "")
    code = int(answer.get("hresult") or 0) & 0xFFFFFFFF
    words = str(answer.get("message") or "no message").strip()
    text = f"{host} could not {action}: {words} [{identifier or answer.get('type')}]"
    if identifier.startswith("CommandNotFound"):
        return InvalidConfiguration(
            text,
            hint="Install the Hyper-V module for Windows PowerShell on the host "
            "(Install-WindowsFeature Hyper-V-PowerShell).",
        )
    if code == _E_ACCESS_DENIED or _has(identifier, _DENIED_WORDS):
        return HypervisorDenied(
            text, hint="Make the account a member of Hyper-V Administrators on the host."
        )
    if code in (_E_DISK_FULL, _E_HANDLE_DISK_FULL):
        return HypervisorFailed(text, hint="Free space on the host's volume.")
    if code == _E_SHARING_VIOLATION:
        return HypervisorFailed(text, hint="Something else holds the file; close it.")
    # Asked by id, an unknown machine is an invalid parameter of Get-VM.
    if _has(identifier, _MISSING_WORDS) or identifier.endswith("Commands.GetVM"):
        return MachineNotFound(text)
    if _has(identifier, _STATE_WORDS):
        return MachineState(text)
    return HypervisorFailed(text)


def from_transport(host: str, endpoint: str, error: Exception) -> FailbackError:
    """The error for a host that could not be asked at all."""
    if isinstance(error, AuthenticationError):
        return HypervisorDenied(
            f"{host} refuses the account.",
            hint="Check user name and password, and that the account may use WinRM "
            "(Remote Management Users or Administrators).",
        )
    if isinstance(error, requests.exceptions.SSLError):
        return _tls(host, endpoint, error)
    if isinstance(error, WSManFaultError):
        return _fault(host, error)
    if isinstance(error, (requests.exceptions.RequestException, OSError)):
        return HypervisorUnreachable(
            f"{host} does not answer at {endpoint}: {type(error).__name__}.",
            hint="Check that the host is up, that WinRM listens there (winrm enumerate "
            "winrm/config/listener) and that no firewall is between.",
        )
    if isinstance(error, WinRMTransportError):
        return HypervisorUnreachable(
            f"{host} answers at {endpoint}, but not as WinRM does (HTTP {error.code}).",
            hint="Check the port and the path, usually https://host:5986/wsman.",
        )
    if isinstance(error, WinRMError):
        return HypervisorFailed(f"WinRM of {host} failed: {error}")
    return HypervisorUnreachable(
        f"{host} gave an answer that is not WinRM's ({type(error).__name__}).",
        hint="Check what listens at " + endpoint + ".",
    )


def _tls(host: str, endpoint: str, error: Exception) -> FailbackError:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return InvalidConfiguration(
            f"The certificate of {host} at {endpoint} is not to be trusted: {_certificate(error)}.",
            hint="Name the authority that signed it as the host's ca_file, or give the host a "
            "certificate for the name in its endpoint.",
        )
    return HypervisorUnreachable(
        f"{host} broke off TLS at {endpoint}.",
        hint="Check that WinRM listens there with a certificate, and not another service.",
    )


def _certificate(error: Exception) -> str:
    """OpenSSL's own reason out of a nest of wrapped exceptions."""
    reason = str(error).partition("certificate verify failed: ")[2]
    return reason.partition(" (")[0].strip("')") or "it could not be verified"


def _fault(host: str, error: WSManFaultError) -> FailbackError:
    code = error.wsman_fault_code
    if code in ACCESS_DENIED_FAULTS:
        return HypervisorDenied(
            f"{host} refuses the account the use of WinRM: {error.reason.strip()} [{code}]",
            hint="Make it a member of Remote Management Users, or an administrator.",
        )
    return HypervisorUnreachable(
        f"WinRM of {host} refused a request: {error.reason.strip()} [{code}]",
        hint="If it speaks of quotas, raise MaxShellsPerUser or lower the host's connections.",
    )


def _has(identifier: str, words: tuple[str, ...]) -> bool:
    return any(word in identifier for word in words)
