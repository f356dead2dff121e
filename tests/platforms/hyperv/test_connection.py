"""WinRM as it fails in life: passwords, certificates, silence, dying shells, large answers."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
import trustme

from lab import chaos
from lab.tls import ensure_certificates
from models.errors import (
    FailbackError,
    HypervisorDenied,
    HypervisorFailed,
    HypervisorUnreachable,
    InvalidConfiguration,
    MachineNotFound,
    Stopped,
)
from models.machine import OnPremisesMachine, Verdict
from platforms.base import Call
from platforms.hyperv import HyperVPlatform, Secret, scripts
from platforms.hyperv.connection import ConnectionPool
from tests.platforms.hyperv.hypervisor import MOVER, Hypervisor, cloud, spec
from tests.platforms.hyperv.powershell import MACHINE
from tests.waiting import wait_until

PASSWORD = "wrong-Passw0rd!"


# WinRM's own default is 30; fewer make the quota quicker to meet.
SHELLS = 12


def seed(hypervisor: Hypervisor) -> None:
    hypervisor.state.shells_per_user = SHELLS
    hypervisor.simple("web01")
    for number in range(150):
        hypervisor.machine(f"Maschine {number:03d} ü東京", notes="x" * 2000)


@pytest.fixture
def pool(hypervisor: Hypervisor) -> Iterator[ConnectionPool]:
    pool = ConnectionPool("hv1", hypervisor.host())
    yield pool
    pool.close()


@contextmanager
def _listening(answer: bytes | None, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A port on which something else answers, or nothing at all."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            held = []
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                if tls is not None:
                    with suppress(OSError):
                        tls.wrap_socket(connection, server_side=True).close()
                    continue
                held.append(connection)
                if answer is not None:
                    connection.recv(65536)
                    connection.sendall(answer)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


def _failed(platform: HyperVPlatform) -> list[tuple[str, str]]:
    report = platform.inspect(spec("web01"), cloud(), MOVER, Call())
    assert report.machine is None
    platform.close()
    return [(c.code, c.seen) for c in report.checks if c.verdict is Verdict.FAILED]


def test_a_wrong_password_is_refused_without_being_shown(hypervisor: Hypervisor) -> None:
    failed = _failed(hypervisor.platform(password=Secret(PASSWORD)))
    assert [code for code, _ in failed] == ["FB-CHK-HYPERV-ACCOUNT"]
    assert PASSWORD not in repr(failed)
    pool = ConnectionPool("hv1", hypervisor.host(password=Secret(PASSWORD)))
    with pytest.raises(HypervisorDenied, match="refuses the account") as caught:
        pool.ask("answer", scripts.host_facts())
    assert PASSWORD not in repr(caught.value) + repr(caught.value.__cause__)


def test_a_host_that_is_not_there_is_unreachable(hypervisor: Hypervisor) -> None:
    failed = _failed(hypervisor.platform(endpoint="https://127.0.0.1:9/wsman"))
    assert [code for code, _ in failed] == ["FB-CHK-HYPERV-HOST"]


def test_a_certificate_of_an_unknown_authority_is_refused(
    hypervisor: Hypervisor, tmp_path: Path
) -> None:
    other = ensure_certificates(tmp_path)
    failed = _failed(hypervisor.platform(ca_file=str(other)))
    assert [code for code, _ in failed] == ["FB-CHK-HYPERV-CERTIFICATE"]
    failed = _failed(hypervisor.platform(ca_file=None))
    assert [code for code, _ in failed] == ["FB-CHK-HYPERV-CERTIFICATE"]


def test_a_certificate_for_another_name_is_refused(hypervisor: Hypervisor, tmp_path: Path) -> None:
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("hv2.example").configure_cert(context)
    with _listening(None, context) as port:
        endpoint = f"https://127.0.0.1:{port}/wsman"
        failed = _failed(hypervisor.platform(endpoint=endpoint, ca_file=str(ca_file)))
    assert [code for code, _ in failed] == ["FB-CHK-HYPERV-CERTIFICATE"]
    assert "mismatch" in failed[0][1]


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-x\r\n", b""]
)
def test_what_is_not_winrm_is_unreachable(hypervisor: Hypervisor, answer: bytes) -> None:
    with _listening(answer) as port:
        pool = ConnectionPool("hv1", hypervisor.host(endpoint=f"https://127.0.0.1:{port}/wsman"))
        with pytest.raises(HypervisorUnreachable):
            pool.ask("answer", scripts.host_facts())


def test_a_silent_host_is_given_up(hypervisor: Hypervisor) -> None:
    with _listening(None) as port:
        pool = ConnectionPool(
            "hv1",
            hypervisor.host(
                endpoint=f"https://127.0.0.1:{port}/wsman",
                operation_timeout_seconds=1,
                read_timeout_seconds=2,
            ),
        )
        begun = time.monotonic()
        with pytest.raises(HypervisorUnreachable):
            pool.ask("answer", scripts.host_facts())
        assert time.monotonic() - begun < 20


def test_without_tls_every_message_is_encrypted(hypervisor: Hypervisor) -> None:
    pool = ConnectionPool("hv1", hypervisor.host(endpoint=hypervisor.settings["http_endpoint"]))
    for _ in range(3):
        assert pool.ask("answer", scripts.host_facts())["name"] == "HV1"
    pool.close()


def test_a_large_answer_in_any_letters_arrives_whole(pool: ConnectionPool) -> None:
    answer = pool.ask("list its machines", scripts.overview())
    names = {machine["name"] for machine in answer["machines"]}
    assert {f"Maschine {number:03d} ü東京" for number in range(150)} <= names
    assert sum(len(machine["notes"]) for machine in answer["machines"]) >= 300_000


def test_a_script_longer_than_a_command_line_goes_by_standard_input(pool: ConnectionPool) -> None:
    paths = [f"D:\\{'x' * 100}\\ü{number}.vhdx" for number in range(900)]
    body = scripts.existing(paths)
    assert len(body) > 30 * scripts.COMMAND_LINE_LIMIT
    answer = pool.ask("look for files", body)
    assert [value["path"] for value in answer] == paths
    assert not any(value["exists"] for value in answer)


def test_quotes_of_all_kinds_come_back_as_they_were(pool: ConnectionPool) -> None:
    paths = ["D:\\it's", "D:\\a\u2018b\u2019c", "D:\\$(x)`n", 'D:\\"', "D:\\%TEMP%", "D:\\[a]*"]
    answer = pool.ask("look for files", scripts.existing(paths))
    assert [value["path"] for value in answer] == paths


def test_a_shell_is_kept_and_replaced_when_the_host_was_restarted(
    hypervisor: Hypervisor, pool: ConnectionPool
) -> None:
    for _ in range(3):
        assert pool.ask("answer", scripts.host_facts())["name"] == "HV1"
    hypervisor.stop()
    with pytest.raises(HypervisorUnreachable):
        pool.ask("answer", scripts.host_facts())
    hypervisor.start()
    assert pool.ask("answer", scripts.host_facts())["name"] == "HV1"


def test_a_shell_that_died_alone_is_replaced_without_a_word(
    hypervisor: Hypervisor, pool: ConnectionPool
) -> None:
    assert pool.ask("answer", scripts.host_facts())["name"] == "HV1"
    hypervisor.stop()
    hypervisor.start()
    assert pool.ask("answer", scripts.host_facts())["name"] == "HV1"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("operation", ["wsman.Create", "wsman.Command", "wsman.Receive"])
def test_a_dropped_connection_is_an_error_that_may_be_tried_again(
    hypervisor: Hypervisor, pool: ConnectionPool, fair_weather: None, operation: str, when: str
) -> None:
    hypervisor.misbehave(operation, "drop", when=when, times=1)
    with pytest.raises(HypervisorUnreachable) as caught:
        pool.ask("answer", scripts.host_facts())
    assert caught.value.retryable
    assert pool.ask("answer", scripts.host_facts())["name"] == "HV1"


def test_calls_told_to_stop_leave_no_shells_behind(
    hypervisor: Hypervisor, pool: ConnectionPool
) -> None:
    stop = threading.Event()
    stop.set()
    for _ in range(SHELLS * 2):
        with pytest.raises(Stopped):
            pool.ask("answer", scripts.host_facts(), stop=stop)
    assert pool.ask("answer", scripts.host_facts())["name"] == "HV1"


def test_shells_beyond_the_quota_are_refused_and_may_be_tried_again(
    hypervisor: Hypervisor, fair_weather: None
) -> None:
    pools = [ConnectionPool("hv1", hypervisor.host()) for _ in range(SHELLS + 1)]
    for pool in pools[:-1]:
        with suppress(HypervisorUnreachable):  # shells that other tests lost count too
            pool.ask("answer", scripts.host_facts())
    with pytest.raises(HypervisorUnreachable, match="concurrent shells") as caught:
        pools[-1].ask("answer", scripts.host_facts())
    assert caught.value.retryable
    for pool in pools:
        pool.close()
    assert pools[-1].ask("answer", scripts.host_facts())["name"] == "HV1"
    pools[-1].close()


def test_kerberos_without_its_library_is_a_matter_of_installation(hypervisor: Hypervisor) -> None:
    failed = _failed(hypervisor.platform(transport="kerberos"))
    missing = find_spec("kerberos") is None
    assert [code for code, _ in failed] == [
        "FB-CHK-HYPERV-CONFIGURATION" if missing else "FB-CHK-HYPERV-ACCOUNT"
    ]


def test_quotas_are_named(hypervisor: Hypervisor, pool: ConnectionPool, fair_weather: None) -> None:
    hypervisor.misbehave("wsman.Create", "throttle", times=1)
    with pytest.raises(HypervisorUnreachable, match="quota"):
        pool.ask("answer", scripts.host_facts())


def test_a_script_that_hangs_is_ended_by_the_deadline(
    hypervisor: Hypervisor, fair_weather: None
) -> None:
    pool = ConnectionPool(
        "hv1", hypervisor.host(operation_timeout_seconds=1, read_timeout_seconds=5)
    )
    hypervisor.misbehave("Get-VMHost", "hang", times=1)
    with pytest.raises(HypervisorFailed, match="did not end in time"):
        pool.ask("answer", scripts.host_facts(), timeout_seconds=1.5)
    chaos.clear(hypervisor.directory)
    assert pool.ask("answer", scripts.host_facts())["name"] == "HV1"
    pool.close()


def test_a_running_script_is_waited_for_when_told_to_stop(
    hypervisor: Hypervisor, fair_weather: None
) -> None:
    pool = ConnectionPool("hv1", hypervisor.host())
    rule = hypervisor.misbehave("Get-VMHost", "delay", seconds=1.0, times=1)
    stop = threading.Event()
    answers: list[object] = []
    thread = threading.Thread(
        target=lambda: answers.append(pool.ask("answer", scripts.host_facts(), stop=stop))
    )
    thread.start()
    wait_until(lambda: chaos.hits(hypervisor.directory, rule) > 0, 10)
    stop.set()
    thread.join(10)
    assert len(answers) == 1
    pool.close()


def test_a_script_that_hangs_is_left_when_told_to_stop(
    hypervisor: Hypervisor, fair_weather: None
) -> None:
    pool = ConnectionPool(
        "hv1",
        hypervisor.host(
            operation_timeout_seconds=1, read_timeout_seconds=5, stop_grace_seconds=0.5
        ),
    )
    rule = hypervisor.misbehave("Get-VMHost", "hang", times=1)
    stop = threading.Event()
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            pool.ask("answer", scripts.host_facts(), stop=stop)
        except FailbackError as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: chaos.hits(hypervisor.directory, rule) > 0, 10)
    stop.set()
    thread.join(10)
    assert [type(error) for error in caught] == [Stopped]
    pool.close()


def test_no_more_scripts_run_at_once_than_allowed(
    hypervisor: Hypervisor, fair_weather: None
) -> None:
    pool = ConnectionPool("hv1", hypervisor.host(connections=2))
    rule = hypervisor.misbehave("Get-VMHost", "hang")
    threads = [
        threading.Thread(target=pool.ask, args=("answer", scripts.host_facts())) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: chaos.hits(hypervisor.directory, rule) >= 2, 10)
    with pytest.raises(HypervisorFailed, match="No connection"):
        pool.ask("answer", scripts.host_facts(), timeout_seconds=0.2)
    assert chaos.hits(hypervisor.directory, rule) == 2
    chaos.clear(hypervisor.directory)
    for thread in threads:
        thread.join(20)
    pool.close()


def test_a_failed_cmdlet_brings_its_own_words(
    hypervisor: Hypervisor, pool: ConnectionPool, fair_weather: None
) -> None:
    hypervisor.misbehave("Get-VMHost", "fail", times=1, message="Der Dienst läuft nicht.")
    with pytest.raises(HypervisorFailed, match="hv1 could not answer: Der Dienst läuft nicht"):
        pool.ask("answer", scripts.host_facts())
    hypervisor.misbehave("Get-VMHost", "fail", times=1, code="AccessDenied")
    with pytest.raises(HypervisorDenied, match="Hyper-V Administrators"):
        pool.ask("answer", scripts.host_facts())


def test_a_machine_that_is_gone_is_not_found(platform: HyperVPlatform) -> None:
    gone = OnPremisesMachine(name="x", machine_id=MACHINE, generation=2, disks=[])
    with pytest.raises(MachineNotFound):
        platform.health(spec("x"), gone)
    with pytest.raises(MachineNotFound):
        platform.start(spec("x"), gone.model_copy(update={"machine_id": ""}), Call())


def test_a_host_that_is_not_configured_is_named(platform: HyperVPlatform) -> None:
    with pytest.raises(InvalidConfiguration, match="'hv9'"):
        platform.leftovers(spec("web01", host="hv9"))
