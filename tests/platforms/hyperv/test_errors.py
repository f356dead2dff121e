"""A host's answers become the product's errors without a look at their words."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from winrm.exceptions import InvalidCredentialsError, WinRMTransportError, WSManFaultError

from models.errors import (
    FailbackError,
    HypervisorDenied,
    HypervisorFailed,
    HypervisorUnreachable,
    InvalidConfiguration,
    MachineNotFound,
    MachineState,
)
from platforms.hyperv import errors


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"fqid": "CommandNotFoundException"}, InvalidConfiguration),
        ({"fqid": "AccessDenied,Microsoft.HyperV.PowerShell.Commands.GetVM"}, HypervisorDenied),
        ({"fqid": "OperationFailed,X", "hresult": -2147024891}, HypervisorDenied),
        ({"fqid": "InvalidParameter,Microsoft.HyperV.PowerShell.Commands.GetVM"}, MachineNotFound),
        ({"fqid": "ObjectNotFound,Microsoft.HyperV.PowerShell.Commands.StartVM"}, MachineNotFound),
        ({"fqid": "InvalidState,Microsoft.HyperV.PowerShell.Commands.StopVM"}, MachineState),
        ({"fqid": "OperationFailed,X", "hresult": -2147024784}, HypervisorFailed),
        ({"fqid": "OperationFailed,X", "hresult": -2147024864}, HypervisorFailed),
        ({}, HypervisorFailed),
    ],
)
def test_errors_of_scripts(answer: dict[str, Any], expected: type[FailbackError]) -> None:
    error = errors.from_script("hv1", "do it", {"message": "Das ging nicht.", **answer})
    assert type(error) is expected
    assert "hv1 could not do it: Das ging nicht." in str(error)


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (InvalidCredentialsError("no"), HypervisorDenied),
        (requests.exceptions.ConnectTimeout(), HypervisorUnreachable),
        (requests.exceptions.ConnectionError(), HypervisorUnreachable),
        (ConnectionResetError(), HypervisorUnreachable),
        (requests.exceptions.SSLError("EOF occurred"), HypervisorUnreachable),
        (WinRMTransportError("http", 404, ""), HypervisorUnreachable),
        (StopIteration(), HypervisorUnreachable),
        (
            requests.exceptions.SSLError(
                "(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate "
                "verify failed: unable to get local issuer certificate (_ssl.c:1006)'))"
            ),
            InvalidConfiguration,
        ),
        (WSManFaultError(500, "m", "r", "Access is denied.", wsman_fault_code=5), HypervisorDenied),
        (
            WSManFaultError(500, "m", "r", "Too many shells.", wsman_fault_code=2150859174),
            HypervisorUnreachable,
        ),
    ],
)
def test_errors_of_the_wire(cause: Exception, expected: type[FailbackError]) -> None:
    error = errors.from_transport("hv1", "https://hv1:5986/wsman", cause)
    assert type(error) is expected
    assert error.hint
