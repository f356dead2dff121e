"""A host's settings refuse what would be unsafe, and never show the password."""

from __future__ import annotations

from typing import Any

import pytest

from models.errors import InvalidConfiguration
from platforms.hyperv import HyperVHost, Secret


def _host(**changes: Any) -> HyperVHost:
    fields: dict[str, Any] = {
        "endpoint": "https://hv1.example:5986/wsman",
        "username": "LAB\\operator",
        "password": Secret("hunter2"),
    }
    return HyperVHost(**{**fields, **changes})


def test_the_password_is_in_no_text() -> None:
    host = _host()
    assert "hunter2" not in repr(host) + str(host) + f"{host.password}"
    assert host.password.reveal() == "hunter2"


def test_plain_http_encrypts_every_message() -> None:
    assert _host(endpoint="http://hv1:5985/wsman").encrypts_messages
    assert not _host().encrypts_messages


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint": "hv1"},
        {"endpoint": "ftp://hv1/"},
        {"transport": "basic"},
        {"transport": "plaintext"},
        {"read_timeout_seconds": 20, "operation_timeout_seconds": 20},
        {"first_location": 1, "slots": 64},
        {"first_location": -1},
        {"slots": 0},
        {"connections": 0},
        {"username": ""},
        {"ca_file": "/does/not/exist.pem"},
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfiguration):
        _host(**changes)


def test_a_mover_runs_in_the_machine_of_its_name_unless_told_otherwise() -> None:
    host = _host(mover_vms={"mover1": "Failback Mover 1"})
    assert host.mover_vm("mover1") == "Failback Mover 1"
    assert host.mover_vm("mover2") == "mover2"
