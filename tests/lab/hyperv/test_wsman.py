"""The wire: real pywinrm signs in, encrypts, runs, waits, and is told what is wrong."""

import base64
import json
from typing import Any

import certifi
import pytest
import requests
import winrm
from winrm.exceptions import InvalidCredentialsError, WinRMOperationTimeoutError, WSManFaultError

from tests.lab.hyperv.harness import LabHost, run_in

HELLO = "[Console]::OutputEncoding=[Text.Encoding]::UTF8; 'grüß dich'"


def _session(lab: LabHost, **options: Any) -> winrm.Session:
    return winrm.Session(
        options.pop("endpoint", lab.settings["endpoint"]),
        auth=(lab.settings["user"], options.pop("password", lab.settings["password"])),
        transport="ntlm",
        ca_trust_path=options.pop("ca", lab.settings["ca_file"]),
        **options,
    )


def test_a_session_over_tls_checks_the_certificate_and_runs_powershell(shared: LabHost) -> None:
    result = _session(shared).run_ps("(Get-VMHost).Name; exit 3")
    assert (result.std_out, result.status_code) == (b"HV01\r\n", 3)
    with pytest.raises(requests.exceptions.SSLError):
        _session(shared, ca=certifi.where()).run_ps("1")


@pytest.mark.parametrize("encryption", ["auto", "always"])
def test_plain_http_carries_encrypted_messages_only(shared: LabHost, encryption: Any) -> None:
    endpoint = shared.settings["http_endpoint"]
    protocol = shared.protocol(endpoint=endpoint, message_encryption=encryption)
    shell = protocol.open_shell(codepage=65001)
    assert run_in(protocol, shell, HELLO) == ("grüß dich\r\n", "", 0)
    assert run_in(protocol, shell, "'x' * 300000")[0] == "x" * 300000 + "\r\n"
    with pytest.raises(WSManFaultError, match="no such command"):
        protocol.get_command_output_raw(shell, "none")
    protocol.close_shell(shell)
    with pytest.raises(InvalidCredentialsError):
        shared.protocol(endpoint=endpoint, message_encryption="never").open_shell()


@pytest.mark.parametrize("encryption", ["auto", "always"])
def test_encryption_over_tls_works_too_and_one_shell_serves_many_commands(
    shared: LabHost, encryption: Any
) -> None:
    protocol = shared.protocol(message_encryption=encryption)
    shell = protocol.open_shell(codepage=65001)
    for number in range(5):
        assert run_in(protocol, shell, f"{number} + 1")[0] == f"{number + 1}\r\n"
    protocol.close_shell(shell)


def test_wrong_credentials_are_401_over_both_doors(shared: LabHost) -> None:
    for endpoint in ("endpoint", "http_endpoint"):
        with pytest.raises(InvalidCredentialsError):
            _session(shared, password="wrong", endpoint=shared.settings[endpoint]).run_ps("1")
    with pytest.raises(InvalidCredentialsError):
        shared.protocol(username="LAB\\nobody").open_shell()
    answer = requests.post(
        shared.settings["endpoint"], verify=shared.settings["ca_file"], timeout=10
    )
    assert answer.status_code == 401
    assert "Negotiate" in answer.headers["WWW-Authenticate"]


def test_a_long_command_answers_operation_timeouts_until_it_is_done(shared: LabHost) -> None:
    protocol = shared.protocol(operation_timeout_sec=1, read_timeout_sec=5)
    shell = protocol.open_shell()
    words = base64.b64encode("Start-Sleep -Milliseconds 1500; 'done'".encode("utf-16-le")).decode()
    command = protocol.run_command(shell, "powershell", ["-EncodedCommand", words])
    with pytest.raises(WinRMOperationTimeoutError):
        protocol.get_command_output_raw(shell, command)
    assert protocol.get_command_output(shell, command) == (b"done\r\n", b"", 0)
    protocol.cleanup_command(shell, command)
    protocol.close_shell(shell)


def test_a_long_script_comes_by_standard_input_in_pieces(shared: LabHost) -> None:
    protocol = shared.protocol()
    shell = protocol.open_shell(codepage=65001)
    script = f"$x = '{'ü' * 60000}'; $x.Length; (Get-VM web01).Name".encode()
    for bootstrap in ("[Console]::In.ReadToEnd() | iex", "iex ([Console]::In.ReadToEnd())"):
        words = base64.b64encode(bootstrap.encode("utf-16-le")).decode()
        command = protocol.run_command(
            shell,
            "powershell",
            ["-NoProfile", "-NonInteractive", "-EncodedCommand", words],
            console_mode_stdin=False,
        )
        for at in range(0, len(script), 50000):
            piece = script[at : at + 50000]
            protocol.send_command_input(shell, command, piece, end=at + 50000 >= len(script))
        assert protocol.get_command_output(shell, command)[0] == b"60000\r\nweb01\r\n"
    protocol.close_shell(shell)


def test_command_lines_have_the_limits_of_cmd_and_of_createprocess(shared: LabHost) -> None:
    protocol = shared.protocol()
    shell = protocol.open_shell()
    words = base64.b64encode(("#" * 5000 + "\n'x'").encode("utf-16-le")).decode()
    for skip, expected in ((True, (b"x\r\n", 0)), (False, (b"", 1))):
        arguments = ["-EncodedCommand", words]
        command = protocol.run_command(shell, "powershell", arguments, skip_cmd_shell=skip)
        output, errors, code = protocol.get_command_output(shell, command)
        assert (output, code) == expected
        assert (b"too long" in errors) != skip
    command = protocol.run_command(shell, "format", ["d:"])
    assert b"is not recognized" in protocol.get_command_output(shell, command)[1]
    command = protocol.run_command(shell, "powershell", ["-Command", "1+1"])
    assert protocol.get_command_output(shell, command) == (b"2\r\n", b"", 0)
    protocol.close_shell(shell)


def test_unknown_shells_and_foreign_requests_are_faults(shared: LabHost) -> None:
    protocol = shared.protocol()
    with pytest.raises(WSManFaultError, match="shell was not found") as caught:
        protocol.run_command("11111111-1111-1111-1111-111111111111", "powershell")
    assert caught.value.wsman_fault_code == 2150858843
    for message in ("<x/>", "no xml", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'):
        with pytest.raises(WSManFaultError):
            protocol.send_message(message)


def test_shells_that_nobody_closes_use_up_the_quota(host: LabHost) -> None:
    open_ones = [(protocol := host.protocol(), protocol.open_shell()) for _ in range(30)]
    with pytest.raises(WSManFaultError, match="maximum number of 30 concurrent shells"):
        host.protocol().open_shell()
    open_ones[0][0].close_shell(open_ones[0][1])
    assert host.protocol().open_shell()


def test_errors_reach_the_client_as_clixml_which_pywinrm_reads(shared: LabHost) -> None:
    result = _session(shared).run_ps("Get-VM nosuch")
    assert result.status_code == 1
    assert b"unable to find a virtual machine" in result.std_err
    assert b"CLIXML" not in result.std_err


def test_the_admin_door_shows_state_without_the_password(shared: LabHost) -> None:
    text = json.dumps(shared.state())
    assert "web01" in text
    assert shared.settings["password"] not in text
